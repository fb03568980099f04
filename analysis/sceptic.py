"""What a sceptic asks first: was it fixed beforehand, does the study see what it must see?"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy import stats

from analysis import statistics
from analysis.arms import failures_positive, honest, interval, signed
from analysis.budget import why_none
from analysis.comparisons import scaled_scores
from analysis.distribution import oriented, score_distribution_data, score_distribution_figure
from analysis.page import NONE, Figure, Part, Section, Table, number
from analysis.ranking import judged_k
from analysis.sensitivity import edges
from analysis.statistics import Estimate
from analysis.style import layout
from analysis.tables import Study
from analysis.verdict import ALPHA, compared
from ganstudy.records import RECOVERY, judgement_hash
from ganstudy.study.outcomes import ScoreRule

SHUFFLES = 999


def section(study: Study) -> Section | None:
    """Return the sceptic's page."""
    if study.outcomes.empty:
        return None
    parts = [
        _fixed(study),
        _controls(study),
        _lead(study),
        _judge(study),
        _specifications(study),
        _edges(study),
        _narrow(study),
    ]
    return Section("sceptic", "A sceptic's page", [part for part in parts if part is not None])


def fixed_rows(study: Study) -> dict[str, Any]:
    """Return what was fixed before the first trial, whether it still is, and when."""
    judged = study.judgement
    rule = {
        "primary": study.primary, "minimize": study.sign == 1, "k": judged.k,
        "margin": judged.margin, "checkpoint": judged.checkpoint, "failures": [*judged.failures],
    }  # fmt: skip
    recorded = study.provenance.get("judgement") or {}
    return {"rule": rule, "hash": judgement_hash(rule), "recorded": recorded}


def unchanged(study: Study) -> bool | None:
    """Whether the study is judged as was fixed before its first trial; None if nothing was."""
    found = fixed_rows(study)
    recorded = found["recorded"].get("hash")
    if recorded is None or not study.primary:  # or a study that has not measured anything yet
        return None
    return recorded == found["hash"]


def _fixed(study: Study) -> Section:
    found = fixed_rows(study)
    rule, recorded = found["rule"], found["recorded"]
    names = {
        "primary": "score that decides", "k": "k, configurations at which arms are compared",
        "margin": "relative margin below which arms are as good as equal",
        "checkpoint": "checkpoint of a trial that counts",
        "failures": "events that make a trial a failure if they last to its end",
    }  # fmt: skip
    before = recorded.get("rule")
    told = {"what": list(names.values()), "judged by": [_plain(rule[key]) for key in names]}
    if before is not None:
        told["fixed as"] = [_plain(before.get(key)) for key in names]
    rows = pd.DataFrame(told)
    table = Table("fixed", "The rule", "", rows)
    short = ""
    if rule["k"] is not None and judged_k(study) < rule["k"] and not why_none(study):
        short = (
            f" The arm with the fewest configurations has {judged_k(study)} so far, so that arms "
            f"are compared at k = {judged_k(study)}."
        )
    first = study.results.trials["started_at"].min()
    begun = "" if pd.isna(first) else f", the first trial began {_time(first)}"
    match unchanged(study):
        case None:
            said = (
                "Nothing was fixed before the first trial of this study, so its rule could have "
                "been chosen after looking."
            )
        case True:
            said = (
                f"Fixed at {recorded['fixed_at']}{begun}; SHA-256 {found['hash']}, the same now."
            )
        case _:
            said = (
                f"Changed: what was fixed at {recorded['fixed_at']}{begun} has SHA-256 "
                f"{recorded['hash']}, the rule that this report judges by {found['hash']}. What "
                f"follows was not fixed beforehand."
            )
    return Section("sceptic-fixed", "Was it fixed beforehand?", [said + short, table])


def _plain(value: Any) -> str:
    if value is None:
        return "the largest k with an interval"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return str(value)


def _time(seconds: float) -> str:
    return pd.Timestamp(seconds, unit="s", tz="UTC").isoformat(timespec="seconds")


class ControlOutcome(NamedTuple):
    """What the study says of an arm and its control."""

    kind: str
    arm: str
    copy: str
    wins: int
    losses: int
    pairs: int
    p: float
    smallest: float
    """The smallest p that any outcome of so many runs, with as many ties, could have."""

    @property
    def told_apart(self) -> bool:
        """Whether the study tells the two apart, at 5 % and without adjustment."""
        return self.p < ALPHA


