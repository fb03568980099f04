"""A study's folder -> one HTML page that needs no network, and the table of its arms."""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from analysis import figures, reported, sanity, savings, statistics
from analysis.statistics import Estimate
from analysis.style import common_extent
from analysis.tables import DEFAULT_CONFIG, FAILURES, Study
from analysis.verdict import comparisons, verdict
from ganstudy.records import TrialStatus
from ganstudy.storage import is_remote, write_text

NONE = "–"


class Summary(NamedTuple):
    """The table of arms as text, and the sentence that opens the report."""

    columns: list[str]
    rows: list[list[str]]
    verdict: str
    score: str
    """Stored name of the score that median and best are of."""


class PlacedFigure(NamedTuple):
    """A figure's HTML with the sentence on how to read it."""

    html: str
    title: str
    caption: str


def number(value: float | None) -> str:
    """Return four digits, `failed` for +inf, a dash for nothing."""
    if value is None or math.isnan(value):
        return NONE
    return "failed" if math.isinf(value) else f"{value:.4g}"


def interval(estimate: Estimate, share: bool = False) -> str:
    """Return `value [low, high]`, or `value [none]` where no 95 % interval exists."""
    show = (lambda v: f"{v:.0%}") if share else number
    if math.isnan(estimate.value):
        return NONE
    if estimate.low is None or estimate.high is None:
        return f"{show(estimate.value)} [none]"
    return f"{show(estimate.value)} [{show(estimate.low)}, {show(estimate.high)}]"


def summarize(folder: Path) -> Summary:
    """Return the table of arms: n, failures, events, scores, with intervals where they exist."""
    return summarize_study(Study.load(folder))


def summarize_study(study: Study) -> Summary:
    """Return the table of arms of a loaded study."""
    rescored = study.results.reported
    others = sorted(set(rescored["name"]) - set(study.protocol))
    units = "seeds" if study.unit == "seed" else "configs"
    columns = ["arm", units, "failed", "collapsed", "median", "best", "on report", *others]
    rows = []
    for arm in study.arms:
        trials, scores = study.counted(arm), study.unit_scores(arm)
        median = Estimate(math.nan, None, None, 0)
        if len(scores):
            median = _signed(statistics.median_best_of_k(scores, 1), study.sign)
        best = study.sign * scores.min() if len(scores) else math.nan
        told = {row["name"]: row for _, row in rescored[rescored["arm"] == arm].iterrows()}
        rows.append(
            [
                arm,
                str(len(scores)) + _ours(study, arm),
                _share(int(trials["status"].isin(list(FAILURES)).sum()), len(trials)),
                _share(_with_event(study, trials, "mode_collapse"), len(trials)),
                interval(median),
                number(best),
                *(_with_error(told.get(name)) for name in (study.primary, *others)),
            ]
        )
    return Summary(columns, rows, verdict(study), study.primary)


def _signed(estimate: Estimate, sign: int) -> Estimate:
    if sign == 1:
        return estimate
    low, high = estimate.low, estimate.high
    return Estimate(
        -estimate.value, None if high is None else -high, None if low is None else -low, estimate.n
    )


def _ours(study: Study, arm: str) -> str:
    """Return how many trials are missing through no doing of the arm."""
    trials = study.results.trials[study.results.trials["arm"] == arm]
    failed = int((trials["status"] == TrialStatus.FAILED).sum())
    pruned = int(study.pruned(trials).sum())
    open_ = len(trials) - failed - pruned - len(study.trials(arm))
    notes = [f"{failed} lost to errors"] * (failed > 0) + [f"{open_} not finished"] * (open_ > 0)
    notes += [f"{pruned} stopped by {study.rule or 'the time limit'}"] * (pruned > 0)
    return f" ({', '.join(notes)})" if notes else ""


def _with_event(study: Study, trials: Any, kind: str) -> int:
    events = study.results.events
    hit = set(events.loc[events["kind"] == kind, "trial_id"])
    return len(hit & set(trials["trial_id"]))


