"""Several studies side by side: data sets, machines, before and after."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy import stats

from analysis import statistics
from analysis.answer import answer
from analysis.arms import interval, signed
from analysis.budget import judged_k, why_none
from analysis.html import Front
from analysis.page import NONE, Figure, Part, Section, Table, number
from analysis.sceptic import narrowed
from analysis.statistics import Estimate
from analysis.style import layout, style
from analysis.tables import Study
from analysis.verdict import ALPHA, compared

MOST_LISTED = 30


def compose(studies: Sequence[Study]) -> tuple[Front, list[Section]]:
    """Return the report on several studies: how it opens, and its sections."""
    named = names(studies)
    found = [make(named) for make in SECTIONS]
    front = Front(
        name=f"{len(studies)} studies side by side",
        question="; ".join(dict.fromkeys(s.settings.get("question") or "" for s in studies)),
        answer=_answer(named),
    )
    return front, [section for section in found if section is not None]


def names(studies: Sequence[Study]) -> dict[str, Study]:
    """Return name -> study: its folder, with as much of the path as makes names differ."""
    paths = [study.folder for study in studies]
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths) and depth < 20:
        depth += 1
    return {
        "/".join(path.parts[-depth:]): study for path, study in zip(paths, studies, strict=True)
    }


def common_arms(studies: Mapping[str, Study]) -> list[str]:
    """Return the arms that every study has and has results of, in the first one's order."""
    first, *others = studies.values()
    return [
        arm
        for arm in first.contenders
        if all(arm in other.contenders for other in others)
        and all(len(study.unit_scores(arm)) for study in studies.values())
    ]


def dataset(study: Study) -> str:
    """Return the data set of a study, all of them if its arms differ."""
    found = {
        json.dumps(arm.get("dataset"), sort_keys=True) for arm in study.settings["arms"].values()
    }
    return ", ".join(sorted(_dataset_name(json.loads(text)) for text in found))


def _dataset_name(said: Any) -> str:
    if not isinstance(said, Mapping):
        return str(said or NONE)
    options = ", ".join(f"{k} {v}" for k, v in said.items() if k != "name")
    return str(said.get("name", NONE)) + (f" ({options})" if options else "")


def _answer(studies: Mapping[str, Study]) -> list[str]:
    told = []
    ratios = ratio_rows(studies)
    if len(ratios):
        reference, n = ratios["reference"].iloc[0], len(studies)
        aggregate = aggregate_rows(ratios)
        spans = zip(*(aggregate[c] for c in ("arm", "ratio", "low", "high")), strict=True)
        parts = [f"{arm} {_ratio(*span)}" for arm, *span in spans]
        told.append(
            f"Over {n} studies the median score as a multiple of {reference}'s (geometric mean; "
            f"below 1 is better): {'; '.join(parts)}. An interval over {n} studies says how such "
            f"studies vary; no test is made over so few."
        )
    for first, second in itertools.combinations(studies, 2):
        pairs = repeated(studies[first], studies[second])
        if len(pairs):
            told.append(_repeated_sentence(first, second, pairs))
    if not told:
        told.append("These studies share no arm with results and no trial: nothing compares.")
    return told


def overview(studies: Mapping[str, Study]) -> Section:
    """Return what the studies are and what each of them says."""
    rows = []
    for name, study in studies.items():
        outcomes = study.outcomes
        rows.append(
            {
                "study": name,
                "data set": dataset(study),
                "arms": ", ".join(study.arms),
                "trials": len(study.results.trials),
                "outcomes": len(outcomes),
                "failed": int(np.isinf(outcomes["score"]).sum()),
                "score": study.primary,
                "sampler": study.sampler,
            }
        )
    table = Table("studies", "The studies", "", pd.DataFrame(rows))
    said = [
        Section(f"study-{i}", name, answer(study))
        for i, (name, study) in enumerate(studies.items())
    ]
    return Section("studies", "The studies", [table, *said])


RATIO_COLUMNS = ["study", "data_set", "arm", "reference", "k", "ratio", "low", "high", "n",
                 "paired_ratio", "p_holm"]  # fmt: skip


