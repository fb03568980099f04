"""Every pair of arms: who wins, how often, by how much, and whether they are as good as equal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis import paired, profiles, statistics
from analysis.arms import interval, signed
from analysis.improvement import MOST_DOTS, improvement_figure
from analysis.page import NONE, Figure, Part, Section, Table, percent
from analysis.ranking import judged_k
from analysis.statistics import Comparison, Equivalence, Estimate
from analysis.tables import Study
from analysis.verdict import comparisons

TITLE = "Every pair of arms"
DRAWS = 2_000_000
"""Scores that a bootstrap may draw for one arm: resamples become fewer for more than 500."""
NO_RATIOS = (
    "A score at or below 0 leaves no ratios, so no margin in per cent can be judged: nothing is "
    "said of equivalence."
)
NOTHING = Estimate(math.nan, None, None, 0)


class Pair(NamedTuple):
    """All that is known of two arms.

    Attributes:
        test: Wins, losses, pairs, and p adjusted by Holm's method.
        improvement: How often the first arm scores better, ties counting half.
        shift: Median over shared configurations of the ratio, worse over better, of first to
            second; of the difference of the scores as told where there are no ratios.
        at_k: Equivalence by the ratio of the median best of k; None where there are no ratios
            or an arm has fewer than k.
    """

    test: Comparison
    improvement: Estimate
    shift: Estimate
    at_k: Equivalence | None


class Pairs(NamedTuple):
    """The pairs, with what holds for all of them.

    Attributes:
        k: Budget at which arms are compared; 1 where configurations are repeated.
        ratios: Whether scores have ratios: all are above 0.
        better: "lower" or "higher".
    """

    pairs: list[Pair]
    k: int
    margin: float
    ratios: bool
    paired: bool
    unit: str
    better: str


def ratio_scale(scores: pd.Series[float], sign: int) -> pd.Series[float] | None:
    """Return oriented scores as positive numbers whose ratios mean something, lower is better.

    Where higher is better, the inverse of what is told, so that a ratio is worse over better
    whichever way the score points. None unless all that are told are above 0.
    """
    told = sign * scores[np.isfinite(scores)]
    if not (told > 0).all():
        return None
    # Oriented scores are negative where higher is better; a failure stays +inf.
    return scores if sign == 1 else (-1 / scores).where(np.isfinite(scores), math.inf)


def paired_difference(first: pd.Series[float], second: pd.Series[float]) -> Estimate:
    """Return the median difference over pairs with its exact interval, the sign test's.

    A failure of one is a difference of infinity; pairs in which both failed tell nothing.
    """
    used = np.isfinite(first) | np.isfinite(second)
    differences = np.sort(first[used].to_numpy() - second[used].to_numpy())
    n = len(differences)
    if not n:
        return NOTHING
    low, high = statistics.quantile_interval(differences, 0.5)
    ends = differences[(n - 1) // 2], differences[n // 2]
    # Of two opposite infinities there is no middle.
    middle = math.nan if ends[0] == -math.inf and ends[1] == math.inf else sum(ends) / 2
    return Estimate(float(middle), low, high, n)


def pairs_data(study: Study) -> Pairs:
    """Compare every pair of arms in every way; no pairs where nothing can be tested."""
    scores = {arm: study.unit_scores(arm) for arm in study.contenders}
    positive = _positive(scores, study.sign)
    k = 1 if study.unit == "seed" else judged_k(study)
    margin = study.judgement.margin
    found = [_pair(study, test, scores, positive, k) for test in comparisons(study)]
    better = "lower" if study.sign == 1 else "higher"
    return Pairs(found, k, margin, positive is not None, study.paired, study.unit, better)


def scaled_scores(
    study: Study, arms: Sequence[str] | None = None
) -> dict[str, pd.Series[float]] | None:
    """Return arms' scores on a ratio scale, by default all contenders'; None if one has none."""
    names = study.contenders if arms is None else arms
    return _positive({arm: study.unit_scores(arm) for arm in names}, study.sign)


def _positive(
    scores: Mapping[str, pd.Series[float]], sign: int
) -> dict[str, pd.Series[float]] | None:
    """Return every arm's scores on a ratio scale, None if one of them has none."""
    scaled = {arm: ratio_scale(mine, sign) for arm, mine in scores.items()}
    known = {arm: mine for arm, mine in scaled.items() if mine is not None}
    return known if len(known) == len(scaled) else None


