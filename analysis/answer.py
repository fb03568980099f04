"""The plain-language answer that a report opens with, generated from its numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np

from analysis import statistics
from analysis.arms import failure_rate, what_fails
from analysis.budget import judged_k, why_none
from analysis.comparisons import scaled_scores
from analysis.page import number, percent
from analysis.sceptic import control_outcomes, control_sentence, unchanged
from analysis.score_validity import score_warning
from analysis.statistics import largest_k_with_interval
from analysis.tables import UNKNOWN_DESIGN, Study
from analysis.verdict import verdict
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
    """Return the best arm at the judged budget with its interval, and the runner-up with its."""
    k = judged_k(study)
    scores = {arm: study.unit_scores(arm).to_numpy() for arm in study.contenders}
    if why_none(study) or len(scores) < 2 or any(len(values) < k for values in scores.values()):
        return ""
    best = {arm: statistics.median_best_of_k(values, k) for arm, values in scores.items()}
    first, second = sorted(best, key=lambda arm: best[arm].value)[:2]
    if not math.isfinite(best[first].value):
        return f"Of k = {k} configurations all fail in half of all choices, in every arm."
    told = [f"{arm} {_interval(study, best[arm])}" for arm in (first, second)]
    better = "lower" if study.sign == 1 else "higher"
    return (
        f"With a budget of k = {k} configuration{'s' if k > 1 else ''} the best median "
        f"{study.primary} ({better} is better) is that of {told[0]}, then {told[1]}."
        f"{_without_interval(study, min(best[first].n, best[second].n), k)}"
    )


def _without_interval(study: Study, n: int, k: int) -> str:
    """Return why a best of k of n has no interval and what would give it one, empty if it has."""
    if not study.independent:
        return " There are no intervals: the trials are no independent draws."
    if largest_k_with_interval(n) >= k:
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
    most, fewest = (
        max(shares, key=lambda a: shares[a].value),
        min(shares, key=lambda a: shares[a].value),
    )
    why = f" (a trial failed if {what_fails(study)})" if study.judgement.failures else ""
    told = f"{total} of {n} trials failed{why}"
    if shares[most].value == shares[fewest].value:
        return f"{told}, as many in every arm."
    ends = f"most in {most} ({_rate(shares[most])}), fewest in {fewest} ({_rate(shares[fewest])})"
    return f"{told}: {ends}."


def _rate(share: statistics.Estimate) -> str:
    ends = f" [{share.low:.0%}, {share.high:.0%}]" if share.has_interval else ""
    return f"{share.value:.0%}{ends}"