def ratio_rows(studies: Mapping[str, Study]) -> pd.DataFrame:
    """Return, by study and common arm, the ratio of its median best of k to the reference arm's.

    The reference is the first common arm, k the largest budget that all studies are judged at or
    can be. P-values compare the arm with the reference within the study, adjusted by Holm over its
    arms. Empty where scores are not ratios: not above 0, or higher is better.
    """
    arms = common_arms(studies)
    comparable = all(study.sign == 1 and not study.adaptive for study in studies.values())
    if len(arms) < 2 or not comparable:
        return pd.DataFrame(columns=RATIO_COLUMNS)
    reference, *others = arms
    rows = []
    for name, study in studies.items():
        k = 1 if why_none(study) else judged_k(study)
        scores = {arm: study.unit_scores(arm) for arm in arms}
        if any((s <= 0).any() for s in scores.values()):
            continue
        k = min(k, *(len(s) for s in scores.values()))
        tests = [compared(study, arm, reference) for arm in others]
        adjusted = statistics.holm([test.p if test else 1.0 for test in tests])
        for arm, test, p in zip(others, tests, adjusted, strict=True):
            ratio = statistics.ratio_of_best_of_k(scores[arm], scores[reference], k)
            known = study.independent
            rows.append(
                (name, dataset(study), arm, reference, k, ratio.value,
                 _end(ratio.low, known), _end(ratio.high, known), ratio.n,
                 _paired_ratio(study, scores[arm], scores[reference]),
                 p if test else math.nan)
            )  # fmt: skip
    return pd.DataFrame(rows, columns=RATIO_COLUMNS)


def _ratio(value: float, low: float, high: float) -> str:
    """Return a ratio with its interval; an end that is NaN does not exist."""
    known = not math.isnan(low) and not math.isnan(high)
    return interval(Estimate(value, low if known else None, high if known else None, 0))


def _end(value: float | None, known: bool) -> float:
    return math.nan if value is None or not known else value


def _paired_ratio(study: Study, first: pd.Series[float], second: pd.Series[float]) -> float:
    common = first.index.intersection(second.index)
    if not study.paired or not len(common):
        return math.nan
    return statistics.paired_ratio(first[common], second[common]).value


def aggregate_rows(ratios: pd.DataFrame) -> pd.DataFrame:
    """Return, by arm, the geometric mean of its ratios over studies, with its interval."""
    rows = []
    for arm, mine in ratios.groupby("arm", sort=False):
        known = mine["ratio"].dropna()
        if len(known):
            with np.errstate(divide="ignore"):
                over = statistics.across_datasets(np.log(known))
            ends = (_end(over.ratio.low, True), _end(over.ratio.high, True))
            rows.append((arm, over.ratio.value, *ends, over.ratio.n, over.warning or ""))
    return pd.DataFrame(rows, columns=["arm", "ratio", "low", "high", "studies", "warning"])


def across(studies: Mapping[str, Study]) -> Section | None:
    """Return the common arms, study by study and over studies."""
    title = "The same arms in every study"
    arms = common_arms(studies)
    if not arms:
        return Section("across", title, ["The studies have no arm in common that has results."])
    parts: list[Part] = [_medians(studies, arms)]
    ratios = ratio_rows(studies)
    if len(ratios):
        aggregate = aggregate_rows(ratios)
        reference = ratios["reference"].iloc[0]
        warning = "; ".join(dict.fromkeys(filter(None, aggregate["warning"])))
        reading = (
            f"Median best of k of each arm as a multiple of {reference}'s in the same study "
            f"(below 1: better), with its conservative interval. Diamonds: geometric mean over "
            f"studies, with Student's interval over them: raw scores of data sets are never "
            f"averaged.{f' Careful: {warning}.' if warning else ''}"
        )
        parts.append(
            Figure("ratios", f"Against {reference}", reading,
                   ratio_figure(ratios, aggregate), ratios)
        )  # fmt: skip
        parts.append(_ratio_table(ratios))
    else:
        parts.append(
            "No ratios: they need two common arms, scores above 0 of which lower are better, and "
            "trials that did not compete."
        )
    return Section("across", title, parts)


