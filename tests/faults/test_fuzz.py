"""Random damages to a study's files never yield a wrong row, a traceback or an open run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.studies import assert_same_rows

pytestmark = pytest.mark.usefixtures("recorder_here")
FEW, MANY = 20, 200
"""Cases of `make test`, and of `make test-slow`."""


def delete(path: Path, rng: random.Random) -> None:
    """Delete the file."""
    path.unlink()


def truncate(path: Path, rng: random.Random) -> None:
    """Keep a part of the file, which may be nothing."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content)) if content else 0])


def flip(path: Path, rng: random.Random) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def garble(path: Path, rng: random.Random) -> None:
    """Replace the content by random bytes, or by JSON of another shape."""
    content = rng.choice(
        [rng.randbytes(rng.randrange(300)), b"{}", b"[1]", b"null\n", b'{"a": 1}']
    )
    path.write_bytes(content)


DAMAGES = (delete, truncate, flip, garble)


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= FEW)) for seed in range(MANY)],
)
def test_resume_gives_the_undisturbed_rows_or_names_a_damaged_file(studies, tmp_path, seed):
    rng = random.Random(seed)
    folder = studies.copy(rng.choice(["midway", "finished"]), tmp_path)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    damaged = rng.sample(files, rng.choice([1, 1, 2, 4]))
    for path in damaged:
        damage = rng.choice(DAMAGES)
        damage(path, rng)
        print(damage.__name__, path.relative_to(folder))
    result = studies.resume(folder)
    print(result.output)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert not studies.running()
    if result.exit_code == 0:
        assert_same_rows(folder, studies.finished)
        return
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]
    assert any(path.name in last for path in damaged)
