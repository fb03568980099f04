"""What a study's arms are made of, in words and formulas, for whoever reads without our code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ganstudy.gan.config import MANY, SINGLE, TrainConfig
from ganstudy.registry import Component, Registry
from ganstudy.study.arm import Arm
from ganstudy.study.checks import extremes
from ganstudy.study.spec import StudySpec

NOTATION = {
    "r, f": "logits of real and generated images",
    "E[...]": "mean over the batch",
    "s(v)": "softplus, log(1 + exp(v)) = -log(sigmoid(-v))",
    "relu(v)": "max(v, 0)",
    "e_r, e_f": "energies of real and generated images, minus their logits",
    "k": "the balance that boundary_equilibrium keeps",
    "D, G": "discriminator (its logit) and generator",
    "grad": "gradient with respect to the image",
}
"""What the formulas' letters mean; other names in them are options."""


def components(spec: StudySpec) -> dict[str, Any]:
    """Return what every arm trains with, at its defaults and at all that its space can choose.

    Returns:
        `notation`: letter -> meaning. `arms`: arm -> kind (`loss`, `regularizers`, ...) -> one
        entry per component that may run: `name`, `options` (at the arm's defaults where it has
        them), `summary`, `text`, `formula` (key -> text, empty where there is none; of a loss
        `discriminator`, `generator` and `sigmoid`, of a regulariser `penalty` and `at`), `paper`
        and `elsewhere`.
    """
    return {"notation": NOTATION, "arms": {arm.name: _of(spec, arm) for arm in spec.arms}}


def _of(spec: StudySpec, arm: Arm) -> dict[str, list[dict[str, Any]]]:
    configs = [arm.train({}, 0), *extremes(spec, arm)]
    registries: Mapping[str, Registry[Any]] = SINGLE | MANY
    return {kind: _entries(kind, registry, configs) for kind, registry in registries.items()}


def _entries(
    kind: str, registry: Registry[Any], configs: Iterable[TrainConfig]
) -> list[dict[str, Any]]:
    """Return the entries of one kind: another formula of the same component is another entry."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for config in configs:
        value = getattr(config, kind)
        for component in value if isinstance(value, tuple) else (value,):
            entry = _entry(registry, component)
            found.setdefault((entry["name"], *entry["formula"].values()), entry)
    return list(found.values())


def _entry(registry: Registry[Any], component: Component) -> dict[str, Any]:
    options = component.to_dict()
    name = options.pop("name")
    told = registry.explained(name)
    return {
        "name": name,
        "options": options,
        "summary": told.summary,
        "text": told.body,
        "formula": told.formula_of(component),
        "paper": registry.paper(name),
        "elsewhere": told.elsewhere,
    }