def _medians(studies: Mapping[str, Study], arms: Sequence[str]) -> Table:
    data, shown = [], []
    for name, study in studies.items():
        medians = [statistics.median_best_of_k(study.unit_scores(arm), 1) for arm in arms]
        ranks = stats.rankdata([m.value for m in medians], "min").astype(int)
        for arm, median, rank in zip(arms, medians, ranks, strict=True):
            told = signed(median, study.sign)
            if not study.independent:
                told = told._replace(low=None, high=None)
            failed = int(np.isinf(study.unit_scores(arm)).sum())
            data.append((name, dataset(study), study.primary, arm, *told, failed, rank))
            shown.append((name, study.primary, arm, interval(told), told.n, failed, rank))
    columns = ["study", "data_set", "score", "arm", "median", "low", "high", "n", "failed", "rank"]
    heads = ["study", "score", "arm", "median", "n", "failed", "rank"]
    reading = (
        "Median over configurations (or seeds) with its exact interval, and the arm's rank within "
        "its study. Scores of different data sets, networks or n are different quantities: only "
        "ranks and ratios compare."
    )
    return Table("medians", "Medians", reading, pd.DataFrame(data, columns=columns),
                 pd.DataFrame(shown, columns=heads))  # fmt: skip


def _ratio_table(ratios: pd.DataFrame) -> Table:
    shown = pd.DataFrame(
        {
            "study": ratios["study"],
            "arm": ratios["arm"],
            "k": ratios["k"],
            "best of k": [
                _ratio(*span)
                for span in zip(ratios["ratio"], ratios["low"], ratios["high"], strict=True)
            ],
            "paired, median": ratios["paired_ratio"].map(number),
            "p (Holm over arms)": ratios["p_holm"].map(lambda p: NONE if p != p else f"{p:.2g}"),
        }
    )
    reading = (
        f"Each study's own test of the arm against {ratios['reference'].iloc[0]}, adjusted over "
        f"the arms of that study."
    )
    return Table("ratios", "Study by study", reading, ratios, shown)


def ratio_figure(ratios: pd.DataFrame, aggregate: pd.DataFrame) -> go.Figure:
    """Draw one row an arm: a mark a study with its interval, and the aggregate."""
    arms = list(dict.fromkeys(ratios["arm"]))
    figure = go.Figure()
    studies = list(dict.fromkeys(ratios["study"]))
    for index, name in enumerate(studies):
        mine = ratios[ratios["study"] == name]
        offset = 0.3 * ((index + 0.5) / len(studies) - 0.5) * -2
        _add_ratios(figure, mine, arms, offset, f"{name} (k = {mine['k'].iloc[0]})", style(index))
    _add_ratios(figure, aggregate, arms, -0.4, "over studies", None)
    figure.add_vline(x=1, line={"color": "#666", "dash": "dot"})
    figure.update_layout(
        **layout(height=140 + 90 * len(arms)),
        xaxis={"title": "ratio to the reference", "type": "log"},
        yaxis={"tickvals": list(range(len(arms))), "ticktext": arms, "automargin": True,
               "range": [-0.6, len(arms) - 0.4]},
    )  # fmt: skip
    return figure


def _add_ratios(
    figure: go.Figure, rows: pd.DataFrame, arms: Sequence[str], offset: float, name: str, look: Any
) -> None:
    rows = rows[np.isfinite(rows["ratio"]) & (rows["ratio"] > 0)]
    x = rows["ratio"].to_numpy()
    ends = rows[["low", "high"]].to_numpy()
    # An end at 0 or infinity leaves the picture on that side.
    low = np.where(np.isnan(ends[:, 0]), x, np.maximum(ends[:, 0], x / 1000))
    high = np.where(np.isnan(ends[:, 1]), x, np.minimum(ends[:, 1], x * 1000))
    color = look.color if look else "#000"
    figure.add_scatter(
        x=x, y=[arms.index(arm) + offset for arm in rows["arm"]], mode="markers", name=name,
        marker={"color": color, "symbol": look.symbol if look else "diamond", "size": 10},
        error_x={"type": "data", "symmetric": False, "array": high - x, "arrayminus": x - low,
                 "color": color},
        hovertemplate=f"{name}: %{{x:.3g}}<extra></extra>",
    )  # fmt: skip