def _pair(
    study: Study,
    test: Comparison,
    scores: Mapping[str, pd.Series[float]],
    positive: Mapping[str, pd.Series[float]] | None,
    k: int,
) -> Pair:
    a, b = scores[test.first], scores[test.second]
    common = a.index.intersection(b.index)
    improvement = shift = NOTHING
    if not study.paired:
        improvement = statistics.probability_of_improvement(a, b)
    elif len(common):
        improvement = statistics.probability_of_improvement(a[common], b[common], paired=True)
        if positive is None:
            shift = signed(paired_difference(a[common], b[common]), study.sign)
        else:
            c, d = positive[test.first][common], positive[test.second][common]
            shift = statistics.paired_ratio(c, d)
    at_k = None
    if positive is not None and k <= min(len(a), len(b)):
        c, d = positive[test.first], positive[test.second]
        at_k = statistics.equivalent_best_of_k(c, d, k, study.judgement.margin)
    return Pair(test, improvement, shift, at_k)


def pair_rows(data: Pairs) -> pd.DataFrame:
    """Return the pairs as numbers, one row each; NaN where there is none."""
    shift = "ratio" if data.ratios else "difference"
    rows = []
    for pair in data.pairs:
        at_k = NOTHING if pair.at_k is None else pair.at_k.ratio
        row: dict[str, object] = pair.test._asdict() | {"k": data.k, "margin": data.margin}
        named = {
            "improvement": pair.improvement,
            f"median_{shift}": pair.shift,
            "ratio_at_k": at_k,
        }
        for name, estimate in named.items():
            row |= {name: estimate.value, f"{name}_low": estimate.low,
                    f"{name}_high": estimate.high}  # fmt: skip
        rows.append(row | {"verdict": "" if pair.at_k is None else pair.at_k.verdict})
    return pd.DataFrame(rows).rename(columns={"p": "p_holm"})


def _who(pair: Pair) -> str:
    return f"{pair.test.first} against {pair.test.second}"


def _table(data: Pairs) -> Table:
    """Return who wins how often."""
    tested = statistics.can_be_significant([pair.test.smallest for pair in data.pairs])
    shown = pd.DataFrame(
        {
            "arms": [_who(pair) for pair in data.pairs],
            "first better": [pair.test.wins for pair in data.pairs],
            "second better": [pair.test.losses for pair in data.pairs],
            "pairs": [pair.test.pairs for pair in data.pairs],
            "p (Holm)": [
                f"{pair.test.p:.2g}" if known else NONE
                for pair, known in zip(data.pairs, tested, strict=True)
            ],
            "first better, share [95 %]": [
                interval(pair.improvement, share=True) for pair in data.pairs
            ],
        }
    )
    shared = "A pair is any run of the one arm with any of the other, as nothing is shared."
    if data.paired:
        shared = f"A pair is one {data.unit} that both arms tried."
    reading = (
        f"{shared} {data.better.capitalize()} is better; a failure loses against any score, two "
        "failures tie, and ties count half in the share. p: exact, two-sided, adjusted by Holm "
        "for the number of pairs; intervals are each pair's own."
    )
    if not data.paired:
        reading = reading.replace("p: exact", "p: Mann-Whitney's, exact or by permutation")
    if not all(tested):
        least = min(pair.test.smallest for pair in data.pairs)
        reading += (
            f" {NONE}: so few {data.unit}s that differ cannot reach 0.05 after the adjustment, "
            f"whatever comes (smallest p {least:.2g} before it)."
        )
    return Table("pairs", TITLE, reading, pair_rows(data), shown)


