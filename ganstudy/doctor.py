"""What this machine offers to a study."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from ganstudy.provenance import PACKAGES, processor
from ganstudy.sweep.temporary import LONGEST_BYTES, can_be_written, find_base

GIBIBYTE = 1024**3


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    found: str
    fine: bool = True


def examine() -> list[Finding]:
    """Look at Python, packages, processor, memory, disks, GPU and data; start nothing."""
    return [
        Finding("Python", sys.version.split()[0], sys.version_info >= (3, 11)),
        _guarded("packages", _packages),
        Finding("processor", f"{processor()}, {len(os.sched_getaffinity(0))} cores usable"),
        *(_guarded(what, look) for what, look in LOOKS.items()),
        Finding("platform", platform.platform()),
    ]


def _guarded(what: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:  # a broken part of the machine is what this command is for
        return Finding(what, f"{type(error).__name__}: {error}", fine=False)


def _packages() -> Finding:
    return Finding("packages", ", ".join(f"{n} {metadata.version(n)}" for n in PACKAGES))


def _memory() -> Finding:
    pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    free = pages * size / GIBIBYTE
    return Finding("memory", f"{free:.1f} GiB free (a trial process takes about 0.5)", free > 2)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / GIBIBYTE
    return Finding("disk", f"{free:.1f} GiB free here", free > 1)


def _shared_memory() -> Finding:
    if not Path("/dev/shm").exists():
        return Finding("shared memory", "no /dev/shm; Ray falls back to disk")
    free = shutil.disk_usage("/dev/shm").free / GIBIBYTE
    return Finding("shared memory", f"{free:.2f} GiB in /dev/shm (Ray asks for 0.08)", free > 0.1)


def _torch() -> Finding:
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("torch", f"{torch.__version__}, {capability}, {', '.join(gpus)}")
    return Finding("torch", f"{torch.__version__}, {capability}, no GPU: trials run on the CPU")


def _cache() -> Finding:
    from ganstudy.store import cache_folder

    folder = cache_folder()
    fine = can_be_written(folder)
    problem = "" if fine else " cannot be written: set GANSTUDY_CACHE to a folder that can be"
    return Finding("cache", f"{folder}{problem}", fine)


def _temporary() -> Finding:
    folder = find_base(longest=LONGEST_BYTES)
    free = shutil.disk_usage(folder).free / GIBIBYTE
    return Finding("temporary files", f"{folder}, {free:.1f} GiB free")


def _token() -> Finding:
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if not path.exists():
        return Finding("token of Ray clusters", f"no {path}")
    fine = not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    problem = "" if fine else f" can be read by other users: chmod 600 {path}"
    return Finding("token of Ray clusters", f"{path}{problem}", fine)


def _data() -> Finding:
    from ganstudy.gan.datasets import DATASETS

    sizes = [
        f"{name} {len(DATASETS.build(name).images('train'))}" for name in ("digits", "mnist5k")
    ]
    return Finding("data (train images)", ", ".join(sizes))


def _browser() -> Finding:
    names = ("chromium", "chromium-browser", "google-chrome", "firefox")
    found = next((name for name in names if shutil.which(name)), None)
    return Finding("browser", found or "none found; open report.html elsewhere")


LOOKS: dict[str, Callable[[], Finding]] = {
    "memory": _memory,
    "disk": _disk,
    "shared memory": _shared_memory,
    "torch": _torch,
    "cache": _cache,
    "temporary files": _temporary,
    "token of Ray clusters": _token,
    "data": _data,
    "browser": _browser,
}