def control_outcomes(study: Study) -> list[ControlOutcome]:
    """Compare every control with its arm, as any two arms are."""
    return [
        ControlOutcome(kind, arm, copy, c.wins, c.losses, c.pairs, c.p, c.smallest)
        for kind, (arm, copy) in study.controls.items()
        if (c := compared(study, arm, copy)) is not None
    ]


def passed(outcome: ControlOutcome) -> bool:
    """Whether a control came out as it must: the same arm alike, the broken one worse."""
    if outcome.kind == "same":
        return not outcome.told_apart
    return outcome.told_apart and outcome.wins > outcome.losses


def _controls(study: Study) -> Section:
    title = "Does the study see what it must see?"
    outcomes = control_outcomes(study)
    if not outcomes:
        said = (
            "The controls of this study could not be compared: its trials are no independent "
            "draws, or did not end."
            if study.controls
            else "This study has no controls: no arm was run twice, none was broken on purpose. "
            "`controls: {same: true, broken: true}` adds them."
        )
        return Section("sceptic-controls", title, [said])
    shown = pd.DataFrame(
        {
            "control": [_control_name(o.kind) for o in outcomes],
            "arm": [o.arm for o in outcomes],
            "its copy": [o.copy for o in outcomes],
            "arm better": [f"{o.wins} of {o.pairs}" for o in outcomes],
            "copy better": [f"{o.losses} of {o.pairs}" for o in outcomes],
            "p": [f"{o.p:.2g}" for o in outcomes],
            "as it must be": ["yes" if passed(o) else "NO" for o in outcomes],
        }
    )
    reading = (
        f"Compared as any two arms are, not adjusted. The same arm twice may differ by chance in "
        f"{ALPHA:.0%} of studies; a broken arm that is not told from a whole one means that this "
        f"study could not have seen a difference between any."
    )
    table = Table("controls", title, reading, pd.DataFrame(outcomes), shown)
    return Section("sceptic-controls", title, [*map(control_sentence, outcomes), table])


def _control_name(kind: str) -> str:
    return {"same": "the same arm twice (A/A)", "broken": "broken on purpose"}[kind]


def control_sentence(outcome: ControlOutcome) -> str:
    """Return in words what a control showed."""
    o = outcome
    ties = o.pairs - o.wins - o.losses
    why = (
        f" In {ties} of {o.pairs} pairs both failed or scored alike, which tells nothing."
        if ties
        else ""
    )
    if o.kind == "same":
        if o.told_apart:
            return (
                f"{o.arm} run twice is told apart (p = {o.p:.2g}): noise alone makes differences "
                f"that look real here, so take every finding with care."
            )
        blind = o.smallest >= ALPHA
        sure = " with so few pairs nothing could have been" if blind else " as it must be"
        return f"{o.arm} run twice is not told apart (p = {o.p:.2g}),{sure}.{why}"
    if passed(o):
        return f"An arm broken on purpose is seen to lose (p = {o.p:.2g}), as it must."
    if o.smallest >= ALPHA:
        return (
            f"An arm broken on purpose is not seen to lose (p = {o.p:.2g}), and of so few runs "
            f"that differ none could have been: this study is too small to tell anything.{why}"
        )
    return (
        f"An arm broken on purpose is not seen to lose (p = {o.p:.2g}): this study is too small, "
        f"or its score or its rule of failure blind, to tell anything.{why}"
    )


class Lead(NamedTuple):
    """How far the best arm leads the second, in their median best of k, and what chance gives.

    Attributes:
        ratio: The second arm's median best of k over the best arm's.
        null_median: Its median where arms' labels are shuffled.
        null_high: Its 95 % quantile there.
        p: Share of shuffles in which some arm leads by as much or more.
        single_median: Median lead of the best of as many identical arms in their own best of k,
            one draw each: what single studies of k configurations report.
        configs: Configurations of an arm that enter: where they are shared, those of all arms.
    """

    k: int
    first: str
    second: str
    ratio: float
    null_median: float
    null_high: float
    p: float
    single_median: float
    configs: int