def _sizes(data: Pairs) -> Table | str:
    """Return by how much the arms differ, and whether by less than the margin."""
    if not data.ratios and not data.paired:
        return NO_RATIOS
    rows = []
    for pair in data.pairs:
        row = {"arms": _who(pair)}
        if data.paired:
            what = "ratio" if data.ratios else "difference"
            row[f"median {what} of pairs [95 %]"] = _extent(pair.shift)
        if data.ratios:
            best = "medians" if data.k == 1 else f"best of {data.k}"
            row[f"ratio of {best} [90 %]"] = (
                NONE if pair.at_k is None else _extent(pair.at_k.ratio)
            )
            row[f"within {percent(data.margin)}"] = (
                NONE if pair.at_k is None else pair.at_k.verdict
            )
        rows.append(row)
    return Table("sizes", "By how much", _about_sizes(data), pair_rows(data), pd.DataFrame(rows))


def _extent(estimate: Estimate) -> str:
    """Return a ratio or a difference with its interval; these may well be infinite."""
    if math.isnan(estimate.value):
        return NONE
    ends = "none"
    if estimate.low is not None and estimate.high is not None:
        ends = f"{_told(estimate.low)}, {_told(estimate.high)}"
    return f"{_told(estimate.value)} [{ends}]"


def _told(value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.3g}"


def _about_sizes(data: Pairs) -> str:
    """Return how to read ratios or differences, and what is said to be equivalent."""
    if not data.ratios:
        return f"Differences are first minus second, {data.better} is better. {NO_RATIOS}"
    budget = (
        f"median over {data.unit}s" if data.k == 1 else f"median best of {data.k} configurations"
    )
    reading = (
        "Ratios are first over second such that below 1 the first arm is better; ∞ stands where "
        f"it fails and the other does not. Within {percent(data.margin)}: whether the ratio of "
        f"the two arms' {budget} (the estimand) lies within that margin, by two one-sided tests "
        "at 5 %: equivalent, different by more, or cannot tell, which is no proof of equality."
    )
    if data.better == "higher":
        reading += " As higher scores are better, a ratio is the second arm's over the first's."
    if any(pair.at_k is None for pair in data.pairs):
        reading += f" {NONE}: an arm has fewer than {data.k} configurations."
    return reading


