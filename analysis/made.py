"""How a study was made and measured: protocol, search space, components, versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis import seeds
from analysis.page import NONE, Part, Section, Table, number
from analysis.reported import what_is_better
from analysis.tables import Study


def measured(study: Study) -> Section | None:
    """Return how every score was measured."""
    if not study.protocol:
        return None
    data = pd.DataFrame(_protocol_rows(study))
    reading = "Evaluation noise and real images are the same for all trials."
    if not any(name.startswith(("fid_", "kid_")) for name in study.protocol):
        reading += (
            " No score here is a FID: that name belongs to the Inception network's features."
        )
    title = "How it was measured"
    return Section("protocol", title, [Table("protocol", title, reading, data)])


def searched(study: Study) -> Section | None:
    """Return what was run: the components with their formulas, and the search space."""
    parts: list[Part] = [*_component_tables(study)]
    space = pd.DataFrame(
        _parameter_rows(study), columns=["arm", "key", "drawn from", "best configuration"]
    )
    if len(space):
        reading = "What was drawn, from where, and the value in each arm's best configuration."
        parts.append(Table("space", "Search space", reading, space))
    return Section("parameters", "What was run, and what was searched", parts) if parts else None


FORMULAS = {
    "loss": ["discriminator", "generator", "sigmoid"],
    "regularizers": ["penalty", "at"],
}
"""Kind of component -> the parts of its formula."""


def component_rows(study: Study) -> pd.DataFrame:
    """Return one row per component and options that were run, with the arms that ran it.

    Empty where components were not recorded.
    """
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for arm, kinds in study.components.get("arms", {}).items():
        for kind, found in kinds.items():
            for part in found:
                options = ", ".join(f"{k} {v}" for k, v in (part.get("options") or {}).items())
                key = (kind, str(part["name"]), options)
                row = rows.setdefault(key, {"arms": [], **_component(part)})
                row["arms"].append(arm)
    every = len(study.components.get("arms", {}))
    return pd.DataFrame(
        [
            {"kind": kind, "name": name, "options": options}
            | row
            | {"arms": "all" if len(row["arms"]) == every else ", ".join(row["arms"])}
            for (kind, name, options), row in rows.items()
        ]
    )


def _component(part: Mapping[str, Any]) -> dict[str, str]:
    formula = part.get("formula") or {}
    told = {key: str(formula.get(key, "")) for keys in FORMULAS.values() for key in keys}
    return {
        "summary": str(part.get("summary") or ""),
        "paper": str(part.get("paper") or ""),
    } | told


def _component_tables(study: Study) -> list[Table]:
    """Return the losses and the regularisers with their formulas, then all other components."""
    rows = component_rows(study)
    if rows.empty:
        return []
    letters = study.components.get("notation") or {}
    notation = "; ".join(f"{letter}: {meaning}" for letter, meaning in letters.items())
    titles = {"loss": "Losses as run", "regularizers": "Regularisers as run"}
    readings = {"loss": notation, "regularizers": "At: where the discriminator is looked at."}
    tables = []
    for kind, formulas in FORMULAS.items():
        mine = rows[rows["kind"] == kind]
        if len(mine):
            shown = mine[["name", *formulas, "options", "arms", "paper"]]
            tables.append(Table(f"components-{kind}", titles[kind], readings[kind], shown))
    rest = rows[~rows["kind"].isin(list(FORMULAS))]
    shown = rest[["kind", "name", "options", "summary", "arms", "paper"]]
    reading = "Options as written or by default; what a space draws stands below."
    tables.append(Table("components", "Everything else that was run", reading, shown))
    return tables


def made(study: Study) -> Section | None:
    """Return the command, the commit, the versions and the machine."""
    p = study.provenance
    if not p:
        return None
    packages = "".join(f", {name} {version}" for name, version in p.get("packages", {}).items())
    told = {
        "Command": p.get("command"),
        "Commit": f"{p.get('commit') or 'not in a git checkout'} (ganstudy {p.get('ganstudy')}, "
        f"code {p.get('code_hash')})",
        "Versions": f"Python {p.get('python')}{packages}",
        "Machine": f"{p.get('processor')}, {p.get('cores')} cores, {p.get('platform')} "
        f"({p.get('node')})",
    }
    rows = pd.DataFrame({"": list(told), "what": [str(value) for value in told.values()]})
    return Section("made", "How it was made", [Table("made", "How it was made", "", rows)])


def _reads(how: Mapping[str, Any]) -> str:
    """Return what a score was computed from, in words."""
    facts = how["features_facts"]
    shares = {k.removeprefix("accuracy_"): v for k, v in facts.items() if "accuracy_" in k}
    accuracy = ", ".join(f"{split} {share:.1%}" for split, share in shares.items())
    if held := facts.get("held_out"):
        accuracy += (
            f"; select and report: {held['accuracy']:.1%} [{held['low']:.1%}, {held['high']:.1%}] "
            f"of {held['n']}, where a constant answer has {held['chance']:.1%}"
        )
    told = {k: v for k, v in facts.items() if "accuracy_" not in k and k != "held_out"}
    others = "".join(f"; {k}: {v}" for k, v in told.items())
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
                "better": what_is_better(how),
            }
        )
    return rows


def _smaller_floor(how: Mapping[str, Any]) -> str:
    """Return the n of a floor where the splits hold fewer images than are generated."""
    n = how.get("n_floor", how["n_generated"])
    return f" (n = {n})" if n < how["n_generated"] else ""


def _parameter_rows(study: Study) -> list[tuple[str, str, str, str]]:
    """Return arm, swept parameter, its range and the value in the arm's best configuration."""
    rows = []
    for arm in study.arms:
        best_trials = seeds.best_trials(study, arm)
        for key, drawn in study.settings["arms"][arm].get("space", {}).items():
            best = best_trials.iloc[0].get(f"param.{key}") if len(best_trials) else None
            shown = f"{best:.3g}" if isinstance(best, float) else str(best)
            told = NONE if best is None else shown
            rows.append((arm, key, json.dumps(drawn) if drawn else NONE, told))
    return rows
