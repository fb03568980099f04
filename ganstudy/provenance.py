"""Where results come from: commit, code, versions, hardware and command."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import uuid
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ganstudy.storage import read_text

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "ray",
    "optuna",
    "mlflow",
    "pandas",
    "pyarrow",
    "plotly",
)
RESULT_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn")
"""Packages whose version can change a row."""
RESULT_CODE = ("gan", "measure", "trial.py", "registry.py", "study/plan.py", "study/space.py")
"""Our own code that can change a row."""
SEARCH_CODE = ("sweep/search.py",)
"""Our own code that can change which configuration an adaptive search tries next."""
STUDY_ID = "study_id"
"""Key of the study's random id in provenance.json."""
HIDDEN = "***"
"""What stands where a secret stood."""
SECRET_WORD = (
    r"(?:secret|token|passw(?:or)?d|passphrase|pwd|credential|signature|\bsig|key|key_?id"
    r"|(?<![a-z0-9])(?:pass|o?auth|jwt|sas|cookie))"
)
SECRET_NAME = (
    r"(?:secret|passw(?:or)?d|passphrase|pwd|jwt"
    r"|(?:api|access|account|auth|private|secret|shared)[_-]?key(?:_?id)?"
    r"|(?:access|api|auth|bearer|refresh|session)[_-]?token)"
)
"""What is a secret even where `name: value` may be a sentence."""
PREFIX = r"(?<![\w.%-])[\w.%-]{0,64}"  # bounded, or long words take for ever
NAMES = rf"{PREFIX}{SECRET_WORD}"
VALUE = r"(?:\"[^\"]*\"|'[^']*'|[^\s&;,'\"]+)"
SECRETS = (
    # User and password of a URI; a password may hold / and @ that should have been escaped.
    (re.compile(r"(?<=://)(?:[^\s/@:'\"]*:[^\s'\"]*|[^\s/@'\"]*)@"), f"{HIDDEN}@"),
    # name=value, in a query or not, and the same as a printed dictionary.
    # Our own messages say KEY=VALUE.
    (re.compile(rf"(?i)({NAMES}(?:=(?!VALUE\b)|['\"]\s*:\s*)){VALUE}"), rf"\g<1>{HIDDEN}"),
    # name: value and name = value, as YAML, ini files and headers have it.
    (re.compile(rf"(?i)({PREFIX}{SECRET_NAME}[ \t]*[=:][ \t]+){VALUE}"), rf"\g<1>{HIDDEN}"),
    (
        re.compile(r"(?i)(authorization['\"]?\s*[=:]\s*['\"]?(?:\w+ )?)[^\s'\"]+"),
        rf"\g<1>{HIDDEN}",
    ),
    (re.compile(r"(?i)(\bbearer[ \t]+)[\w.~+/-]{8,}=*"), rf"\g<1>{HIDDEN}"),
    (re.compile(r"(?i)(\bcookie:[ \t]*)[^\r\n'\"]+"), rf"\g<1>{HIDDEN}"),
    # Secrets by their own form: JSON web tokens, keys of AWS, tokens of GitHub and Hugging Face.
    (
        re.compile(
            r"\beyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)?|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
            r"|\bgh[pousr]_\w{20,}|\bhf_\w{20,}"
        ),
        HIDDEN,
    ),
    (
        re.compile(r"(?s)(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|\Z)"),
        rf"\g<1>{HIDDEN}",
    ),
)
SECRET_VARIABLE = re.compile(
    r"(?i)(SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|KEY|KEY_ID"
    r"|(^|_)(PASS|AUTH|JWT|SAS)|_PWD)$"
)
"""Environment variables whose values are secrets."""
SHORTEST_SECRET = 8
"""A shorter value of such a variable would also hide words that only look like it."""


def redact(text: str) -> str:
    """Return `text` without its secrets: for all that is recorded, sent to others or printed.

    Those are users and passwords of URIs, values whose name says so (`?token=`, `secret_key=`,
    `Authorization: Bearer`), and the values of the environment's variables named like that.
    """
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and SECRET_VARIABLE.search(name):
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, text)
    return _redacted(text)


def holds_secret(text: str) -> bool:
    """Whether `text` is a URI or a setting with a secret in it, whatever the environment is."""
    return _redacted(text) != text


def _redacted(text: str) -> str:
    for pattern, hidden in SECRETS:
        text = pattern.sub(hidden, text)
    return text


def provenance() -> dict[str, Any]:
    """Return what a reader needs to know to make the same results again."""
    return {
        "ganstudy": metadata.version("ganstudy"),
        "commit": commit(),
        "code_hash": code_hash(),
        "search_hash": code_hash(SEARCH_CODE),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "node": platform.node(),
        "command": redact(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
    }


def new_study_id() -> str:
    """Return a random id, which a study keeps wherever it is moved and whatever it is called."""
    return str(uuid.uuid4())


def read_study_id(folder: Path) -> str:
    """Return the id of the study in a folder, empty if an older ganstudy gave it none."""
    try:
        found = json.loads(read_text(folder / "provenance.json"))
    except FileNotFoundError:
        return ""
    text = found.get(STUDY_ID) if isinstance(found, dict) else None
    try:
        return str(uuid.UUID(str(text)))  # it stands in queries: nothing else may
    except ValueError:
        return ""


def changed(then: dict[str, Any], adaptive: bool = False, pruned: bool = False) -> list[str]:
    """Return in words what differs now from `then` that could change a row.

    Args:
        then: The provenance of a study.
        adaptive: Whether Optuna chooses its configurations.
        pruned: Whether Ray decides which of its trials are stopped.
    """
    now = provenance()
    differences = []
    if then["code_hash"] != now["code_hash"]:
        differences.append(f"ganstudy's own code (was {then['commit'] or then['code_hash']})")
    packages = dict.fromkeys(RESULT_PACKAGES, "")
    if adaptive:
        packages["optuna"] = ", which chooses the configurations"
        if then.get("search_hash") != now["search_hash"]:
            differences.append("ganstudy's own search, which chooses the configurations")
    if pruned:
        packages["ray"] = ", which decides what is stopped"
    for name, what in packages.items():
        old, new = then["packages"].get(name), now["packages"][name]
        if old not in (None, new):  # an older ganstudy recorded fewer packages
            differences.append(
                f"{name} {old} -> {new}{what} (pip install {name}=={old} restores it)"
            )
    return differences


def code_hash(names: Sequence[str] = RESULT_CODE) -> str:
    """Return 16 hex digits of the code that can change a row."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for name in names:
        path = root / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def commit() -> str | None:
    """Return the commit of the checkout that this package lies in, `+` if changed since."""
    root = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=root, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", "provenance.py"],
            cwd=root, capture_output=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() if tracked.returncode == 0 else None


def processor() -> str:
    """Return the processor's model name."""
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    found = re.search(r"model name\s*:\s*(.+)", info)
    return found[1] if found else platform.processor()