def _share(count: int, n: int) -> str:
    if n == 0:
        return NONE
    estimate = statistics.rate(count, n)
    return f"{count} of {n} [{estimate.low:.0%}, {estimate.high:.0%}]"


def _with_error(row: Any) -> str:
    return NONE if row is None else with_error(row["value"], row["standard_error"])


def with_error(value: float, standard_error: float) -> str:
    """Return `value ± one standard error`, or the value alone where it has none."""
    if math.isnan(standard_error):
        return number(value)
    return f"{number(value)} ± {standard_error:.2g}"


def write_report(folder: Path, target: Path) -> None:
    """Write the report of the study in `folder` to `target`, all of it or nothing.

    Raises:
        FileNotFoundError: If `folder` is no study's folder.
        OSError: If `target` cannot be written.
    """
    page = render(Study.load(folder))
    if not is_remote(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, page)


def render(study: Study) -> str:
    """Return the page. The same tables give the same page, byte for byte."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template("report.html.j2")
    return template.render(
        study=study.settings,
        name=study.folder.name,
        summary=summarize_study(study),
        primary=study.primary,
        lower=study.sign == 1,
        floor=number(study.floor),
        main_figures=_main_figures(study),
        curves=_training_figures(study),
        savings=_savings(study),
        galleries=_galleries(study),
        scores=_score_rows(study),
        score_curves=_curve_figures(study),
        comparisons=comparisons(study),
        trials=_trial_rows(study),
        events=_event_rows(study),
        trust=_trust(study),
        protocol=_protocol_rows(study),
        inception=any(name.startswith(("fid_", "kid_")) for name in study.protocol),
        arms=study.arms,
        notes=study.notes,
        unit=study.unit,
        judged=set(study.results.reported["name"]) - set(study.protocol),
        parameters=_parameter_rows(study),
        provenance=study.provenance,
        settings=json.dumps(study.settings, indent=1, sort_keys=False),
        plotlyjs=get_plotlyjs(),
    )


def _html(figure: go.Figure, name: str) -> str:
    return plotly.io.to_html(
        figure,
        include_plotlyjs=False,
        full_html=False,
        div_id=f"figure-{name}",
        config={"displaylogo": False, "responsive": True},
    )


def _main_figures(study: Study) -> list[PlacedFigure]:
    placed = []
    distribution = figures.score_distribution_data(study)
    if distribution.dots:
        placed.append(
            PlacedFigure(
                _html(figures.score_distribution_figure(distribution), "scores"),
                "Scores of all trials",
                "One mark a trial: the best checkpoint's score on the select split"
                f"{' (lower is better)' if study.sign == 1 else ''}. Crosses in the grey lane "
                "failed and have no score. A ringed mark had an event; hover for parameters.",
            )
        )
    curves = figures.budget_curve_data(study)
    if curves:
        caption = (
            "How good the best of k tried configurations is, by its exact median; failures count "
            "as infinitely bad, so a line is missing where half of all choices of k fail. Thin "
            "dots: trials that an event stopped count by their best checkpoint instead. "
        )
        shaded = any(curve.largest_k for curve in curves)
        caption += (
            "Shaded: exact 95 % intervals; pale: k at which no two-sided interval exists."
            if shaded
            else "Pale throughout: with so few configurations no k has a two-sided 95 % interval."
        )
        placed.append(
            PlacedFigure(
                _html(figures.budget_curve_figure(curves, study.primary), "budget"),
                "What a tuning budget buys",
                caption,
            )
        )
    return placed


def _training_figures(study: Study) -> list[PlacedFigure]:
    """Return one small figure per arm, all on one scale."""
    per_arm = {arm: figures.training_curves_data(study, arm) for arm in study.arms}
    values = [
        score
        for curve in itertools.chain.from_iterable(per_arm.values())
        for score in curve.scores
        if math.isfinite(score)
    ]
    extent = common_extent(values)
    placed = []
    for index, (arm, curves) in enumerate(per_arm.items()):
        if curves:
            figure = figures.training_curves_figure(curves, index, study.primary, extent)
            placed.append(PlacedFigure(_html(figure, f"training-{arm}"), arm, ""))
    return placed


def _savings(study: Study) -> dict[str, Any] | None:
    """Return the section on what stopping early would have saved, its figure as HTML."""
    data = savings.savings_data(study)
    if data is None:
        return None
    columns = ["rule", "stopped", "of them lost", "of them wrongly", "saved", "of all seconds",
               "of the savable", "best worse", "best discarded", "tau of the ranking"]  # fmt: skip
    rows = [
        [
            saving.rule,
            f"{saving.stopped} of {data.n}",
            str(saving.lost),
            str(saving.wrongly),
            savings.duration(saving.seconds),
            interval(saving.share, share=True),
            interval(saving.share_of_savable, share=True),
            ", ".join(_worse(data, saving, arm) for arm in saving.worse) or "none",
            ", ".join(saving.discarded) or "none",
            _tau(saving),
        ]
        for saving in data.rules
    ]
    figure = _html(savings.savings_figure(data), "savings")
    return {"columns": columns, "rows": rows, "figure": figure, "told": savings.told(data)}


def _worse(data: savings.Savings, saving: savings.Saving, arm: str) -> str:
    return f"{arm} ({number(data.best[arm])} to {number(saving.best[arm])})"


def _tau(saving: savings.Saving) -> str:
    if math.isnan(saving.tau):
        return NONE
    return f"{saving.tau:.2f}" + ("" if saving.same_ranking else " (changed)")


def _galleries(study: Study) -> list[dict[str, Any]]:
    """Return, per arm, the picked samples as data URIs."""
    galleries = []
    for arm in study.arms:
        shown = []
        for pick in figures.sample_picks(study, arm):
            path = study.folder / pick.image
            if path.exists():
                data = base64.b64encode(path.read_bytes()).decode()
                shown.append({"pick": pick, "uri": f"data:image/png;base64,{data}"})
        galleries.append({"arm": arm, "shown": shown})
    return galleries


def _trust(study: Study) -> dict[str, Any] | None:
    """Return the section on whether scores can be trusted, its figures as HTML."""
    found = sanity.section(study)
    if found is None:
        return None
    groups = [
        group._asdict()
        | {"placed": [PlacedFigure(_html(p.figure, p.key), p.title, "") for p in group.figures]}
        for group in found.groups
    ]
    return {"columns": found.columns, "rows": found.rows, "groups": groups}


def _trial_rows(study: Study) -> list[dict[str, Any]]:
    """Return one row a trial for the table of all trials."""
    events = study.results.events
    rows = []
    for _, row in study.results.trials.iterrows():
        mine = events[events["trial_id"] == row["trial_id"]]
        marks = [f"{k} at {o}" for k, o in zip(mine["kind"], mine["onset"], strict=True)]
        rows.append(
            {
                "trial": row["trial_id"],
                "status": row["status"] + (f": {row['reason']}" if row["reason"] else ""),
                "best": number(row.get(f"best.{study.primary}", math.nan)),
                "last": number(row.get(f"last.{study.primary}", math.nan)),
                "updates": int(row["discriminator_updates"]),
                "seconds": f"{row['seconds']:.0f}",
                "events": ", ".join(marks),
                "parameters": figures.parameters(row.to_dict()).replace("<br>", ", "),
            }
        )
    return rows


def _event_rows(study: Study) -> list[dict[str, str]]:
    rows = []
    for _, event in study.results.events.iterrows():
        evidence = json.loads(event["evidence"])
        told = ", ".join(
            f"{k} {v:.4g}" if isinstance(v, int | float) else f"{k} {v}"
            for k, v in evidence.items()
        )
        ended = NONE if math.isnan(event["ended"]) else str(int(event["ended"]))
        rows.append(
            {
                "trial": event["trial_id"],
                "kind": event["kind"],
                "onset": str(event["onset"]),
                "detected": str(event["detected"]),
                "ended": ended,
                "severity": f"{event['severity']:.2f}",
                "evidence": told,
            }
        )
    return rows


def _reads(how: Mapping[str, Any]) -> str:
    """Return what a score was computed from, in words."""
    facts = how["features_facts"]
    shares = {k.removeprefix("accuracy_"): v for k, v in facts.items() if "accuracy_" in k}
    accuracy = ", ".join(f"{split} {share:.1%}" for split, share in shares.items())
    others = "".join(f"; {k}: {v}" for k, v in facts.items() if "accuracy_" not in k)
    network = how["features"]["name"]
    said = {
        "images": "the images themselves",
        "drawn": "the images themselves, and the generator where its latents are searched",
        "modes": f"the nearest of {how['dimension']} modes, told by {network}",
    }.get(how.get("reads", "features"))
    if said is None:
        said = f"{network}, {how['dimension']} features, weights {how['features_hash']}"
    if "n_training" in how:
        said += f", against {how['n_training']} training images in {how['cells']} cells"
    resized = how.get("resize", NONE)
    if resized not in ("none", NONE):
        said += f", images resized: {resized}"
    return said + (f" (accuracy: {accuracy})" if accuracy else "") + others


def _protocol_rows(study: Study) -> list[dict[str, str]]:
    """Return one row per score: those of trials, then those that judged only on report."""
    judged = {n: how for n, how in study.reported_protocol.items() if n not in study.protocol}
    rows = []
    for name, how in {**study.protocol, **judged}.items():
        rows.append(
            {
                "name": name,
                "features": _reads(how) + ("; chose nothing" if name in judged else ""),
                "n": f"{how['n_generated']} generated, {how['n_real']} real ({how['split']})",
                "noise": str(how.get("noise_seed", NONE)),
                "floor": number(how["floor"]) + _smaller_floor(how),
                "better": reported.what_is_better(how),
            }
        )
    return rows


def _smaller_floor(how: Mapping[str, Any]) -> str:
    """Return the n of a floor where the splits hold fewer images than are generated."""
    n = how.get("n_floor", how["n_generated"])
    return f" (n = {n})" if n < how["n_generated"] else ""


def _score_rows(study: Study) -> list[dict[str, Any]]:
    """Return one row per score of the arms' best generators, its floor beside it."""
    return [
        {
            "name": row.name,
            "better": row.better or NONE,
            "n": row.n,
            "cells": [
                with_error(*row.values.get(arm, (math.nan, math.nan))) for arm in study.arms
            ],
            "floor": number(row.floor),
        }
        for row in reported.score_rows(study)
    ]


def _curve_figures(study: Study) -> list[PlacedFigure]:
    """Return one figure per pair of axes that the scores' curves have."""
    return [
        PlacedFigure(
            _html(reported.curves_figure(group, study.arms), f"curve-{index}"),
            f"{group.y_name} by {group.x_name}",
            f"Each arm's best generator on the report split; goes with {', '.join(group.names)}.",
        )
        for index, group in enumerate(reported.curves_data(study))
    ]


def _parameter_rows(study: Study) -> list[dict[str, str]]:
    """Return one row per arm and swept parameter: its range and the value of the best trial."""
    rows = []
    for arm in study.arms:
        trials = study.trials(arm)
        trials = trials[trials["config_id"] != DEFAULT_CONFIG]
        ranked = trials[trials["score"] < math.inf].sort_values("score")
        for key, drawn in study.settings["arms"][arm]["space"].items():
            best = ranked.iloc[0].get(f"param.{key}") if len(ranked) else None
            shown = f"{best:.3g}" if isinstance(best, float) else str(best)
            rows.append(
                {
                    "arm": arm,
                    "key": key,
                    "range": json.dumps(drawn),
                    "best": NONE if best is None else shown,
                }
            )
    return rows
