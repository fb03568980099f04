"""Trials that several studies ran, and wide trials read as those of a narrower study."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import statistics
from analysis.arms import honest, independent_runs, interval, signed
from analysis.comparisons import ratio_scale
from analysis.page import Figure, Part, Section, Table
from analysis.sceptic import narrowed
from analysis.several.shared import common_arms, dataset, differing
from analysis.statistics import Estimate
from analysis.style import layout, style
from analysis.tables import Study
from analysis.verdict import ALPHA

MOST_LISTED = 30


def repeated(first: Study, second: Study) -> pd.DataFrame:
    """Return the trials that two studies of one data set and score share, with both scores.

    The same trial: the same arm, config, seed and swept values.
    """
    columns = ["trial_id", "arm", "first", "second", "status_first", "status_second"]
    asked = [(dataset(study), study.primary, study.sign) for study in (first, second)]
    if asked[0] != asked[1]:
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


def repeated_sentence(first: str, second: str, pairs: pd.DataFrame) -> str:
    """Return in words whether two studies agree on the trials that they share."""
    equal = int((pairs["first"] == pairs["second"]).sum())
    wins, losses, p = statistics.sign_test(pairs["second"], pairs["first"])
    n = len(pairs)
    if equal == n:
        return (
            f"{first} and {second} share n = {n} trials, whose scores are equal to the last bit."
        )
    told = f"{first} and {second} share n = {n} trials, {equal} of them with equal scores"
    better = second if wins > losses else first
    if statistics.smallest_sign_p(wins + losses) >= ALPHA:
        return f"{told}; the others are too few to tell which is better."
    if p >= ALPHA:
        return f"{told}; neither is better in more of them than chance would give (p = {p:.2g})."
    return f"{told}; {better} is better in {max(wins, losses)} of {wins + losses} (p = {p:.2g})."


def _settings_sentence(first: str, second: str, studies: Mapping[str, Study]) -> str:
    """Return whether the trials that two studies share were trained alike."""
    found = differing({name: studies[name] for name in (first, second)})
    trained = [path for path in found if path.startswith("arms.") and ".space." not in path]
    if not trained:
        return "They were trained under the same settings."
    some = ", ".join(f"{path} ({' to '.join(found[path])})" for path in trained[:MOST_LISTED])
    return f"They were not the same trainings: there differ {some}."


def changes(studies: Mapping[str, Study]) -> Section | None:
    """Return trials that several studies ran: what changed between them."""
    parts: list[Part] = []
    for index, (first, second) in enumerate(itertools.combinations(studies, 2)):
        pairs = repeated(studies[first], studies[second])
        if len(pairs):
            parts.append(_change(index, first, second, studies, pairs))
    return Section("changes", "Trials that several studies share", parts) if parts else None


def _draws(study: Study, pairs: pd.DataFrame) -> bool:
    """Return whether the trials that two studies share are independent draws."""
    mine = study.outcomes[study.outcomes["trial_id"].isin(pairs["trial_id"])]
    return independent_runs(mine, study)


def _change(
    index: int, first: str, second: str, studies: Mapping[str, Study], pairs: pd.DataFrame
) -> Section:
    said = [repeated_sentence(first, second, pairs), _settings_sentence(first, second, studies)]
    scored = pairs[np.isfinite(pairs["first"]) & np.isfinite(pairs["second"])]
    before, after = (ratio_scale(scored[c], studies[first].sign) for c in ("first", "second"))
    if len(scored) and before is not None and after is not None:
        ratio = statistics.paired_ratio(after, before)
        if not _draws(studies[first], pairs):
            ratio = ratio._replace(low=None, high=None)
        said.append(
            f"Median of {second} / {first} (below 1: {second} is better) over the n = {ratio.n} "
            f"of {len(pairs)} trials that have a score in both: {interval(ratio)}."
        )
    moved = pairs[pairs["status_first"] != pairs["status_second"]]
    if len(moved):
        some = ", ".join(
            f"{row.trial_id} ({row.status_first} to {row.status_second})"
            for row in moved.head(MOST_LISTED).itertuples()
        )
        more = f" and {len(moved) - MOST_LISTED} more" if len(moved) > MOST_LISTED else ""
        said.append(f"{len(moved)} ended otherwise: {some}{more}.")
    else:
        said.append("All ended with the same status.")
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
        outer, spaces = ([_space(studies[name], arm) for arm in arms] for name in (wide, inner))
        inside = [narrower(few, many) for few, many in zip(spaces, outer, strict=True)]
        if any(space is None for space in inside) or not any(inside):
            continue
        found = {arm: space for arm, space in zip(arms, inside, strict=True) if space}
        parts.append(_narrow_table(wide, inner, studies, arms, found))
    return Section("narrow", "The narrow space, out of the wide trials", parts) if parts else None


def _space(study: Study, arm: str) -> dict[str, Any]:
    return dict(study.settings["arms"][arm].get("space") or {})


def narrower(inner: Mapping[str, Any], outer: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the ranges of `inner` that lie within those of `outer`, None where one does not.

    What one of the two does not draw, or draws in another way (one value out of a range, say), can
    be read out of no trial and is left out.
    """
    found = {}
    for key in set(inner) & set(outer):
        (kind, few), (other, many) = (_drawn(space[key]) for space in (inner, outer))
        if kind != other or few == many:
            continue
        lies = set(few) <= set(many)
        if kind != "choice":
            lies = min(many[:2]) <= min(few[:2]) and max(few[:2]) <= max(many[:2])
        if not lies:
            return None
        found[key] = inner[key]
    return found


def _drawn(said: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Return how a value is drawn, and from what; a condition (`when`) aside."""
    return next((kind, list(ends)) for kind, ends in said.items() if kind != "when")


def _narrow_table(
    wide: str,
    inner: str,
    studies: Mapping[str, Study],
    arms: Sequence[str],
    spaces: Mapping[str, Any],
) -> Table:
    settings = studies[wide].settings
    said = {arm: settings["arms"][arm] | {"narrow": spaces.get(arm, {})} for arm in arms}
    read = narrowed(replace(studies[wide], settings=settings | {"arms": settings["arms"] | said}))
    assert read is not None
    rows = []
    for arm in arms:
        for name, study in ((f"{wide}, all", studies[wide]), (f"{wide}, within", read),
                            (inner, studies[inner])):  # fmt: skip
            scores = study.unit_scores(arm)
            median = Estimate(math.nan, None, None, 0)
            if len(scores):
                median = signed(honest(statistics.median_best_of_k(scores, 1), study), study.sign)
            rows.append((arm, name, len(scores), int(np.isinf(scores).sum()), interval(median)))
    keys = ", ".join(sorted({key for space in spaces.values() for key in space}))
    reading = (
        f"The trials of {wide} whose values lie within the narrower ranges of {inner} ({keys}), "
        f"beside those "
        f"that {inner} drew: what the second study cost could have been read out of the first, as "
        f"far as n allows."
    )
    frame = pd.DataFrame(rows, columns=["arm", "trials", "n", "failed", "median"])
    return Table(f"narrow-{wide}-{inner}", f"{inner} within {wide}", reading, frame)
