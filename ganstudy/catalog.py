"""All registries by the word users know, and the JSON schema of a study made from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from ganstudy.gan.architectures import ARCHITECTURES
from ganstudy.gan.conditioning import CONDITIONINGS
from ganstudy.gan.config import MemoryFormat, Precision
from ganstudy.gan.datasets import DATASETS
from ganstudy.gan.losses import LOSSES
from ganstudy.gan.optimizers import OPTIMIZERS, SCHEDULES
from ganstudy.gan.regularizers import REGULARIZERS
from ganstudy.gan.stabilizers import STABILIZERS
from ganstudy.measure.events import DETECTORS
from ganstudy.measure.features import FEATURES
from ganstudy.measure.metrics import METRICS
from ganstudy.records import RECOVERY
from ganstudy.registry import Registry
from ganstudy.study.controls import KINDS as CONTROLS
from ganstudy.study.judgement import Judgement
from ganstudy.study.recipes import RECIPES, RecipeUse, families
from ganstudy.study.replicate import Replicate
from ganstudy.study.space import KINDS
from ganstudy.study.spec import TRAIN_KEYS, Design, Resources
from ganstudy.study.stopping import STOPPING

REGISTRIES: dict[str, Registry[Any]] = {
    "dataset": DATASETS,
    "architecture": ARCHITECTURES,
    "loss": LOSSES,
    "conditioning": CONDITIONINGS,
    "regularizer": REGULARIZERS,
    "stabilizer": STABILIZERS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "features": FEATURES,
    "metric": METRICS,
    "detector": DETECTORS,
    "stopping": STOPPING,
}
ONE: dict[str, Registry[Any]] = {
    "dataset": DATASETS,
    "architecture": ARCHITECTURES,
    "loss": LOSSES,
    "conditioning": CONDITIONINGS,
    "optimizer": OPTIMIZERS,
    "generator_optimizer": OPTIMIZERS,
    "discriminator_optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
WHOLE = {"type": "integer", "minimum": 1}


def study_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a study's YAML."""
    settings = _settings()
    arm = _mapping(settings | {"space": _space(), "narrow": _space(), "recipe": _recipe(RECIPES)})
    arm = {"anyOf": [arm, {"type": "null"}]}
    measure = {
        "features": _one(FEATURES),
        "metrics": {"type": "array", "minItems": 1, "items": _one(METRICS)},
        "samples": {"type": "integer", "minimum": 10},
        "every": _mapping({"discriminator_updates": WHOLE}),
        "noise_seed": {"type": "integer", "minimum": 0},
        "final": {"type": "array", "items": _one(METRICS)},
        "raw": {"type": "boolean"},
        "probe": {
            "anyOf": [
                _mapping(
                    {
                        "samples": {"type": "integer", "minimum": 50},
                        "every": _mapping({"discriminator_updates": WHOLE}),
                    }
                ),
                {"type": "null"},
            ]
        },
    }
    events = {
        "stop_on": {"type": "array", "items": {"enum": DETECTORS.names()}},
        "detectors": _many(DETECTORS),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ganstudy study",
        "required": ["study"],
        "anyOf": [{"required": [key]} for key in ("arms", "recipe", "replicate")],
        **_mapping(
            {
                "study": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]*$"},
                "question": {"type": "string"},
                "source": {"type": "string"},
                "base": _mapping(settings),
                "arms": {"type": "object", "minProperties": 1, "additionalProperties": arm},
                "space": _space(),
                "narrow": _space(),
                "design": Design.model_json_schema(),
                "measure": _mapping(measure),
                "events": _mapping(events),
                "resources": Resources.model_json_schema(),
                "retries": {"type": "integer", "minimum": 0},
                "max_failed_trials": {"type": "integer", "minimum": 0},
                "recipe": _recipe([*families(), *RECIPES]),
                "replicate": _replicate(),
                "stopping": _stopping(),
                "controls": _controls(),
                "judgement": _judgement(),
            }
        ),
    }


