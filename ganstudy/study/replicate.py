"""A study from another's best configurations: the same arms, few configs, many fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from ganstudy.gan.datasets.files import absolute
from ganstudy.limits import MOST_TRIALS
from ganstudy.paths import resolve_paths
from ganstudy.records import load_results
from ganstudy.registry import STRICT, StudyError, only_text_keys, translate
from ganstudy.storage import location
from ganstudy.store import StudyFolder
from ganstudy.study.arm import checked_name
from ganstudy.study.outcomes import OutcomeRule, rank_configs, select_candidates
from ganstudy.study.reading import read_yaml
from ganstudy.study.recipes import Template

INHERITED = ("measure", "events", "resources", "retries", "max_failed_trials")
"""Keys of a study that are its source's unless it writes them."""


class Select(pydantic.BaseModel):
    """Which configurations of the source are run again."""

    model_config = STRICT | {"frozen": True}

    top: Annotated[int, Field(ge=1)] = 1
    """How many of each arm's configs, by the source's comparison rule and the median over seeds;
    the arm's defaults do not compete."""
    on: Literal["select"] = "select"
    """The split whose scores choose; the report split's tell the result and choose nothing."""


class Replicate(pydantic.BaseModel):
    """What a study repeats."""

    model_config = STRICT | {"frozen": True}

    from_: Annotated[str, Field(alias="from")]
    """Folder of the study whose configurations are repeated."""
    select: Select = Select()
    """Which of them."""
    seeds: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 50
    """Training seeds per configuration: whole numbers from the source's largest seed on."""
    configs: dict[str, dict[str, dict[str, Any]]] | None = None
    """Arm -> config_id -> swept values, best first; filled in from the source."""

    @pydantic.field_validator("configs")
    @classmethod
    def check_config_ids(
        cls, configs: dict[str, dict[str, dict[str, Any]]] | None
    ) -> dict[str, dict[str, dict[str, Any]]] | None:
        """Refuse an id that is no name: it becomes part of a folder's name."""
        for config_id in (c for of_arm in (configs or {}).values() for c in of_arm):
            checked_name(config_id)
        return configs


def parse_replicate(value: object) -> Replicate:
    """Read what a study writes under `replicate`."""
    if not isinstance(value, Mapping):
        raise StudyError(
            "", f"must be {{from: DIR, select: {{top: 1}}, seeds: 50}}, got {value!r}"
        )
    try:
        return Replicate(**only_text_keys(value))
    except pydantic.ValidationError as error:
        names = ["from", *(name for name in Replicate.model_fields if name != "from_")]
        raise translate(error, "key", names) from None


def expand(data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Template]]:
    """Return a study's plain data with choices and seeds filled in, and its source's arms.

    What is resolved from both stands on its own: the source is not read again on a resume.

    Raises:
        StudyError: If the source is no study, or an arm has nothing to repeat.
    """
    asked = parse_replicate(data["replicate"])
    if asked.configs is not None:
        return dict(data), {}
    folder = _source_folder(asked.from_)
    if not (folder / "study.yaml").exists():
        raise StudyError("from", f"{folder} is not a study's folder: it holds no study.yaml")
    source = resolve_paths(read_yaml(folder / "study.yaml"), folder)
    design, own = (_mapping(key, data.get(key)) for key in ("design", "arms"))
    if {"sampler", "seeds", "configs"} & set(design):
        raise StudyError("", "sets design.sampler, configs and seeds itself: leave them out")
    dropped = {arm for arm, settings in own.items() if settings is None}
    # The source's controls are its own: whoever wants some here says so.
    known = [arm for arm in source["arms"] if arm not in _controls(source)]
    arms = [arm for arm in known if arm not in dropped]
    chosen = {arm: best_configs(folder, arm, asked.select.top) for arm in arms}
    filled = asked.model_copy(update={"from_": str(folder), "configs": chosen})
    # Above all of the source's, which excludes those of the source's own source too.
    first = max(source["design"]["seeds"]) + 1
    seeds = list(range(first, first + asked.seeds))
    expanded = {
        **{key: source[key] for key in INHERITED if key in source},
        **data,
        "design": {**design, "sampler": "replicate", "seeds": seeds},
        "replicate": filled.model_dump(by_alias=True),
    }
    return expanded, {arm: _template(source["arms"][arm]) for arm in known}


def _source_folder(text: str) -> Path:
    """Return the folder of the study that is repeated, or its URI."""
    try:
        return location(text if "://" in text else absolute(text))
    except ValueError as error:
        raise StudyError("from", str(error)) from None


def _controls(source: Mapping[str, Any]) -> set[str]:
    """Return the names of the arms that a resolved study has as controls."""
    found = (source.get("controls") or {}).values()
    return {name for control in found if control for key, name in control.items() if key != "arm"}


def _mapping(key: str, value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise StudyError(key, f"a mapping is needed, got {value!r}")
    return value


def _template(arm: Mapping[str, Any]) -> Template:
    settings = {key: v for key, v in arm.items() if key not in ("space", "narrow")}
    return Template(settings, arm["space"])


def best_configs(folder: Path, arm: str, top: int) -> dict[str, dict[str, Any]]:
    """Return config_id -> swept values of the arm's best configs, best first.

    They are ranked by the comparison rule of the source, on the select split
    (`ganstudy.study.outcomes`). The arm's defaults do not compete. Where the source repeats
    configs itself, all that it repeats compete, by their seeds there.
    """
    source = read_yaml(folder / "study.yaml")
    protocol = StudyFolder(folder).read_json("protocol.json")
    try:
        results = load_results(folder)
    except FileNotFoundError:
        raise StudyError("from", f"{folder} has no finished trial yet") from None
    rule = OutcomeRule.from_settings(source, protocol["primary"], minimize=protocol["minimize"])
    trials = results.trials[results.trials["arm"] == arm]
    if f"{rule.score.checkpoint}.{rule.score.score}" not in trials:
        raise StudyError("from", f"{folder} has no scored trial yet")
    outcomes = rule.score_outcomes(trials, results.events)
    candidates = select_candidates(outcomes, rule.repeated_by(arm))
    ranked, count = rank_configs(candidates), candidates["config_id"].nunique()
    if ranked.empty:
        raise StudyError("from", f"every config of the arm {arm} in {folder} failed or is open")
    if top > count:
        rule_text = f"is {top}, the arm {arm} has {count} configs to choose from"
        raise StudyError("select.top", f"{rule_text} (its defaults do not compete)")
    # From the plan, since a table's columns may have changed the type of a value.
    planned = {
        row["config_id"]: row["params"]
        for row in StudyFolder(folder).read_plan()
        if row["arm"] == arm
    }
    return {str(config): planned[config] for config in ranked.index[:top]}