def repeated(first: Study, second: Study) -> pd.DataFrame:
    """Return the trials that two studies of one data set and score share, with both scores.

    The same trial: the same arm, config, seed and swept values.
    """
    columns = ["trial_id", "arm", "first", "second", "status_first", "status_second"]
    if dataset(first) != dataset(second) or first.primary != second.primary:
        return pd.DataFrame(columns=columns)
    swept = sorted(
        set(map(str, first.outcomes)) & {c for c in map(str, second.outcomes) if c[:6] == "param."}
    )
    key = ["arm", "config_id", "seed", *swept]
    both = first.outcomes[[*key, "trial_id", "score", "status"]].merge(
        second.outcomes[[*key, "score", "status"]], on=key, suffixes=("_first", "_second")
    )
    renamed = both.rename(columns={"score_first": "first", "score_second": "second"})
    return renamed[columns]


def _repeated_sentence(first: str, second: str, pairs: pd.DataFrame) -> str:
    equal = int((pairs["first"] == pairs["second"]).sum())
    wins, losses, p = statistics.sign_test(pairs["second"], pairs["first"])
    n = len(pairs)
    if equal == n:
        return (
            f"{first} and {second} share n = {n} trials, whose scores are equal to the last bit."
        )
    told = f"{first} and {second} share n = {n} trials, {equal} of them with equal scores"
    better = second if wins > losses else first
    if p >= ALPHA:
        return f"{told}; neither is better in more of them than chance would give (p = {p:.2g})."
    return f"{told}; {better} is better in {max(wins, losses)} of {wins + losses} (p = {p:.2g})."


def changes(studies: Mapping[str, Study]) -> Section | None:
    """Return trials that several studies ran: what changed between them."""
    parts: list[Part] = []
    for index, (first, second) in enumerate(itertools.combinations(studies, 2)):
        pairs = repeated(studies[first], studies[second])
        if len(pairs):
            parts.append(_change(index, first, second, studies, pairs))
    return Section("changes", "The same trials, run again", parts) if parts else None


def _change(
    index: int, first: str, second: str, studies: Mapping[str, Study], pairs: pd.DataFrame
) -> Section:
    said = [_repeated_sentence(first, second, pairs)]
    usable = pairs[["first", "second"]].to_numpy()
    if (usable > 0).all() and studies[first].sign == 1:
        ratio = statistics.paired_ratio(pairs["second"], pairs["first"])
        said.append(f"Median of {second} / {first}: {interval(ratio)} (n = {ratio.n}).")
    moved = pairs[pairs["status_first"] != pairs["status_second"]]
    if len(moved):
        some = ", ".join(
            f"{row.trial_id} ({row.status_first} to {row.status_second})"
            for row in moved.head(MOST_LISTED).itertuples()
        )
        more = f" and {len(moved) - MOST_LISTED} more" if len(moved) > MOST_LISTED else ""
        said.append(f"{len(moved)} ended otherwise: {some}{more}.")
    else:
        said.append("All ended the same way.")
    sign = studies[first].sign
    shown = pairs[np.isfinite(pairs["first"]) & np.isfinite(pairs["second"])]
    plot = go.Figure()
    for at, (arm, mine) in enumerate(shown.groupby("arm", sort=False)):
        look = style(at)
        plot.add_scatter(
            x=sign * mine["first"], y=sign * mine["second"], mode="markers", name=str(arm),
            marker={"color": look.color, "symbol": look.symbol, "size": 8},
            hovertext=mine["trial_id"], hoverinfo="text+x+y",
        )  # fmt: skip
    ends = sign * np.array(
        [shown[["first", "second"]].min().min(), shown[["first", "second"]].max().max()]
    )
    plot.add_scatter(x=ends, y=ends, mode="lines", showlegend=False, hoverinfo="skip",
                     line={"color": "#666", "dash": "dot"})  # fmt: skip
    kind = "log" if len(shown) and (ends > 0).all() else "linear"
    plot.update_layout(**layout(), xaxis={"title": first, "type": kind},
                       yaxis={"title": second, "type": kind})  # fmt: skip
    reading = (
        f"One mark a trial that has a score in both (n = {len(shown)}; {len(pairs) - len(shown)} "
        f"failed in one or both); dotted: equal."
    )
    figure = Figure(f"changes-{index}", f"{first} and {second}", reading, plot, pairs)
    return Section(f"change-{index}", f"{first} and {second}", [*said, figure])


