"""cluster.yaml is valid for Ray as it stands and with any cloud's section in use."""

from __future__ import annotations

import copy
import importlib.resources
import json
import re

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT

TEXT = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
SECTION = re.compile(r"^# === (?P<name>[\w-]+):.*\n(?P<body>(?:(?!# === ).*\n)*)", re.MULTILINE)
CLOUDS = ["aws", "gcp", "azure"]


def with_section(chosen):
    """Return the file as a reader leaves it who uses the section of one cloud."""

    def edit(match):
        lines = match["body"].splitlines()
        if match["name"] == "on-premise":
            lines = [f"# {line}" for line in lines]
        elif match["name"] == chosen:
            lines = [line.removeprefix("# ") for line in lines]
        return "\n".join([match[0].splitlines()[0], *lines, ""])

    return SECTION.sub(edit, TEXT)


VARIANTS = [("local", TEXT), *((cloud, with_section(cloud)) for cloud in CLOUDS)]
IDS = [provider for provider, _ in VARIANTS]


@pytest.fixture(scope="module")
def validate():
    """Ray's own three checks, in the order of `ray up`."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads(
        (importlib.resources.files("ray.autoscaler") / "ray-schema.json").read_text()
    )
    validator = jsonschema.Draft7Validator(schema)

    def check(config):
        validator.validate(config)
        prepared = prepare_config(copy.deepcopy(config))
        validate_config(prepared)
        return prepared

    return check


def test_every_section_is_known():
    names = [match["name"] for match in SECTION.finditer(TEXT)]
    assert names == ["on-premise", *CLOUDS, "all"]


@pytest.mark.parametrize(("provider", "text"), VARIANTS, ids=IDS)
def test_ray_takes_it(provider, text, validate):
    config = yaml.safe_load(text)
    assert config["provider"]["type"] == provider
    prepared = validate(config)
    assert prepared["max_workers"] == config["max_workers"]
    workers = sum(kind["max_workers"] for kind in prepared["available_node_types"].values())
    assert workers >= config["max_workers"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_clouds_head_is_kept_and_its_workers_come_and_go(cloud, validate):
    kinds = validate(yaml.safe_load(with_section(cloud)))["available_node_types"]
    head = kinds.pop("head")
    assert head["max_workers"] == 0
    assert "spot" not in json.dumps(head).lower()
    assert "preemptible" not in json.dumps(head)
    for kind in kinds.values():
        assert kind["min_workers"] == 0
        assert re.search("spot|preemptible", json.dumps(kind), re.IGNORECASE)


@pytest.mark.parametrize(("provider", "text"), VARIANTS, ids=IDS)
@pytest.mark.parametrize("key", ["cluster_name", "max_workers", "setup_commands", "ssh_user"])
def test_a_typo_is_found(key, provider, text, validate):
    wrong = re.sub(rf"\b{key}:", f"{key[:-1]}:", text, count=1)
    if key == "max_workers":  # of the active section, not of a commented one
        wrong = re.sub(r"^max_workers:", "max_worker:", text, flags=re.MULTILINE)
    if key == "ssh_user":
        wrong = re.sub(r"^  ssh_user:", "  ssh_usr:", text, flags=re.MULTILINE)
    assert yaml.safe_load(wrong) != yaml.safe_load(text)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate(yaml.safe_load(wrong))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_typo_in_a_node_type_is_found(cloud, validate):
    wrong = with_section(cloud).replace("    min_workers:", "    min_worker:")
    with pytest.raises(jsonschema.ValidationError, match="min_worker"):
        validate(yaml.safe_load(wrong))


@pytest.mark.parametrize(("provider", "text"), VARIANTS, ids=IDS)
def test_every_machine_asks_for_the_token_and_the_dashboard_stays_on_loopback(provider, text):
    config = yaml.safe_load(text)
    assert "~/.ray/auth_token" in config["file_mounts"]
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    starts = [command for command in starts if "ray start" in command]
    assert len(starts) == 2
    for command in starts:
        assert "RAY_AUTH_MODE=token" in command.split("ray start")[0]
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert re.search("token *=|secret|password", text, re.IGNORECASE) is None


def test_no_study_settings():
    for word in ("arms", "budget", "discriminator", "design", "--runs", "tracking"):
        assert word not in TEXT
