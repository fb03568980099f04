"""The kept traces: points in the order of their recording, and a table of the runs' fates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ganstudy.records import Point

FOLDER = Path(__file__).parent
POINTS_SCHEMA = pa.schema(
    [
        ("run", pa.dictionary(pa.int32(), pa.string())),
        ("name", pa.dictionary(pa.int32(), pa.string())),
        ("update", pa.int32()),
        ("value", pa.float32()),
    ]
)


def points_path(part: str, folder: Path = FOLDER) -> Path:
    """Return where the points of a part are kept."""
    return folder / f"{part}.parquet"


def fates_path(part: str, folder: Path = FOLDER) -> Path:
    """Return where the fates of a part are kept."""
    return folder / f"{part}_fates.parquet"


def write(
    part: str,
    traces: Iterable[tuple[str, Sequence[Point]]],
    fates: Sequence[Mapping[str, Any]],
    folder: Path = FOLDER,
) -> None:
    """Write both tables of a part.

    Args:
        part: Its name.
        traces: Run and its points.
        fates: A row a run; None where nothing is known.
        folder: Where to.
    """
    rows = [(run, p.name, p.discriminator_updates, p.value) for run, ps in traces for p in ps]
    run, name, update, value = zip(*rows, strict=True)
    columns = [
        pa.array(run).dictionary_encode(),
        pa.array(name).dictionary_encode(),
        pa.array(update, pa.int32()),
        pa.array(np.array(value, np.float32)),
    ]
    table = pa.Table.from_arrays(columns, schema=POINTS_SCHEMA)
    # Names and updates repeat from run to run, which only a strong compression sees.
    pq.write_table(table, points_path(part, folder), compression="zstd", compression_level=19)
    pq.write_table(
        pa.Table.from_pylist([dict(row) for row in fates]),
        fates_path(part, folder),
        compression="zstd",
    )


def read_fates(part: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Return the rows of a part's runs."""
    return pq.read_table(fates_path(part, folder)).to_pylist()


def read_traces(
    part: str, runs: Iterable[str] | None = None, folder: Path = FOLDER
) -> Iterator[tuple[str, list[Point]]]:
    """Yield runs, all or those named, with their points in the order of their recording.

    Counters other than discriminator updates, and clocks, are not kept: they are 0.
    """
    wanted = None if runs is None else set(runs)
    table = pq.read_table(points_path(part, folder))
    run = table["run"].combine_chunks()
    codes, names = run.indices.to_numpy(), run.dictionary.to_pylist()
    begins = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    for begin, end in zip(begins, begins[1:], strict=False):
        name = names[codes[begin]]
        if wanted is None or name in wanted:
            rows = table.slice(begin, end - begin)
            columns = (rows[c].to_pylist() for c in ("name", "update", "value"))
            yield name, [Point(n, 0, u, 0, 0.0, v) for n, u, v in zip(*columns, strict=True)]