def narrow(studies: Mapping[str, Study]) -> Section | None:
    """Re-read the trials of a wide study that lie in the space of a narrower one."""
    parts: list[Part] = []
    for wide, inner in itertools.permutations(studies, 2):
        arms = common_arms({wide: studies[wide], inner: studies[inner]})
        spaces = {arm: studies[inner].settings["arms"][arm].get("space") or {} for arm in arms}
        outer = {arm: studies[wide].settings["arms"][arm].get("space") or {} for arm in arms}
        if not arms or spaces == outer or not all(_inside(spaces[a], outer[a]) for a in arms):
            continue
        parts.append(_narrow_table(wide, inner, studies, arms, spaces))
    return Section("narrow", "The narrow space, out of the wide trials", parts) if parts else None


def _inside(inner: Mapping[str, Any], outer: Mapping[str, Any]) -> bool:
    """Whether every key of the outer space is drawn in the inner one within the outer's range."""
    return bool(outer) and all(
        key in inner and _within(inner[key], outer[key]) for key in outer
    )  # fmt: skip


def _within(inner: Any, outer: Any) -> bool:
    (kind, few), (other, many) = (next(iter(d.items())) for d in (inner, outer))
    if kind == "choice" or other == "choice":
        return kind == other and set(map(str, few)) <= set(map(str, many))
    return bool(min(many[:2]) <= min(few[:2]) and max(few[:2]) <= max(many[:2]))


def _narrow_table(
    wide: str,
    inner: str,
    studies: Mapping[str, Study],
    arms: Sequence[str],
    spaces: Mapping[str, Any],
) -> Table:
    settings = studies[wide].settings
    said = {arm: settings["arms"][arm] | {"narrow": spaces[arm]} for arm in arms}
    read = narrowed(replace(studies[wide], settings=settings | {"arms": settings["arms"] | said}))
    assert read is not None
    rows = []
    for arm in arms:
        for name, study in ((f"{wide}, all", studies[wide]), (f"{wide}, within", read),
                            (inner, studies[inner])):  # fmt: skip
            scores = study.unit_scores(arm)
            median = Estimate(math.nan, None, None, 0)
            if len(scores):
                median = signed(statistics.median_best_of_k(scores, 1), study.sign)
            rows.append((arm, name, len(scores), int(np.isinf(scores).sum()), interval(median)))
    reading = (
        f"The trials of {wide} whose values lie within the ranges of {inner}, beside the trials "
        f"that {inner} drew: what the second study cost could have been read out of the first, as "
        f"far as n allows."
    )
    frame = pd.DataFrame(rows, columns=["arm", "trials", "n", "failed", "median"])
    return Table(f"narrow-{inner}", f"{inner} within {wide}", reading, frame)


def made(studies: Mapping[str, Study]) -> Section:
    """Return how the studies were made, and in what they differ."""
    keys = ("commit", "code_hash", "ganstudy", "python", "packages", "processor", "cores",
            "platform", "node", "command")  # fmt: skip
    columns = {
        name: [_provenance(study.provenance.get(key)) for key in keys]
        for name, study in studies.items()
    }
    frame = pd.DataFrame({"": keys} | columns)
    differs = [len(set(values)) > 1 for values in zip(*columns.values(), strict=True)]
    frame["differs"] = ["yes" if d else "" for d in differs]
    return Section("made", "How they were made", [Table("made", "How they were made", "", frame)])


def _provenance(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return NONE if value is None else str(value)


SECTIONS = (overview, across, changes, narrow, made)
