"""How and when trials fail: what ends them, which events they have, and how long they last."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import odds, statistics
from analysis.arms import failure_rate, independent_runs, what_fails
from analysis.page import Figure, Part, Section, Table, number
from analysis.sensitivity.space import samples
from analysis.style import evenly, layout, style
from analysis.tables import Study
from ganstudy.records import RECOVERY, TrialStatus
from ganstudy.study.outcomes import DEFAULT_CONFIG

COLLAPSE = "mode_collapse"
ENDED, HAD = "ended", "had"
MOST_MARKS = 2000
"""Marks of a timeline, and with that of its size on the page."""
MOST_STEPS = 300
"""Steps of a survival curve that are drawn."""
RISK_COLUMNS = 5
"""Times at which numbers at risk are told."""
DEPENDENT = "for the trials are no independent draws"
RATE_COLUMNS = ["arm", "what", "kind", "count", "n", "share", "low", "high"]


def section(study: Study) -> Section | None:
    """Return how and when trials fail; None where no trial has ended."""
    counted = {arm: study.counted(arm) for arm in study.arms}
    if not any(len(trials) for trials in counted.values()):
        return None
    rates = rate_data(study, counted)
    parts: list[Part] = [_introduction(study), rate_table(rates), rate_figure(rates, study.arms)]
    parts += _survival_parts(study)
    parts.append(_odds(study))
    timeline = timeline_data(study, counted)
    parts.append(
        timeline_figure(timeline, study.arms) if len(timeline) else "No trial had events."
    )
    return Section("failing", "How and when trials fail", parts)


def _introduction(study: Study) -> str:
    told = (
        f"A trial failed if {what_fails(study)}. An event alone is no failure: trials "
        "with an event are counted beside, a trial once a kind. Intervals are of 95 %: "
        "Clopper-Pearson's below 50 trials, Wilson's from there on."
    )
    if not study.independent:
        told += " Trials of this design are no independent draws: shares have no interval."
    elif len(study.settings.get("design", {}).get("seeds") or [0]) > 1 and study.unit != "seed":
        told += (
            " Seeds of one configuration resemble each other and are no independent draws: shares "
            "of trials have no interval."
        )
    return told


def failure_events(study: Study) -> pd.DataFrame:
    """Return all events but recoveries; whether a trial failed is the comparison rule's matter."""
    events = study.results.events
    return events[events["kind"] != RECOVERY]


