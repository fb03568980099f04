"""How often the report's intervals hold the truth, by simulation from populations that are known.

    python benchmarks/coverage.py [--repeats 4000]

Scores are lognormal with a standard deviation of 0.7 in the logarithm, as Fréchet distances over a
search space are, with failures as +inf. A line tells the setting, the method, the share of
studies whose interval held the truth, and the median width of the interval ("inf" where half of
them end in failure). Methods in brackets are not in use: they show what was passed over, and why.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import integrate, stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from analysis import statistics  # noqa: E402
from analysis.sanity import rank_agreement  # noqa: E402
from analysis.savings import _shares as shares_saved  # noqa: E402
from analysis.seeds import mean_interval  # noqa: E402

SPREAD = 0.7
SIZES = (3, 4, 6, 8, 12, 16, 50, 100)
"""Below a dozen, intervals that a method does not give count as those that hold everything."""
LEVELS = (0.05, 0.05 / 6)
"""Of tests: alone, and the smallest of six pairs of arms by Holm's method."""
POPULATION = stats.lognorm(SPREAD)
Interval = tuple[float | None, float | None]


class Case(NamedTuple):
    """One setting: draw a study, tell whether its interval holds the truth, and how wide it is."""

    topic: str
    n: int
    setting: str
    method: str
    study: Callable[[np.random.Generator], tuple[bool, float]]

    @property
    def in_use(self) -> bool:
        return not self.method.startswith("[")


def holds(interval: Interval, truth: float) -> tuple[bool, float]:
    """Tell whether the interval holds the truth, and its width; without both ends it claims none.

    A study that shows no interval misleads nobody: coverage is one less the share of studies that
    show an interval without the truth in it.
    """
    low, high = interval
    if low is None or high is None:
        return True, math.nan
    return low <= truth <= high, high - low if low < math.inf else 0.0


def drawn(rng: np.random.Generator, n: int, failures: float, scale: float = 1.0) -> np.ndarray:
    """Draw n scores, each of them a failure with the given probability."""
    scores = scale * rng.lognormal(0, SPREAD, n)
    scores[rng.random(n) < failures] = math.inf
    return scores


def quantile(p: float, failures: float) -> float:
    """Return the population's quantile, +inf among the failures."""
    return float(POPULATION.ppf(p / (1 - failures))) if p < 1 - failures else math.inf