def ordered_rows(data: Pairs) -> pd.DataFrame:
    """Return how often each arm beats each other one: every pair in both orders."""
    rows = []
    for pair in data.pairs:
        value, low, high, n = pair.improvement
        if math.isnan(value):
            continue
        ends = (math.nan, math.nan) if low is None or high is None else (low, high)
        turned = 1 - ends[1], 1 - ends[0]
        rows.append((pair.test.first, pair.test.second, value, *ends, n))
        rows.append((pair.test.second, pair.test.first, 1 - value, *turned, n))
    columns = ["arm", "against", "probability", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def standing(study: Study) -> list[str]:
    """Return the arms that have scores, by mean rank among all scores, the leading one first."""
    scores = {arm: study.unit_scores(arm) for arm in study.contenders}
    known = [arm for arm in study.contenders if len(scores[arm])]
    if not known:
        return []
    ranks = stats.rankdata(np.concatenate([scores[arm] for arm in known]))
    parts = np.split(ranks, np.cumsum([len(scores[arm]) for arm in known])[:-1])
    mean = {arm: float(part.mean()) for arm, part in zip(known, parts, strict=True)}
    return sorted(known, key=lambda arm: mean[arm])


def middle_rows(study: Study) -> pd.DataFrame:
    """Return each arm's n, failures, and interquartile mean as told, with its interval."""
    rows = []
    for arm in study.arms:
        scores = study.unit_scores(arm).to_numpy()
        estimate = NOTHING
        if len(scores):
            draws = int(np.clip(DRAWS // len(scores), 500, 4000))
            rng = np.random.default_rng(0)
            estimate = signed(statistics.interquartile_mean(scores, rng, draws=draws), study.sign)
        if not study.independent:
            estimate = estimate._replace(low=None, high=None)
        rows.append((arm, len(scores), int(np.isinf(scores).sum()), *estimate[:3]))
    columns = ["arm", "n", "failed", "interquartile_mean", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _middle_table(study: Study) -> Table:
    data = middle_rows(study)
    shown = [
        (arm, n, failed, interval(Estimate(value, *_ends(low, high), n)))
        for arm, n, failed, value, low, high in data.itertuples(index=False)
    ]
    reading = (
        f"Interquartile mean: of the middle half of an arm's {study.unit}s, a quarter cut off at "
        "either end, with a bootstrap interval of 6 or more; it has failed where more than a "
        "quarter did."
    )
    heads = ["arm", "n", "failed", f"interquartile mean of {study.primary} [95 %]"]
    return Table("middle", "The middle half", reading, data, pd.DataFrame(shown, columns=heads))


def _ends(low: float, high: float) -> tuple[float | None, float | None]:
    """Return an interval's ends; a table's NaN stands for none."""
    return (None, None) if pd.isna(low) or pd.isna(high) else (low, high)


def why_none(study: Study) -> str:
    """Return why no pair of arms is tested, empty if pairs are."""
    if len(study.contenders) == 1:
        return f"This study has one arm, {study.contenders[0]}: there is no pair to compare."
    if study.adaptive:
        return (
            "Trials of this study competed or were chosen by how others went, so no pair of arms "
            "is tested; what follows describes what was tried."
        )
    if not study.independent:
        return (
            f"How this study drew its configurations ({study.sampler}) gives no independent "
            "draws, so no pair of arms is tested; what follows describes what was tried."
        )
    return ""


def section(study: Study) -> Section | None:
    """Return the tests of all pairs, how often and by how much, and the scores themselves."""
    leading = standing(study)
    if not leading:
        return None
    parts: list[Part] = []
    reason = why_none(study)
    if reason:
        parts.append(reason)
    elif len(leading) < 2:
        parts.append(f"Only {leading[0]} has scores: there is no pair to compare.")
    else:
        parts += _tested(study)
    parts += [_middle_table(study), profiles.figure(study)]
    parts += paired.parts(study, leading)
    return Section("pairs", TITLE, parts)


def _tested(study: Study) -> list[Part]:
    data = pairs_data(study)
    rows = ordered_rows(data)
    parts: list[Part] = [_table(data), _sizes(data)]
    if rows.empty:
        return [*parts, "No pair of arms shares a configuration, so none can be compared."]
    reading = (
        "How often the arm of a mark beats the one named below it, ties counting half; bars are "
        "95 % intervals, and one that crosses the dotted half tells neither for the better. "
    )
    if len(study.contenders) > MOST_DOTS:
        reading = (
            "How often the arm of a row beats that of a column, ties counting half; in brackets "
            "where the 95 % interval holds one half, so that neither is told for the better. "
        )
    if rows["low"].isna().any():
        reading += f"Of fewer than {statistics.FEWEST_RUNS} runs an arm there is no interval. "
    counts = rows["n"].min(), rows["n"].max()
    n = str(counts[0]) if counts[0] == counts[1] else f"{counts[0]} to {counts[1]}"
    what = "shared configurations a pair" if data.paired else f"{data.unit}s in the smaller arm"
    failed = sum(int(np.isinf(study.unit_scores(arm)).sum()) for arm in study.contenders)
    reading += f"n = {n} {what}; {failed} {data.unit}s failed over all arms, and lose."
    plot = improvement_figure(rows, study.contenders)
    return [*parts, Figure("improvement", "How often each arm is better", reading, plot, rows)]