def lead_data(study: Study) -> Lead | None:
    """Compare the leader's lead with that of identical arms, None where there is none.

    Labels are shuffled within configurations where these are shared (a permutation test of "the
    arms do not differ"), else over all of them.
    """
    arms, k = study.contenders, judged_k(study)
    scores = scaled_scores(study)
    if why_none(study) or not study.independent or len(arms) < 2 or scores is None:
        return None
    if any(len(mine) < k for mine in scores.values()):
        return None
    table = pd.DataFrame(scores)
    if study.paired:
        table = table.dropna()
    values = table.to_numpy()
    pooled = values[~np.isnan(values)]
    if len(table) < k:
        return None
    (low, first), (high, second) = sorted(
        (_median_best(table[arm].dropna().to_numpy(), k), arm) for arm in arms
    )[:2]
    if not math.isfinite(high):
        return None
    rng = np.random.default_rng(0)
    null = np.array([_lead_of(_shuffled(values, rng, study.paired), k) for _ in range(SHUFFLES)])
    null = np.where(np.isnan(null), 1.0, null)  # all arms failed: none leads
    single = statistics.lead_of_identical_arms(pooled, len(arms), k, rng).second
    ratio = high / low
    p = (1 + int((null >= ratio).sum())) / (1 + SHUFFLES)
    middle, most = np.quantile(null, [0.5, 0.95], method="higher")
    chance = float(np.nanquantile(single, 0.5, method="higher"))
    return Lead(k, first, second, ratio, float(middle), float(most), p, chance, len(table))


def _shuffled(values: np.ndarray, rng: np.random.Generator, paired: bool) -> np.ndarray:
    """Return scores, arms as columns, with labels shuffled; NaN where an arm has fewer."""
    if paired:  # within each row; ranks of random numbers are much faster than rng.permuted
        return np.take_along_axis(values, rng.random(values.shape).argsort(axis=1), axis=1)
    shuffled = values.copy()
    known = ~np.isnan(values)
    shuffled[known] = rng.permutation(values[known])
    return shuffled


def _lead_of(values: np.ndarray, k: int) -> float:
    """Return the second column's median best of k over the best column's."""
    best = sorted(_median_best(column[~np.isnan(column)], k) for column in values.T)
    return math.nan if math.isinf(best[0]) else best[1] / best[0]


def _median_best(scores: np.ndarray, k: int) -> float:
    """Return `statistics.median_best_of_k` without its interval, which takes longer."""
    low, high = _median_ranks(len(scores), k)
    ordered = np.partition(scores, (low, high))
    return float((ordered[low] + ordered[high]) / 2)


@functools.cache
def _median_ranks(n: int, k: int) -> tuple[int, int]:
    """Return which of n sorted scores, from 0, the median best of k lies between."""
    rank = statistics.median_best_of_k(np.arange(n, dtype=float), k).value
    return math.floor(rank), math.ceil(rank)


def _lead(study: Study) -> Section | None:
    if len(study.contenders) < 2:
        return None
    title = "How far does the best of identical arms lead?"
    lead = lead_data(study)
    if lead is None:
        why = (
            "It takes independent draws in every arm, scores whose ratios mean something (above "
            "0), and a second arm that does not fail in half of all choices."
        )
        return Section("sceptic-lead", title, [f"This cannot be told here. {why}"])
    m = len(study.contenders)
    shared = ""
    if study.paired and lead.configs < max(len(study.unit_scores(a)) for a in study.contenders):
        shared = f"Over the {lead.configs} configurations that all arms have: "
    said = (
        f"{shared}At k = {lead.k} configurations the best arm, {lead.first}, leads the second, "
        f"{lead.second}, by a factor of {lead.ratio:.3g} in the median. Where the arms' labels "
        f"are shuffled, so that no arm is better, the best of {m} leads by {lead.null_median:.3g} "
        f"(median) and in one of twenty by {lead.null_high:.3g} or more; by as much as here or "
        f"more in {lead.p:.1%} of {SHUFFLES} shuffles. A single study of k = {lead.k} "
        f"configurations an arm would show its best of {m} identical arms to lead by "
        f"{lead.single_median:.3g} (median)."
    )
    return Section("sceptic-lead", title, [said])


