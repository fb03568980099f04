"""Limits on what a file may ask of this machine, checked before anything is allocated.

A study may come from somebody else: a few bytes of YAML, parquet or npz can describe data that
fill the memory. Limits are far above what studies need.
"""

from __future__ import annotations

import os
from pathlib import Path

NAME_LENGTH = 100
"""Letters of a name of a study or an arm: a trial's folder adds configuration and seed, and a
file system takes 255 bytes."""
MOST_TRIALS = 100_000
"""Trials of one study."""
MOST_SAMPLES = 1_000_000
"""Generated images that one evaluation scores."""
YAML_BYTES = 2 * 1024**2
YAML_NODES = 100_000
"""Values of a YAML file once its aliases are expanded."""
DEPTH = 50
"""Mappings and lists within each other, in YAML and JSON."""
TEXT_BYTES = 1024**3
"""Size of a JSON file of a study: a record of millions of points has less."""
PNG_BYTES = 64 * 1024**2
MOST_PIXELS = 64 * 1024**2
"""Pixels of one picture of a data set."""
COMPRESSION = 200
"""Largest ratio of compressed data: images, even drawn ones, compress less."""
UNSUSPICIOUS = 256 * 1024**2
"""Bytes that any file may decode to, whatever its size."""
GIBIBYTE = 1024**3


def available_memory() -> int:
    """Return the bytes of memory that this process can still use."""
    limits = [_machine_memory(), _control_group_memory()]
    return min(limit for limit in limits if limit is not None)


def _machine_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    except (OSError, ValueError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _control_group_memory() -> int | None:
    """Return what a container's limit leaves, None without a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        return limit - int((group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def explain_excess(decoded: int, stored: int, copies: int = 3) -> str:
    """Explain why data must not be decoded; empty where they may be.

    Args:
        decoded: Bytes after decompression, as the header says.
        stored: Bytes in the file.
        copies: How often the data are in memory while they are decoded.

    Returns:
        The broken rule with its values.
    """
    if decoded <= UNSUSPICIOUS:
        return ""
    size = f"{decoded / GIBIBYTE:.1f} GiB"
    if decoded > COMPRESSION * stored:
        return (
            f"would take {size} from {stored} bytes, which are compressed more than "
            f"{COMPRESSION} times"
        )
    available = available_memory()
    if copies * decoded > available:
        return (
            f"would take {copies} times {size} while it is read, and "
            f"{available / GIBIBYTE:.1f} GiB of memory are available"
        )
    return ""
