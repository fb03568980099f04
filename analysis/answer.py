"""The plain-language answer that a report opens with, generated from its numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from analysis import statistics
from analysis.arms import failure_rate, what_fails
from analysis.budget import why_none
from analysis.comparisons import scaled_scores
from analysis.page import number, percent
from analysis.ranking import RankedArm, compared_k, judged_k, quantity, rank_arms
from analysis.sanity import listed
from analysis.sceptic import control_outcomes, control_sentence, unchanged
from analysis.score_validity import score_warning
from analysis.statistics import largest_k_with_interval
from analysis.tables import UNKNOWN_DESIGN, Study
from analysis.verdict import ALPHA, comparisons, verdict
from ganstudy.records import EVENTS


def answer(study: Study) -> list[str]:
    """Return the sentences, what was found first, then how sure it is."""
    if study.outcomes.empty:
        return [verdict(study)]
    told = [verdict(study), leaders(study), equivalence(study), failures(study)]
    told += [control_sentence(outcome) for outcome in control_outcomes(study)]
    return [sentence for sentence in told if sentence]


def warnings(study: Study) -> list[str]:
    """Return what has to be known before the answer is read."""
    told = []
    if unchanged(study) is False:
        told.append(
            "How the study is judged was changed after its first trial, so that nothing here was "
            "fixed beforehand."
        )
    if study.sampler == UNKNOWN_DESIGN:
        told.append(
            f"A bare table: lower {study.primary} is taken to be better, every row without one to "
            f"have failed, and the rows to be independent random draws."
        )
    if study.judgement.failures and not study.results.has(EVENTS):
        told.append(
            f"There is no {EVENTS}: trials that failed by {', '.join(study.judgement.failures)} "
            f"are not told from others, so the study is not judged as was fixed."
        )
    if doubts := score_warning(study):
        told.append(doubts)
    return told


def leaders(study: Study) -> str:
    """Return which arm leads by the quantity that orders the table, and which follows.

    Empty where the search was adaptive, or where fewer than two arms have scores.
    """
    ranked = [one for one in rank_arms(study) if not math.isnan(one.rank)]
    if study.adaptive or len(ranked) < 2:
        return ""
    k, best = compared_k(study), [one for one in ranked if one.rank == 1]
    if not math.isfinite(ranked[0].best.value):
        if k == 1:
            return f"In every arm at least half of the {study.unit}s fail, so none leads."
        return f"Of k = {k} configurations all fail in half of all choices, in every arm."
    better = "lower" if study.sign == 1 else "higher"
    said = f"By {quantity(study)} ({better} is better, a failure the worst; the table's order) "
    if len(best) > 1:
        said += (
            f"{listed([one.arm for one in best])} share the first place at "
            f"{_interval(study, best[0].best)}."
        )
    else:
        said += f"{_told(study, ranked[0])} is first, then {_follow(study, ranked[1:])}."
    notes = (_not_told_apart(study, ranked), _against_the_tests(study, ranked))
    few = _without_interval(study, min(one.best.n for one in ranked[:2]), k)
    return said + "".join(notes) + _best_single(study, best) + few


def _told(study: Study, one: RankedArm) -> str:
    return f"{one.arm} {_interval(study, one.best)}"


def _follow(study: Study, others: Sequence[RankedArm]) -> str:
    """Return the second arm, or all that share its rank."""
    second = [one for one in others if one.rank == others[0].rank]
    if len(second) > 1:
        arms = listed([one.arm for one in second])
        return f"{arms}, which share {_interval(study, second[0].best)}"
    return _told(study, second[0])


def _not_told_apart(study: Study, ranked: Sequence[RankedArm]) -> str:
    """Return that the order of the first two is not shown to be more than chance, if so."""
    if not study.independent or not any(c.p < ALPHA for c in comparisons(study)):
        return ""  # the verdict says so of all arms
    first, second = ranked[0].arm, ranked[1].arm
    if any(c.p < ALPHA and {c.first, c.second} == {first, second} for c in comparisons(study)):
        return ""
    return f" Between {first} and {second} the tests show no difference."


def _against_the_tests(study: Study, ranked: Sequence[RankedArm]) -> str:
    """Return which proven winner of most pairs stands behind the loser in this order."""
    rank = {one.arm: one.rank for one in ranked}
    told = [
        f" {loser} stands before {winner} although {winner} wins more pairs: the tests compare "
        f"{study.unit} by {study.unit}, the order one number an arm."
        for c in comparisons(study)
        if c.p < ALPHA and c.wins != c.losses
        for winner, loser in [(c.first, c.second) if c.wins > c.losses else (c.second, c.first)]
        if rank[winner] > rank[loser]
    ]
    return "".join(told)


def _best_single(study: Study, best: Sequence[RankedArm]) -> str:
    """Return whose is the best single score, where it is no leading arm's."""
    single = {arm: float(study.unit_scores(arm).min()) for arm in study.contenders
              if len(study.unit_scores(arm))}  # fmt: skip
    top = min(single.values())
    owners = [arm for arm, value in single.items() if value == top]
    if set(owners) & {one.arm for one in best}:
        return ""
    return (
        f" The best single {study.unit} of all is {listed(owners)}'s "
        f"({number(study.sign * top)}); one {study.unit} says little of an arm."
    )


