"""Where results come from: commit, code, versions, hardware and command."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "scipy", "ray", "optuna", "mlflow", "pandas", "pyarrow", "plotly")
RESULT_PACKAGES = ("torch", "numpy", "scipy")
"""Packages whose version can change a row."""
RESULT_CODE = ("gan", "measure", "trial.py", "registry.py", "study/plan.py", "study/space.py")
"""Our own code that can change a row."""
SECRET = re.compile(r"(?<=://)[^/@\s]+@")
"""User and password of a URI."""


def redact(text: str) -> str:
    """Return `text` without users and passwords of URIs."""
    return SECRET.sub("***@", text)


def provenance() -> dict[str, Any]:
    """Return what a reader needs to know to make the same results again."""
    return {
        "ganstudy": metadata.version("ganstudy"),
        "commit": commit(),
        "code_hash": code_hash(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "node": platform.node(),
        "command": redact(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
    }


def changed(then: dict[str, Any]) -> list[str]:
    """Return in words what differs now from `then` that could change a row."""
    now = provenance()
    differences = []
    if then["code_hash"] != now["code_hash"]:
        differences.append(f"ganstudy's own code (was {then['commit'] or then['code_hash']})")
    for name in RESULT_PACKAGES:
        old, new = then["packages"][name], now["packages"][name]
        if old != new:
            differences.append(f"{name} {old} -> {new}")
    return differences


def code_hash() -> str:
    """Return 16 hex digits of the code that can change a row."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for name in RESULT_CODE:
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