def best_of_k() -> Iterator[Case]:
    """The population's median best of k, up to the largest k with an interval."""
    for n in SIZES:
        largest = statistics.largest_k_with_interval(n)
        for k in sorted({1, (1 + largest) // 2, max(1, largest)} - {0}):
            for failures in (0.0, 0.2, 0.6):
                truth = quantile(1 - 2 ** (-1 / k), failures)

                def study(rng, n=n, k=k, failures=failures, truth=truth):
                    found = statistics.median_best_of_k(drawn(rng, n, failures), k)
                    return holds((found.low, found.high), truth)

                setting = f"k = {k}, {failures:.0%} fail"
                yield Case("median best of k", n, setting, "order statistics", study)


def ratio_of_best_of_k() -> Iterator[Case]:
    """Two arms, the first 1.3 times worse and failing at times."""
    for n in SIZES:
        for k in (1, max(1, statistics.largest_k_with_interval(n, 0.975))):
            truth = 1.3 * quantile(1 - 2 ** (-1 / k), 0.2) / quantile(1 - 2 ** (-1 / k), 0.0)

            def study(rng, n=n, k=k, truth=truth):
                found = statistics.ratio_of_best_of_k(drawn(rng, n, 0.2, 1.3), drawn(rng, n, 0), k)
                return holds((found.low, found.high), truth)

            yield Case("ratio of best of k", n, f"k = {k}, 20% fail", "Bonferroni", study)


def paired_ratio() -> Iterator[Case]:
    """Two arms over a shared design, whose configurations have much in common."""
    for n in SIZES:
        for failures in (0.0, 0.2):

            def study(rng, n=n, failures=failures):
                common = rng.lognormal(0, SPREAD, n)
                a = 1.2 * common * drawn(rng, n, failures)
                found = statistics.paired_ratio(a, common * drawn(rng, n, failures))
                return holds((found.low, found.high), 1.2)

            yield Case("paired ratio", n, f"{failures:.0%} fail", "signs", study)


def improvement() -> Iterator[Case]:
    """Two arms of lognormal scores of different spread; the second may fail and may be rounded."""
    for n in SIZES:
        for gain in (0.0, 1.0, 2.0):
            for failures, ties in ((0.0, False), (0.2, True)):
                shift, spreads = gain * SPREAD, (0.5 * SPREAD, SPREAD)
                truth = _improvement(shift, spreads, failures, ties)

                def arms(rng, n=n, shift=shift, spreads=spreads, failures=failures, ties=ties):
                    a, b = rng.normal(0, spreads[0], n), rng.normal(shift, spreads[1], n)
                    if ties:
                        a, b = np.round(2 * a) / 2, np.round(2 * b) / 2
                    a[rng.random(n) < failures / 2] = math.inf
                    b[rng.random(n) < failures] = math.inf
                    return a, b

                def ours(rng, arms=arms, truth=truth):
                    found = statistics.probability_of_improvement(*arms(rng))
                    return holds((found.low, found.high), truth)

                def paired(rng, arms=arms, truth=truth):
                    found = statistics.probability_of_improvement(*arms(rng), paired=True)
                    return holds((found.low, found.high), truth)

                setting = f"P = {truth:.2f}" + (", ties, 20% fail" if ties else "")
                yield Case("improvement", n, setting, "score or logit", ours)
                yield Case("improvement", n, setting, "paired, Clopper-Pearson", paired)


def _improvement(shift: float, spreads: tuple[float, float], failures: float, ties: bool) -> float:
    if not ties:
        return float(stats.norm.cdf(shift / math.hypot(*spreads)))
    grid = np.arange(-40, 41) / 2
    masses = [
        np.append((1 - f) * np.diff(stats.norm.cdf(np.append(grid, 20.5) - 0.25, m, s)), f)
        for m, s, f in zip((0, shift), spreads, (failures / 2, failures), strict=True)
    ]
    joint = np.outer(*masses)
    return float(np.triu(joint, 1).sum() + np.trace(joint) / 2)


def interquartile_mean() -> Iterator[Case]:
    """The mean of the population's middle half."""
    for n in SIZES:
        for failures in (0.0, 0.1, 0.2):
            truth = 2 * integrate.quad(lambda p, f=failures: quantile(p, f), 0.25, 0.75)[0]

            def ours(rng, n=n, failures=failures, truth=truth):
                found = statistics.interquartile_mean(drawn(rng, n, failures), rng, draws=1000)
                return holds((found.low, found.high), truth)

            def plain(rng, n=n, failures=failures, truth=truth):
                scores, cut = drawn(rng, n, failures), n // 4
                again = np.sort(rng.choice(scores, (1000, n)), axis=1)[:, cut : n - cut]
                ends = np.quantile(again.mean(axis=1), (0.025, 0.975), method="nearest")
                return holds(tuple(ends), truth)

            def winsorised(rng, n=n, failures=failures, truth=truth):
                scores, cut = np.sort(drawn(rng, n, failures)), n // 4
                kept = np.clip(scores, scores[cut], scores[n - cut - 1])
                if not np.isfinite(kept).all():
                    return True, math.inf
                error = kept.std(ddof=1) / ((1 - 2 * cut / n) * math.sqrt(n))
                half = stats.t.ppf(0.975, n - 2 * cut - 1) * error
                centre = scores[cut : n - cut].mean()
                return holds((centre - half, centre + half), truth)

            setting = f"{failures:.0%} fail"
            yield Case("interquartile mean", n, setting, "widened bootstrap", ours)
            yield Case("interquartile mean", n, setting, "[percentile bootstrap]", plain)
            yield Case("interquartile mean", n, setting, "[Tukey-McLaughlin]", winsorised)


def profile() -> Iterator[Case]:
    """Shares at or below 40 thresholds, all of them together."""
    at = np.geomspace(0.2, 5, 40)
    for n in SIZES:
        truth = 0.8 * POPULATION.cdf(at)

        def study(rng, n=n, truth=truth):
            found = statistics.performance_profile(drawn(rng, n, 0.2), at)
            inside = (found.low <= truth) & (truth <= found.high)
            return bool(inside.all()), float(np.median(found.high - found.low))

        yield Case("performance profile", n, "40 thresholds at once", "DKW", study)


def intraclass() -> Iterator[Case]:
    """Normal effects of configuration and seed."""
    designs = {"2 seeds each": 2, "5 seeds each": 5, "1 to 5 seeds": None}
    for n in (2, 3, 6, 12, 20, 50):
        for name, seeds in designs.items():
            if n < 3 and seeds is None:  # one of the two has a single seed
                continue
            for share in (0.3, 0.8):

                def study(rng, n=n, seeds=seeds, share=share):
                    sizes = np.full(n, seeds) if seeds else np.arange(n) % 5 + 1
                    scores = [
                        rng.normal(rng.normal(0, share**0.5), (1 - share) ** 0.5, size)
                        for size in sizes
                    ]
                    found = statistics.variance_components(scores)
                    return holds((found.intraclass_low, found.intraclass_high), share)

                yield Case("intraclass correlation", n, f"{share}, {name}", "Wald's F", study)


def survival() -> Iterator[Case]:
    """Exponential collapses, censored at 1 by the budget and before it by uniform stops."""
    for n in SIZES:
        for at in (0.1, 0.5, 0.9):
            for scale in (1.0, 5.0):
                truth = math.exp(-at / scale)

                def trainings(rng, n=n, scale=scale):
                    ends, stops = rng.exponential(scale, n), np.minimum(rng.uniform(0, 3, n), 1)
                    return np.minimum(ends, stops), ends <= stops

                def ours(rng, trainings=trainings, at=at, truth=truth):
                    found = statistics.kaplan_meier(*trainings(rng))
                    i = int(np.searchsorted(found.times, at, side="right")) - 1
                    ends = (found.low[i], found.high[i]) if i >= 0 else (0.0, 1.0)
                    return holds(ends, truth)

                def log_log(rng, trainings=trainings, at=at, truth=truth):
                    times, observed = trainings(rng)
                    curve = stats.ecdf(stats.CensoredData.right_censored(times, ~observed)).sf
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", RuntimeWarning)  # undefined in places
                        ends = curve.confidence_interval(0.95, method="log-log")
                    i = int(np.searchsorted(curve.quantiles, at, side="right")) - 1
                    if i < 0:
                        return False, math.nan
                    return holds((ends.low.probabilities[i], ends.high.probabilities[i]), truth)

                setting = f"S({at}) = {truth:.2f}"
                yield Case("survival", n, setting, "beta product", ours)
                yield Case("survival", n, setting, "[log-log]", log_log)


def firth() -> Iterator[Case]:
    """The slope of one of three columns."""
    for n in (16, 50, 100):
        for slope in (0.0, 1.5):

            def study(rng, n=n, slope=slope):
                x = np.column_stack(
                    [rng.normal(size=n), rng.integers(0, 2, n), rng.uniform(size=n)]
                )
                if np.ptp(x[:, 1]) == 0:
                    return True, math.nan
                failed = rng.random(n) < 1 / (1 + np.exp(1 - slope * x[:, 0]))
                found = statistics.firth_logistic(x, failed, ["a", "b", "c"])
                return holds((found.low[1], found.high[1]), slope)

            yield Case("Firth's slope", n, f"slope {slope}", "profile likelihood", study)


def seed_mean() -> Iterator[Case]:
    """The mean over seeds of one configuration, of scores that vary little and much."""
    for n in (2, 3, 4, 6, 8, 12, 50):
        for spread in (0.1, 0.3, 0.7):

            def geometric(rng, n=n, spread=spread):
                found = mean_interval(np.log(rng.lognormal(0, spread, n)))
                return holds((found.low, found.high), 0.0)

            def plain(rng, n=n, spread=spread):
                found = mean_interval(rng.lognormal(0, spread, n))
                return holds((found.low, found.high), math.exp(spread**2 / 2))

            setting = f"log sd {spread}"
            yield Case("mean over seeds", n, setting, "Student, logarithms", geometric)
            yield Case("mean over seeds", n, setting, "[Student, plain]", plain)


def rank_correlation() -> Iterator[Case]:
    """Spearman's rho of two scores of n generators."""
    for n in (8, 12, 20):
        for r in (0.0, 0.5, 0.8, 0.95):

            def study(rng, n=n, r=r):
                x = rng.normal(size=n)
                y = r * x + math.sqrt(1 - r * r) * rng.normal(size=n)
                found = rank_agreement(x, y)
                return holds((found.low, found.high), 6 / math.pi * math.asin(r / 2))

            yield Case("rank correlation", n, f"r = {r}", "percentile bootstrap", study)


def saved_share() -> Iterator[Case]:
    """The share of seconds that a rule saves which stops some of n trials."""
    for n in (8, 12, 20, 50):
        for stopped in (0.1, 0.5):

            def study(rng, n=n, stopped=stopped):
                seconds = rng.lognormal(0, 0.3, n)
                saved = np.where(rng.random(n) < stopped, rng.uniform(0.2, 0.9, n) * seconds, 0)
                [found] = shares_saved([saved], seconds, [str(i) for i in range(n)])
                return holds((found.low, found.high), 0.55 * stopped)

            yield Case("share saved", n, f"{stopped:.0%} stopped", "widened bootstrap", study)


def log_rank() -> Iterator[Case]:
    """The size of the log-rank test: arms that last alike, censored alike or not."""
    for n in (3, 4, 6, 8, 12, 30, 100):
        for setting, scale, ends, step in (
            ("", 1.0, (1.0, 1.0), 0.0), ("ties", 1.0, (1.0, 1.0), 0.125),
            ("few end", 9.0, (1.0, 1.0), 0.0), ("none is censored", 0.1, (1.0, 1.0), 0.0),
            ("censored unlike", 1.0, (0.4, 1.0), 0.0),
        ):  # fmt: skip

            def arms(rng, n=n, scale=scale, ends=ends, step=step):
                for end in ends:
                    times = rng.exponential(scale, n)
                    times = np.ceil(times / step) * step if step else times
                    yield np.minimum(times, end), times <= end

            for level in LEVELS:

                def ours(rng, arms=arms, level=level):
                    return statistics.log_rank(*arms(rng)) > level, math.nan

                def chi_square(rng, arms=arms, level=level):
                    p = statistics.log_rank(*arms(rng), method="asymptotic")
                    return p > level, math.nan

                said = f"{level:.3f}{', ' + setting if setting else ''}"
                yield Case("log-rank test", n, said, "permutation", ours)
                if n < 100:  # from there on it is the one in use
                    yield Case("log-rank test", n, said, "[chi-square]", chi_square)


def rank_tests() -> Iterator[Case]:
    """The size of Mann-Whitney's test, of scores that tie and that fail."""
    for n in (3, 4, 6, 8, 12, 50):
        for failures, ties in ((0.0, False), (0.3, False), (0.7, False), (0.0, True)):
            for level in LEVELS:

                def study(rng, n=n, failures=failures, ties=ties, level=level):
                    a, b = (drawn(rng, n, failures) for _ in "ab")
                    p = statistics.rank_test(np.round(a), np.round(b)) if ties else (
                        statistics.rank_test(a, b)
                    )  # fmt: skip
                    return p[2] > level, math.nan

                setting = f"{level:.3f}, {'ties' if ties else f'{failures:.0%} fail'}"
                yield Case("rank test", n, setting, "exact or permutation", study)


def sign_tests() -> Iterator[Case]:
    """The size of the sign test over shared configurations."""
    for n in (3, 4, 6, 8, 12, 50):
        for level in LEVELS:

            def study(rng, n=n, level=level):
                return statistics.sign_test(*rng.random((2, n)))[2] > level, math.nan

            yield Case("sign test", n, f"{level:.3f}", "exact", study)


def firth_tests() -> Iterator[Case]:
    """The size of the test of one coefficient where 5 of few configurations fail."""
    for n, columns in ((10, 1), (16, 5), (30, 6)):

        def study(rng, n=n, columns=columns):
            failed = rng.permutation(n) < 5
            x = rng.uniform(size=(n, columns))
            fit = statistics.firth_logistic(x, failed, [str(i) for i in range(columns)])
            return bool(fit.p[1] > 0.05), math.nan

        setting = f"0.050, {columns} columns, 5 fail"
        yield Case("Firth's test", n, setting, "likelihood ratio", study)


def across() -> Iterator[Case]:
    """Logarithms of ratios that vary over data sets."""
    for n in (2, 3, 4, 10):

        def study(rng, n=n):
            found = statistics.across_datasets(rng.normal(0.1, 0.2, n)).ratio
            return holds((found.low, found.high), math.exp(0.1))

        yield Case("ratio across data sets", n, "normal logarithms", "Student", study)


TOPICS = (
    best_of_k,
    ratio_of_best_of_k,
    paired_ratio,
    improvement,
    interquartile_mean,
    profile,
    intraclass,
    survival,
    firth,
    across,
    seed_mean,
    rank_correlation,
    saved_share,
    log_rank,
    rank_tests,
    sign_tests,
    firth_tests,
)


def coverage(case: Case, repeats: int) -> tuple[float, float]:
    """Return the share of studies whose interval held the truth, and the median width."""
    rng = np.random.default_rng([*f"{case.topic} {case.n} {case.setting}".encode()])
    found = [case.study(rng) for _ in range(repeats)]
    widths = np.array([width for _, width in found])
    kept = widths[~np.isnan(widths)]
    middle = float(np.quantile(kept, 0.5, method="nearest")) if len(kept) else math.nan
    return float(np.mean([held for held, _ in found])), middle


def shares() -> None:
    """Print the coverage of `rate`, which needs no simulation: it is a sum over outcomes."""
    print("\nshares (exact sums over outcomes, p = 0.0005 to 0.9995 by 0.0005)")
    p = np.arange(1, 2000) / 2000
    for n in (12, 49, 50, 100, 200, 900):
        found = [statistics.rate(x, n) for x in range(n + 1)]
        ends = np.array([(one.low, one.high) for one in found])
        inside = (ends[:, :1] <= p) & (p <= ends[:, 1:])
        covered = (stats.binom.pmf(np.arange(n + 1)[:, None], n, p) * inside).sum(axis=0)
        method = "Clopper-Pearson" if n < 50 else "Wilson"
        print(
            f"n = {n:3d} {method:16s} mean {covered.mean():.3f}, lowest {covered.min():.3f} "
            f"at p = {p[covered.argmin()]:.4f}, below 0.93 at {(covered < 0.93).mean():.0%} of p"
        )


def leads() -> None:
    """Print by how much the best of four identical arms leads, by chance alone."""
    rng = np.random.default_rng(0)
    print("\nfour identical arms: second best over best and worst over best, median (mean)")
    for spread in (0.5, 0.6, 0.7, 0.8):
        for failures in (0.0, 0.2):
            values = np.exp(stats.norm(0, spread).ppf((np.arange(20_000) + 0.5) / 20_000))
            values = np.append(values, [math.inf] * round(20_000 * failures / (1 - failures)))
            told = []
            for k in (4, 12):
                lead = statistics.lead_of_identical_arms(values, 4, k, rng, 200_000)
                ratios = [r[np.isfinite(r)] for r in lead]
                told += [f"{np.median(r):.2f} ({r.mean():.2f})" for r in ratios]
            print(
                f"log sd {spread}, {failures:3.0%} fail: k = 4: {told[0]}, {told[1]}; "
                f"k = 12: {told[2]}, {told[3]}"
            )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--topics", nargs="*", default=[topic.__name__ for topic in TOPICS])
    options = parser.parse_args()
    print(f"{'topic':24s} {'n':>4s} {'setting':26s} {'method':26s} coverage  width")
    for topic in TOPICS:
        for case in topic() if topic.__name__ in options.topics else ():
            held, width = coverage(case, options.repeats)
            low = " LOW" if held < 0.93 else ""
            print(
                f"{case.topic:24s} {case.n:4d} {case.setting:26s} {case.method:26s} "
                f"{held:8.3f} {width:6.3g}{low}",
                flush=True,
            )
    shares()
    leads()


if __name__ == "__main__":
    main()