def rate_data(study: Study, counted: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return how often trials ended, and had events, of every kind.

    Args:
        study: Whose events are counted.
        counted: Arm -> its trials.

    Returns:
        One row an arm and kind that any arm has: `what` is `ended` (`kind` is `diverged`,
        `stopped: REASON`, `no finite score`, `judged failed: KIND lasted` or `any`) or `had` (the
        kind of an event); `count` of `n` trials, their share and its interval, NaN where the
        trials are not independent.
    """
    had = failure_events(study).drop_duplicates(["trial_id", "kind"])
    found: dict[str, dict[tuple[str, str], int]] = {}
    for arm, trials in counted.items():
        endings = _endings(study, trials)
        kinds = had.loc[had["trial_id"].isin(trials["trial_id"]), "kind"]
        found[arm] = {(ENDED, "any"): len(endings)}
        for what, values in ((ENDED, endings), (HAD, kinds)):
            found[arm] |= {(what, str(kind)): n for kind, n in values.value_counts().items()}
    ways = sorted(set().union(*found.values()), key=lambda way: (way[0], way[1] != "any", way[1]))
    rows = []
    for way, (arm, trials) in itertools.product(ways, counted.items()):
        if len(trials):
            count = found[arm].get(way, 0)
            share = failure_rate(count, trials, study)
            rows.append((arm, *way, count, len(trials), share.value, share.low, share.high))
    return pd.DataFrame(rows, columns=RATE_COLUMNS).astype({"low": float, "high": float})


def _endings(study: Study, trials: pd.DataFrame) -> pd.Series[str]:
    """Return how each failed trial ended, or what made it a failure though it went to its end."""
    failed = trials[np.isinf(trials["score"])]
    scored = np.isfinite(study.scores(failed, replace(study.score_rule, failures=())))
    events = study.results.events
    lasting = events[events["kind"].isin(study.judgement.failures) & events["ended"].isna()]
    kinds = lasting.drop_duplicates(["trial_id", "kind"]).sort_values("kind")
    lasted = failed["trial_id"].map(kinds.groupby("trial_id")["kind"].agg(", ".join))
    names = ("judged failed: " + lasted.astype(str) + " lasted").where(scored, "no finite score")
    names = names.mask(failed["status"] == TrialStatus.DIVERGED, "diverged")
    stopped = failed["status"] == TrialStatus.STOPPED
    return names.mask(stopped, "stopped: " + failed["reason"].astype(str))


def rate_table(rates: pd.DataFrame) -> Table:
    """Return the rates as a table: a row a way of failing, a column an arm."""
    told = [
        f"{count} of {n}, {share:.0%} [{'none' if math.isnan(low) else f'{low:.0%}, {high:.0%}'}]"
        for count, n, share, low, high in zip(
            *(rates[c] for c in ("count", "n", "share", "low", "high")), strict=True
        )
    ]
    names = rates["what"].map({ENDED: "failed", HAD: "event"}) + ": " + rates["kind"]
    shown = pd.DataFrame({"trials": names, "arm": rates["arm"], "told": told}).pivot_table(
        index="trials", columns="arm", values="told", aggfunc="first", sort=False
    )
    reading = "Trials that failed, by how they ended, and trials that had an event, by its kind."
    title = "How many trials fail, and how"
    return Table("failure-rates", title, reading, rates, shown.reset_index())


def rate_figure(rates: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Draw the share of every way of failing as a dot with its interval, arms beside another."""
    kinds = rates.drop_duplicates(["what", "kind"])[["what", "kind"]].to_numpy().tolist()
    rows = {(what, kind): len(kinds) - 1 - i for i, (what, kind) in enumerate(kinds)}
    names = [f"{'failed' if what == ENDED else 'event'}: {kind}" for what, kind in kinds]
    shown = [arm for arm in arms if (rates["arm"] == arm).any()]
    figure = go.Figure()
    for at, arm in enumerate(shown):
        mine, look = rates[rates["arm"] == arm], style(list(arms).index(arm))
        offset = 0.7 * ((len(shown) - 1) / 2 - at) / len(shown)
        places = zip(mine["what"], mine["kind"], strict=True)
        counts = zip(mine["count"], mine["n"], strict=True)
        figure.add_scatter(
            x=mine["share"], y=[rows[place] + offset for place in places], name=arm,
            mode="markers", marker={"color": look.color, "symbol": look.symbol, "size": 8},
            error_x={"type": "data", "symmetric": False, "thickness": 1.2, "width": 3,
                     "array": (mine["high"] - mine["share"]).fillna(0),
                     "arrayminus": (mine["share"] - mine["low"]).fillna(0)},
            hovertext=[f"{arm}: {count} of {n}" for count, n in counts], hoverinfo="text+x",
        )  # fmt: skip
    figure.update_layout(
        **layout(height=130 + len(kinds) * (24 + 10 * len(shown)), legend=TOP),
        xaxis={"title": "share of trials", "tickformat": ".0%", "range": [-0.02, 1.02]},
        yaxis={"tickvals": list(rows.values()), "ticktext": names, "automargin": True},
    )
    reading = f"Share of trials{' with its 95 % interval' if rates['low'].notna().all() else ''}."
    reading += f" n: {_counts(rates, shown)}."
    return Figure("failure-rates-drawn", "Ways of failing", reading, figure, rates)


TOP = {"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0}
"""A legend above: below, in a tall figure, plotly puts it far away."""


def _counts(rates: pd.DataFrame, arms: Sequence[str]) -> str:
    n = rates.drop_duplicates("arm").set_index("arm")["n"]
    return ", ".join(f"{arm} {n[arm]}" for arm in arms)


class Lasting(NamedTuple):
    """How long the trials of one arm lasted, in discriminator updates.

    Attributes:
        times: n updates at which it happened, or at which the trial ended without.
        observed: Whether it happened.
    """

    arm: str
    times: np.ndarray
    observed: np.ndarray


def lasting_data(study: Study, kind: str | None) -> list[Lasting]:
    """Return, by arm, when an event was first detected, right-censored where a trial ended.

    At its detection, not its onset: between the two a trial may be stopped, and then nobody knows
    of the event. Trials stopped by a rule or the clock count up to there.

    Args:
        study: Its trials at drawn configurations.
        kind: Of the event; None for the first event of any kind but a recovery, and then a
            divergence that no event tells of happens at the trial's last update.
    """
    events = failure_events(study)
    if kind is not None:
        events = events[events["kind"] == kind]
    first = events.groupby("trial_id")["detected"].min()
    data = []
    for arm in study.arms:
        trials = _followed(study, arm)
        last = trials["discriminator_updates"].to_numpy(dtype=float)
        detected = trials["trial_id"].map(first).to_numpy(dtype=float)
        observed = np.isfinite(detected)
        times = np.where(observed, np.minimum(detected, last), last)
        if kind is None:
            observed |= (trials["status"] == TrialStatus.DIVERGED).to_numpy()
        known = np.isfinite(times)
        if known.any():
            data.append(Lasting(arm, times[known], observed[known]))
    return data


def _followed(study: Study, arm: str) -> pd.DataFrame:
    """Return the counted trials of an arm, and those that a rule or the clock stopped."""
    counted = study.counted(arm)
    trials = study.results.trials
    stopped = trials[(trials["arm"] == arm) & study.pruned(trials)]
    if study.unit == "seed":
        mine = stopped["config_id"].isin(counted["config_id"])
    else:
        mine = stopped["config_id"] != DEFAULT_CONFIG
    return pd.concat([counted, stopped[mine]]).drop_duplicates("result_hash")


def _odds(study: Study) -> Part:
    if not study.independent:
        return (
            "No odds of failure by hyper-parameter: the trials of this study are no independent "
            "draws, which the fit takes them for."
        )
    return odds.part(samples(study), study.arms)


def _survival_parts(study: Study) -> list[Part]:
    parts: list[Part] = []
    sound = all(independent_runs(study.counted(arm), study) for arm in study.arms)
    for kind, key, what in (
        (COLLAPSE, "survival-collapse", "mode collapse"),
        (None, "survival-any", "the first event of any kind"),
    ):
        data = lasting_data(study, kind)
        if not any(lasting.observed.any() for lasting in data):
            parts.append(f"No trial came to {what}: there is no survival curve to draw.")
            continue
        parts.append(_survival_figure(data, study.arms, key, what, sound))
        contenders = [lasting for lasting in data if lasting.arm in study.contenders]
        parts += [
            _risk_table(data, key, what),
            _log_rank_part(contenders, key, what, sound),
        ]
    return parts


def _curve(lasting: Lasting, sound: bool) -> pd.DataFrame:
    """Return an arm's survival curve from 0 on: time, survival, low, high, at_risk.

    The ends are NaN unless it is `sound` to take the trials for independent draws.
    """
    curve = statistics.kaplan_meier(lasting.times, lasting.observed)
    begin = pd.DataFrame(
        {"time": [0.0], "survival": 1.0, "low": 1.0, "high": 1.0, "at_risk": curve.n, "events": 0}
    )
    rows = pd.DataFrame(
        {"time": curve.times, "survival": curve.survival, "low": curve.low, "high": curve.high,
         "at_risk": curve.at_risk, "events": curve.events}
    )  # fmt: skip
    whole = rows if len(rows) and rows["time"].iloc[0] == 0 else pd.concat([begin, rows])
    whole = whole if sound else whole.assign(low=math.nan, high=math.nan)
    return whole.assign(arm=lasting.arm).reset_index(drop=True)


def _survival_figure(
    data: Sequence[Lasting], arms: Sequence[str], key: str, what: str, sound: bool
) -> Figure:
    figure, curves = go.Figure(), [_curve(lasting, sound) for lasting in data]
    for lasting, curve in zip(data, curves, strict=True):
        look = style(list(arms).index(lasting.arm))
        drawn = curve.iloc[evenly(len(curve), MOST_STEPS)]
        for end, fill in (("high", None), ("low", "tonexty")) if sound else ():
            figure.add_scatter(
                x=drawn["time"], y=drawn[end], mode="lines", fill=fill, hoverinfo="skip",
                line={"shape": "hv", "width": 0, "color": look.color}, opacity=0.5,
                fillcolor=_faint(look.color), showlegend=False, legendgroup=lasting.arm,
            )  # fmt: skip
        figure.add_scatter(
            x=drawn["time"], y=drawn["survival"], mode="lines", legendgroup=lasting.arm,
            name=f"{lasting.arm} ({int(lasting.observed.sum())} of {len(lasting.times)})",
            line={"shape": "hv", "color": look.color, "dash": look.dash, "width": 2},
            hovertext=[f"{n} at risk" for n in drawn["at_risk"]], hoverinfo="text+x+y+name",
        )  # fmt: skip
    figure.update_layout(
        **layout(),
        xaxis={"title": "discriminator updates", "rangemode": "tozero"},
        yaxis={"title": "share not there yet", "tickformat": ".0%", "range": [-0.02, 1.02]},
    )
    reading = (
        f"Share of trials that have not come to {what} by then (Kaplan-Meier), "
        f"{'with a pointwise 95 % band' if sound else 'without a band, ' + DEPENDENT}. In "
        "brackets how many came to it of how many; the others count as long as they were watched: "
        "to their end, or until a rule or the clock stopped them."
    )
    if key == "survival-collapse":
        reading += " A trial that diverged counts up to there."
    else:
        reading += (
            " Counted are trials with an event (recoveries aside) or a divergence, not trials "
            "that failed: an event that passed, or of a kind that the comparison rule does not "
            "name, fails no trial."
        )
    columns = ["arm", "time", "survival", "low", "high", "at_risk", "events"]
    rows = pd.concat(curves, ignore_index=True)[columns]
    return Figure(key, f"Survival to {what}", reading, figure, rows)


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.13)"


def _risk_table(data: Sequence[Lasting], key: str, what: str) -> Table:
    last = max(float(lasting.times.max()) for lasting in data)
    times = [math.floor(last * i / (RISK_COLUMNS - 1)) for i in range(RISK_COLUMNS)]
    rows = pd.DataFrame({"arm": [lasting.arm for lasting in data]})
    for time in dict.fromkeys(times):
        rows[str(time)] = [int((lasting.times >= time).sum()) for lasting in data]
    reading = f"Trials still watched, and not yet at {what}, at these discriminator updates."
    return Table(f"{key}-at-risk", "Numbers at risk", reading, rows)


def log_rank_data(data: Sequence[Lasting]) -> pd.DataFrame:
    """Return the log-rank test of every pair of arms of which one had the event.

    Returns:
        One row a pair: `p` by permutation of the arms' labels, `p_holm` over all pairs,
        `smallest_p` that any split of the pair's trials could have, and `tested`, whether that
        could be below 0.05 after Holm's adjustment.
    """
    pairs = [
        ((a.times, a.observed), (b.times, b.observed), a.arm, b.arm)
        for a, b in itertools.combinations(data, 2)
        if a.observed.any() or b.observed.any()
    ]
    p = [statistics.log_rank(a, b) for a, b, *_ in pairs]
    smallest = [statistics.smallest_log_rank_p(a, b) for a, b, *_ in pairs]
    return pd.DataFrame(
        {
            "first": [first for *_, first, _ in pairs],
            "second": [second for *_, second in pairs],
            "p": p,
            "p_holm": statistics.holm(p),
            "smallest_p": smallest,
            "tested": np.array(statistics.can_be_significant(smallest), dtype=bool),
        }
    )


def _log_rank_part(data: Sequence[Lasting], key: str, what: str, sound: bool) -> Part:
    if len(data) < 2:
        return f"One arm alone: there is no other to compare its survival to {what} with."
    if not sound:
        return f"Arms are not tested for how long they last to {what}, {DEPENDENT}."
    rows = log_rank_data(data)
    if rows.empty:
        return f"Arms are not tested for how long they last to {what}: no trial had the event."
    if not rows["tested"].any():
        least, pairs = rows["smallest_p"].min(), len(rows)
        most = max(len(lasting.times) for lasting in data)
        adjusted = f", {min(1.0, least * pairs):.2g} after adjustment for {pairs} pairs"
        return (
            f"Arms are not tested for how long they last to {what}: of so few trials (at most "
            f"{most} an arm) and events even the most extreme split between two arms would have "
            f"p = {least:.2g}{adjusted if pairs > 1 else ''}."
        )
    tested = rows[rows["tested"]]
    shown = tested[["first", "second"]].assign(
        p=tested["p"].map(number), p_holm=tested["p_holm"].map(number)
    )
    reading = (
        "Log-rank tests that two arms last alike, two-sided, by permutation of the arms' labels "
        "(by chi-square where both arms have 100 trials and the two 50 events), adjusted by Holm "
        "for the number of pairs. Arms that share their configurations are taken as independent, "
        "which errs on the side of no difference."
    )
    if few := len(rows) - len(tested):
        reading += (
            f" {few} of {len(rows)} pairs are not shown: too few trials or events for any split "
            "of them to be significant."
        )
    title = f"Do arms differ in how long they last to {what}?"
    return Table(f"{key}-log-rank", title, reading, rows, shown)


def timeline_data(study: Study, counted: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return every event of the counted trials but recoveries.

    Columns: arm, kind, trial_id, onset, share. `share` is the onset as a share of the trial's
    budget; of the arm's longest trial where no budget is known.
    """
    events = failure_events(study)
    frames = []
    for arm, trials in counted.items():
        budget = trials.set_index("trial_id").pipe(_budgets, study, arm)
        mine = events[events["trial_id"].isin(budget.index)]
        share = mine["onset"] / mine["trial_id"].map(budget).astype(float)
        frames.append(mine[["kind", "trial_id", "onset"]].assign(arm=arm, share=share))
    return pd.concat(frames, ignore_index=True)[["arm", "kind", "trial_id", "onset", "share"]]


def _budgets(trials: pd.DataFrame, study: Study, arm: str) -> pd.Series[float]:
    settings = study.settings["arms"][arm] or {}
    fixed = (settings.get("budget") or {}).get("discriminator_updates", math.nan)
    swept = trials.get("param.budget.discriminator_updates")
    budgets = pd.Series(float(fixed), index=trials.index) if swept is None else swept
    return budgets.astype(float).fillna(trials["discriminator_updates"].max())


def timeline_figure(data: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Draw a mark an event over the share of the budget: a row a kind, in it a lane an arm."""
    kinds = data["kind"].value_counts(ascending=True).index.tolist()
    shown = [arm for arm in arms if (data["arm"] == arm).any()]
    ordered = data.sort_values(["kind", "arm", "share"], kind="stable")
    drawn = ordered.iloc[evenly(len(ordered), MOST_MARKS)]
    figure = go.Figure()
    for at, arm in enumerate(shown):
        mine, look = drawn[drawn["arm"] == arm], style(list(arms).index(arm))
        lane = 0.8 * ((len(shown) - 1) / 2 - at) / len(shown)
        figure.add_scatter(
            x=mine["share"], y=mine["kind"].map(kinds.index) + lane, name=arm, mode="markers",
            marker={"symbol": "line-ns-open", "size": 9, "color": look.color, "opacity": 0.6,
                    "line": {"width": 1.2}},
            hovertext=mine["trial_id"], hoverinfo="text+x",
        )  # fmt: skip
    counts = data["kind"].value_counts()
    figure.update_layout(
        **layout(height=140 + len(kinds) * (24 + 9 * len(shown)), legend=TOP),
        xaxis={"title": "share of the budget", "tickformat": ".0%", "range": [-0.02, 1.02]},
        yaxis={
            "tickvals": list(range(len(kinds))),
            "ticktext": [f"{kind} ({counts[kind]})" for kind in kinds],
            "automargin": True,
        },
    )
    reading = (
        "Where in training each event began; in brackets how many there were. A trial may have "
        "several, also of a kind; recoveries are not shown."
    )
    if len(drawn) < len(data):
        reading += f" Drawn are {len(drawn)} of {len(data)}, evenly picked."
    return Figure("event-timeline", "When events begin", reading, figure, data)
