"""How a study was made and measured: protocol, search space, components, versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

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
    parts: list[Part] = []
    components = component_rows(study)
    if len(components):
        reading = (
            "Losses are of logits: where a formula has a sigmoid it says so. Penalty points: "
            "where a regulariser evaluates the discriminator."
        )
        parts.append(Table("components", "What was run", reading, components))
    space = pd.DataFrame(
        _parameter_rows(study), columns=["arm", "key", "drawn from", "best trial"]
    )
    if len(space):
        reading = "What was drawn, from where, and the value of each arm's best trial."
        parts.append(Table("space", "Search space", reading, space))
    return Section("parameters", "What was run, and what was searched", parts) if parts else None


def component_rows(study: Study) -> pd.DataFrame:
    """Return one row per arm and component that was run; empty where they were not recorded."""
    rows = [
        {"arm": arm, "kind": kind, **_component(part)}
        for arm, kinds in study.components.get("arms", {}).items()
        for kind, found in kinds.items()
        for part in (found if isinstance(found, list) else [found])
    ]
    return pd.DataFrame(rows)


def _component(part: Mapping[str, Any]) -> dict[str, str]:
    options = ", ".join(f"{k} {v}" for k, v in (part.get("options") or {}).items())
    return {
        "name": str(part.get("name", "")),
        "options": options,
        "formula": str(part.get("formula") or part.get("summary") or ""),
        "paper": str(part.get("paper") or ""),
    }


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
                "better": what_is_better(how),
            }
        )
    return rows


def _smaller_floor(how: Mapping[str, Any]) -> str:
    """Return the n of a floor where the splits hold fewer images than are generated."""
    n = how.get("n_floor", how["n_generated"])
    return f" (n = {n})" if n < how["n_generated"] else ""


def _parameter_rows(study: Study) -> list[tuple[str, str, str, str]]:
    """Return arm, swept parameter, its range and the value of the arm's best trial."""
    rows = []
    for arm in study.arms:
        trials = study.counted(arm)
        ranked = trials[np.isfinite(trials["score"])].sort_values("score", kind="stable")
        for key, drawn in study.settings["arms"][arm].get("space", {}).items():
            best = ranked.iloc[0].get(f"param.{key}") if len(ranked) else None
            shown = f"{best:.3g}" if isinstance(best, float) else str(best)
            told = NONE if best is None else shown
            rows.append((arm, key, json.dumps(drawn) if drawn else NONE, told))
    return rows