def _judge(study: Study) -> Section | None:
    """Tell whether a network that chose nothing ranks the arms' best generators alike."""
    reported = study.results.reported
    judges = [n for n in dict.fromkeys(reported["name"]) if n not in study.protocol]
    own = reported[reported["name"] == study.primary].set_index("arm")["value"] * study.sign
    rows = []
    for name in judges:
        theirs = reported[reported["name"] == name].set_index("arm")["value"]
        known = set(own.dropna().index) & set(theirs.dropna().index)
        common = [arm for arm in study.contenders if arm in known]
        how = study.reported_protocol.get(name, {})
        sign = -1 if how.get("direction") == "maximize" else 1
        rho = math.nan
        if len(common) > 2:
            rho = float(stats.spearmanr(own[common], sign * theirs[common]).statistic)
        best = (sign * theirs[common]).idxmin() if common else NONE
        rows.append((name, len(common), rho, own[common].idxmin() if common else NONE, best))
    if not rows:
        return None
    columns = ["judge", "arms", "rho", f"best by {study.primary}", "best by the judge"]
    data = pd.DataFrame(rows, columns=columns)
    reading = (
        "A network that chose no checkpoint and no configuration scores each arm's best generator "
        "on the report split. Rho: Spearman's, of the arms' ranking by both; with so few arms it "
        "has no useful interval."
    )
    shown = data.assign(rho=data["rho"].map(number))
    table = Table("judge", "The judge", reading, data, shown)
    return Section("sceptic-judge", "Does a judge that chose nothing agree?", [table])


class Specification(NamedTuple):
    """One defensible way of judging the study."""

    rule: ScoreRule
    failures: str
    k: int

    @property
    def label(self) -> str:
        """The choices in a line."""
        return f"{self.rule.score}, {self.rule.checkpoint}, {self.failures}, k = {self.k}"