def _settings() -> dict[str, Any]:
    """Return the schema of the keys of `base` and of an arm."""
    keys: dict[str, Any] = {key: _one(registry) for key, registry in ONE.items()}
    keys |= {"regularizers": _many(REGULARIZERS), "stabilizers": _many(STABILIZERS)}
    keys |= {"n_critic": WHOLE, "generator_steps": WHOLE, "batch_size": WHOLE}
    keys |= {key: {"type": "boolean"} for key in ("simultaneous", "flips", "compile")}
    keys["precision"] = {"enum": list(get_args(Precision))}
    keys["data_seed"] = {"type": ["integer", "null"], "minimum": 0}
    keys["ttur_ratio"] = {"type": "number", "exclusiveMinimum": 0}
    keys["memory_format"] = {"enum": list(get_args(MemoryFormat))}
    keys["budget"] = _mapping({"discriminator_updates": WHOLE})
    if set(keys) != TRAIN_KEYS:
        raise AssertionError(f"the schema forgets {set(keys) ^ TRAIN_KEYS}")
    return keys


def _recipe(names: Iterable[str]) -> dict[str, Any]:
    """Return the schema of a recipe's name, or of a mapping with name and options."""
    name = {"enum": list(names)}
    options = RecipeUse.model_json_schema()["properties"] | {"name": name}
    return {"anyOf": [name, _mapping(options) | {"required": ["name"]}]}


def _replicate() -> dict[str, Any]:
    """Return the schema of `replicate`, its selection spelled out where it is used."""
    schema = Replicate.model_json_schema()
    schema["properties"]["select"] = schema.pop("$defs")["Select"]
    return schema


def _controls() -> dict[str, Any]:
    """Return the schema of `controls`: an arm, true for the first, or an arm and its copy."""
    name = {"type": "string"}
    kinds = {}
    for kind, (word, _) in CONTROLS.items():
        both = _mapping({"arm": name, word: name}) | {"required": ["arm", word]}
        kinds[kind] = {"anyOf": [name, {"type": ["boolean", "null"]}, both]}
    return _mapping(kinds)


def _judgement() -> dict[str, Any]:
    """Return the schema of `judgement`, with the kinds of event that can be failures."""
    schema = Judgement.model_json_schema()
    kinds = [kind for kind in DETECTORS.names() if kind != RECOVERY]
    schema["properties"]["failures"] |= {"items": {"enum": kinds}, "uniqueItems": True}
    return schema


def _stopping() -> dict[str, Any]:
    """Return the schema of `stopping`: a rule's name, or the rule with its options."""
    rules = [
        _mapping({name: _mapping(STOPPING.schema(name).get("properties", {}))})
        | {"required": [name]}
        for name in STOPPING.names()
    ]
    return {"anyOf": [{"enum": STOPPING.names()}, *rules, {"type": "null"}]}


def _mapping(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _one(registry: Registry[Any]) -> dict[str, Any]:
    """Return the schema of a name, or of a mapping with name and options."""
    named = []
    for name in registry.names():
        properties = {"name": {"const": name}, **registry.schema(name).get("properties", {})}
        named.append(_mapping(properties))
    # Options without a name change those of the component that is inherited.
    options = {"type": "object", "not": {"required": ["name"]}}
    return {"anyOf": [{"enum": registry.names()}, *named, options]}


def _many(registry: Registry[Any]) -> dict[str, Any]:
    """Return the schema of a mapping name -> options, null to remove."""
    properties = {
        name: {"anyOf": [_mapping(registry.schema(name).get("properties", {})), {"type": "null"}]}
        for name in registry.names()
    }
    return _mapping(properties)


def _space() -> dict[str, Any]:
    """Return the schema of a search space."""
    pair = {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}}
    kinds: list[dict[str, Any]] = []
    for kind in KINDS:
        values = {"type": "array", "minItems": 1} if kind == "choice" else pair
        kinds.append(_mapping({kind: values, "when": {"type": "object"}}) | {"required": [kind]})
    return {"type": "object", "additionalProperties": {"anyOf": [*kinds, {"type": "null"}]}}