def _without_interval(study: Study, n: int, k: int) -> str:
    """Return why a best of k of n has no interval and what would give it one, empty if it has."""
    if not study.independent:
        return " There are no intervals: the trials are no independent draws."
    if study.unit == "seed" or largest_k_with_interval(n) >= k:
        return ""
    # The smallest number whose largest k with an interval is k; it grows by less than 6 a k.
    needed = next(more for more in range(n, 6 * k + 1) if largest_k_with_interval(more) >= k)
    return f" An interval takes {needed} configurations an arm, and there are {n}."


def _interval(study: Study, estimate: statistics.Estimate) -> str:
    value = number(study.sign * estimate.value) if math.isfinite(estimate.value) else "failed"
    if estimate.low is None or estimate.high is None or not study.independent:
        return value
    ends = sorted((study.sign * estimate.low, study.sign * estimate.high))
    shown = [number(end) if math.isfinite(end) else "failed" for end in ends]
    return f"{value} [{shown[0]}, {shown[1]}]"


def equivalence(study: Study) -> str:
    """Return how many pairs of arms are as good as equal within the margin."""
    k, margin = judged_k(study), study.judgement.margin
    scores = scaled_scores(study)
    if why_none(study) or not study.independent or len(study.contenders) < 2 or scores is None:
        return ""
    if any(len(values) < k for values in scores.values()):
        return ""
    verdicts = [
        statistics.equivalent_best_of_k(scores[a], scores[b], k, margin).verdict
        for a, b in itertools.combinations(scores, 2)
    ]
    equal, n = verdicts.count("equivalent"), len(verdicts)
    estimand = f"the ratio of their median best of {k}"
    if equal:
        return (
            f"{equal} of {n} pairs of arms are equivalent within {percent(margin)} "
            f"(by {estimand}, two one-sided tests at 5 %)."
        )
    return (
        f"No pair of arms is shown to be equivalent within {percent(margin)} (by {estimand}), so "
        f"where no difference was found there may still be one."
    )


def failures(study: Study) -> str:
    """Return how many trials failed, and in which arms most and fewest did."""
    failed = {
        arm: (int(np.isinf(study.counted(arm)["score"]).sum()), len(study.counted(arm)))
        for arm in study.contenders
        if len(study.counted(arm))
    }
    total, n = (
        (sum(numbers) for numbers in zip(*failed.values(), strict=True)) if failed else (0, 0)
    )
    if not total:
        return f"None of {n} trials failed." if n else ""
    shares = {arm: failure_rate(failed[arm][0], study.counted(arm), study) for arm in failed}
    ends = [end([share.value for share in shares.values()]) for end in (max, min)]
    most, fewest = ([arm for arm in shares if shares[arm].value == end] for end in ends)
    why = f" (a trial failed if {what_fails(study)})" if study.judgement.failures else ""
    told = f"{total} of {n} trials failed{why}"
    if most == fewest:
        return f"{told}, the same share in every arm."
    told += f": most in {_rates(most, shares)}, fewest in {_rates(fewest, shares)}."
    worst, best = shares[most[0]], shares[fewest[0]]
    if worst.low is not None and best.high is not None and worst.low <= best.high:
        told += " The intervals overlap, so this order may be chance."
    return told + _scores_of(study, fewest)


def _scores_of(study: Study, fewest: Sequence[str]) -> str:
    """Return that arms with the fewest failures do not lead by score, where they do not."""
    ranked = [one for one in rank_arms(study) if not math.isnan(one.rank)]
    behind = [one for one in ranked if one.arm in fewest and one.rank > 1]
    if study.adaptive or not behind:
        return ""
    places = listed([f"{one.arm} is {one.rank:g} of {len(ranked)}" for one in behind])
    return f" Few failures do not mean good scores: by {quantity(study)} {places}."


def _rates(arms: Sequence[str], shares: Mapping[str, statistics.Estimate]) -> str:
    """Return arms with their share of failures, which is the same in all of them."""
    if len({shares[arm] for arm in arms}) == 1:
        return f"{listed(arms)} ({_rate(shares[arms[0]])})"
    return listed([f"{arm} ({_rate(shares[arm])})" for arm in arms])


def _rate(share: statistics.Estimate) -> str:
    ends = f" [{share.low:.0%}, {share.high:.0%}]" if share.has_interval else ""
    return f"{share.value:.0%}{ends}"