def specifications(study: Study) -> Iterator[Specification]:
    """Yield metric x checkpoint x failure rule x k."""
    events = study.results.events["kind"]
    kinds = tuple(sorted(set(events) - {RECOVERY}))
    failing: dict[str, dict[str, Any]] = {"as judged": {"failures": study.judgement.failures}}
    if (study.outcomes["status"] == "stopped").any():
        failing["stopped ones count"] = {"keep_stopped": True}
    if study.judgement.failures:
        failing["no event fails"] = {"failures": ()}
    if kinds:
        failing["any lasting event fails"] = {"failures": kinds}
    n = min(len(study.unit_scores(arm)) for arm in study.contenders)
    ks = [1] if why_none(study) else sorted({1, judged_k(study), max(1, n // 2), n})
    for name, sign in scores_told(study).items():
        for checkpoint, (said, how), k in itertools.product(("best", "last"), failing.items(), ks):
            if f"{checkpoint}.{name}" in study.outcomes:
                rule = replace(ScoreRule(name, sign, checkpoint), **how)
                yield Specification(rule, said, k)


def scores_told(study: Study) -> dict[str, int]:
    """Return the scores that know which way is better, the primary one first, with their sign."""
    known = {study.primary: study.sign}
    for name, how in study.protocol.items():
        if how.get("chooses", True) and how.get("direction") in ("minimize", "maximize"):
            known[name] = 1 if how["direction"] == "minimize" else -1
    return known


def specification_rows(study: Study) -> pd.DataFrame:
    """Return one row a specification and contender: its median best of k and its rank.

    Ranks are least for the best; arms that all fail share the last. Empty where nothing can be
    ranked: one contender, an adaptive search, an arm without trials.
    """
    arms = study.contenders
    if study.adaptive or len(arms) < 2 or any(not len(study.unit_scores(a)) for a in arms):
        return pd.DataFrame()
    rows = []
    cached: dict[ScoreRule, dict[str, np.ndarray]] = {}
    judged = (study.score_rule, judged_k(study))
    for index, spec in enumerate(specifications(study)):
        if spec.rule not in cached:
            cached[spec.rule] = {a: study.unit_scores(a, spec.rule).to_numpy() for a in arms}
        best = [statistics.median_best_of_k(cached[spec.rule][a], spec.k).value for a in arms]
        if not np.isfinite(best).any():
            continue
        for arm, value, rank in zip(arms, best, stats.rankdata(best, "min"), strict=True):
            rows.append(
                (index, spec.label, spec.rule.score, spec.rule.checkpoint, spec.failures, spec.k,
                 (spec.rule, spec.k) == judged, arm, spec.rule.sign * value, int(rank))
            )  # fmt: skip
    columns = ["specification", "label", "score", "checkpoint", "failures", "k", "judged", "arm",
               "median", "rank"]  # fmt: skip
    return failures_positive(pd.DataFrame(rows, columns=columns))


def _specifications(study: Study) -> Section | None:
    rows = specification_rows(study)
    if rows.empty or rows["specification"].nunique() < 2:
        return None
    first = rows[rows["rank"] == 1].groupby("arm").size()
    n = rows["specification"].nunique()
    led = ", ".join(f"{arm} in {first.get(arm, 0)}" for arm in study.contenders)
    reading = (
        f"Rank of every arm (1: best) under each of n = {n} defensible ways to judge: score x "
        f"checkpoint x what counts as failure x k, from those in which most arms keep the ranks "
        f"of the judged one (marked) to the others. Best, ties included: {led}. A finding that "
        f"holds only in a few columns hangs on the choice, not on the arm; one that holds in all "
        f"is not proven by that, since all judge the same trials."
    )
    title = "Would another way of judging say the same?"
    plot = specification_figure(rows, study.contenders)
    return Section("sceptic-specifications", title,
                   [Figure("specifications", title, reading, plot, rows)])  # fmt: skip


def specification_figure(rows: pd.DataFrame, arms: Sequence[str]) -> go.Figure:
    """Draw ranks by specification, and below which choices each is made of."""
    table = rows.pivot(index="arm", columns="specification", values="rank").loc[list(arms)]
    specs = rows.drop_duplicates("specification").set_index("specification")
    judged = specs.index[specs["judged"]]
    mark = judged[0] if len(judged) else table.columns[0]
    distance = (table.sub(table[mark], axis=0)).abs().sum()
    order = distance.sort_values(kind="stable").index
    table, specs = table[order], specs.loc[order]
    x = list(range(len(order)))
    figure = go.Figure()
    figure.add_heatmap(
        z=table.to_numpy(), x=x, y=list(arms), colorscale="Cividis_r", zmin=1, zmax=len(arms),
        customdata=np.tile(specs["label"].to_numpy(), (len(arms), 1)), xgap=1, ygap=1,
        hovertemplate="%{y}: rank %{z}<br>%{customdata}<extra></extra>",
        colorbar={"title": "rank", "thickness": 10, "len": 0.45, "y": 0.78, "dtick": 1},
    )  # fmt: skip
    choices = []
    for column in ("score", "checkpoint", "failures", "k"):
        for value in dict.fromkeys(specs[column]):
            choices.append((column, f"{'k = ' if column == 'k' else ''}{value}", value))
    for column, label, value in choices:
        figure.add_scatter(
            x=[i for i, made in zip(x, specs[column], strict=True) if made == value],
            y=[label] * int((specs[column] == value).sum()), yaxis="y2", mode="markers",
            marker={"size": 5, "color": "#444"}, showlegend=False, hoverinfo="skip",
        )  # fmt: skip
    where = list(order).index(mark)
    figure.add_vline(x=where, line={"color": "#D55E00", "width": 2})
    share = len(arms) / (len(arms) + len(choices) + 1)
    figure.update_layout(
        **layout(height=120 + 24 * (len(arms) + len(choices)), margin={"l": 150, "r": 16}),
        xaxis={"title": "specifications; orange: the judged one", "showticklabels": False,
               "anchor": "y2"},
        yaxis={"domain": [1 - share, 1], "autorange": "reversed"},
        yaxis2={"domain": [0, 1 - share - 0.04], "autorange": "reversed", "type": "category"},
    )  # fmt: skip
    return figure


def _edges(study: Study) -> Section | None:
    found = edges(study)
    if found.empty:
        return None
    title = "Does a best configuration sit on the edge of its range?"
    flagged = found[found["edge"] != ""]
    told = [
        f"{row.arm}: {row.parameter} = {row.value:.3g} lies at the {row.edge} end of its range"
        for row in flagged.itertuples()
    ]
    said = (
        "; ".join(told) + ". Better values may lie outside what was searched; of several ranges "
        "some best value lies near an end by chance, as often as the table says."
        if told
        else "None does: no arm's best lies within 5 % of an end of any of its ranges."
    )
    shown = found.assign(
        value=found["value"].map(number), low=found["low"].map(number),
        high=found["high"].map(number), position=found["position"].map("{:.0%}".format),
        chance=[NONE if math.isnan(c) else f"{c:.0%}" for c in found["chance"]],
    )  # fmt: skip
    table = Table("sceptic-edges", "Where the best configurations sit",
                  "Position: between the ends of the range, on the scale it was drawn on.",
                  found, shown)  # fmt: skip
    return Section("sceptic-edges", title, [said, table])


def narrowed(study: Study) -> Study | None:
    """Return the study with only the trials that lie in its narrow space, None if it has none."""
    spaces = {arm: study.settings["arms"][arm].get("narrow") or {} for arm in study.arms}
    if not any(spaces.values()):
        return None
    trials = study.results.trials
    inside = pd.Series(True, index=trials.index)
    for arm, space in spaces.items():
        mine = trials["arm"] == arm
        for key, drawn in space.items():
            if f"param.{key}" in trials:
                inside &= ~mine | _within(trials[f"param.{key}"], drawn)
    # A frozen dataclass is copied without what it had computed.
    results = type(study.results).of(trials[inside], events=study.results.events)
    return replace(study, results=results)


def _within(values: pd.Series[Any], drawn: Any) -> pd.Series[bool]:
    """Return which values a range or list of choices holds; a value that was not drawn is in."""
    kind, ends = next(iter(drawn.items())) if isinstance(drawn, dict) else ("choice", [drawn])
    if kind == "choice":  # as `records.table` stores them: numbers, or all of them as text
        if pd.api.types.is_numeric_dtype(values):
            return values.isna() | values.isin([end for end in ends if type(end) in (int, float)])
        texts = [end if isinstance(end, str) else json.dumps(end) for end in ends]
        return values.isna() | values.isin(texts)
    low, high = min(ends[:2]), max(ends[:2])
    return values.isna() | pd.to_numeric(values, errors="coerce").between(low, high)


def _narrow_ranges(study: Study) -> str:
    """Return in words what the narrow space is, arms that share one together."""
    arms: dict[str, list[str]] = {}
    for arm in study.arms:
        space = study.settings["arms"][arm].get("narrow") or {}
        told = ", ".join(
            f"{k} {kind} {ends}" for k, d in space.items() for kind, ends in d.items()
        )
        arms.setdefault(told or "all that is drawn", []).append(arm)
    return "; ".join(f"{', '.join(names)}: {told}" for told, names in arms.items()) + "."


def _narrow(study: Study) -> Section | None:
    narrow = narrowed(study)
    if narrow is None or study.adaptive:
        return None
    data, shown = [], []
    for arm in study.arms:
        for name, of in (("all", study), ("narrow", narrow)):
            scores = of.unit_scores(arm)
            median = Estimate(math.nan, None, None, 0)
            if len(scores):
                median = signed(honest(statistics.median_best_of_k(scores, 1), study), study.sign)
            failed = honest(statistics.rate(int(np.isinf(scores).sum()), len(scores)), study)
            data.append((arm, name, len(scores), failed.value, *median[:3]))
            share = interval(failed, share=True)
            shown.append((arm, name, len(scores), share, interval(median)))
    columns = ["arm", "space", "n", "failed", "median", "low", "high"]
    heads = ["arm", "space", "configurations", "failed", "median"]
    reading = (
        "The trials of this study whose values lie in the narrow space that the study states: "
        "what a second, narrow study would draw, at no further training."
    )
    parts: list[Part] = [
        _narrow_ranges(study),
        Table("narrow", "The narrow space, out of the wide trials", reading,
              pd.DataFrame(data, columns=columns), pd.DataFrame(shown, columns=heads))
    ]  # fmt: skip
    distribution = score_distribution_data(narrow)
    if len(distribution.rows):
        plot = score_distribution_figure(distribution)
        parts.append(
            Figure("scores-narrow", "Scores in the narrow space",
                   "One mark a trial; an arm's defaults (star) may lie outside of the space.",
                   plot, oriented(distribution))
        )  # fmt: skip
    return Section("sceptic-narrow", "What of a narrower space?", parts)
