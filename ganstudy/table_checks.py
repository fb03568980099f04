"""Parquet tables of a study, checked before they are decoded: types, rows and lengths of text.

A few kilobytes of parquet can describe billions of rows, or one long text in each of a million.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ganstudy.checksums import DamagedFile
from ganstudy.limits import explain_excess

MOST_CELLS = 200_000_000
"""Rows times columns of a table that is read as a whole."""
MOST_POINTS = 2_000_000_000
"""Rows of a table that is read in parts."""
CELLS_PER_BYTE = 100
"""Rows times columns for each byte of the file: constant columns take almost no space."""
FEW_CELLS = 10_000_000
"""Rows times columns that any file may tell of."""
NAME_BYTES = 1000
TEXT_BYTES = 100_000
ALL_TEXT_BYTES = 1024**3
NAMES = frozenset(
    {"trial_id", "arm", "config_id", "name", "study", "status", "result_hash", "kind"}
)
"""Text columns that hold names."""
SWEPT = ("param.", "best.", "last.")
"""How the columns begin that a study adds."""
UNREADABLE = (OSError, ValueError, KeyError, pa.ArrowException, OverflowError, MemoryError)
"""What reading a damaged or foreign parquet file raises."""
REMEDY = "delete it, and `ganstudy resume {study}` writes it anew, or get the study again"


def parse_table(
    path: Path,
    content: bytes | pa.Buffer,
    columns: Mapping[str, pa.DataType],
    required: Collection[str] = (),
) -> pa.Table:
    """Decode a parquet table.

    Args:
        path: Where it lies, for messages.
        content: All of the file.
        columns: Column -> type; those of the table may be of another width, and others may stand
            beside them.
        required: Columns that, where the table has them, must have a value in every row.

    Raises:
        DamagedFile: If it is no such table, or too large to be decoded.
    """
    schema = read_schema(path, content)
    try:
        check_types(path, schema, columns)
        texts = [name for name in schema.names if pa.types.is_string(schema.field(name).type)]
        file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts)
        check_size(path, file.metadata, len(content), MOST_CELLS // max(1, len(schema.names)))
        table = file.read()
        check_texts(path, table)
        for name in required:
            if name in table.column_names and table[name].null_count:
                raise _refused(path, f"has rows without {name}")
        kinds = [schema.field(i).with_type(_decoded(schema.types[i])) for i in range(len(schema))]
        return table.cast(pa.schema(kinds, metadata=schema.metadata))
    except DamagedFile:
        raise
    except UNREADABLE as error:
        raise _unreadable(path, error) from None


def read_schema(path: Path, content: bytes | pa.Buffer) -> pa.Schema:
    """Read the columns of a parquet table.

    Raises:
        DamagedFile: If it is none.
    """
    try:
        return pq.read_schema(pa.BufferReader(content))
    except UNREADABLE as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> DamagedFile:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return _refused(path, f"is no parquet table that can be read ({reason})")


def check_types(path: Path, schema: pa.Schema, columns: Mapping[str, pa.DataType]) -> None:
    """Refuse columns of a wrong type, or two of one name."""
    if len(set(schema.names)) < len(schema.names):
        raise _refused(path, "has two columns of one name")
    for field in schema:
        kind = _kind(field.type)
        if field.name in columns:
            allowed = {_kind(columns[field.name]), "null"}
        elif field.name.startswith(SWEPT):
            allowed = {"number", "text", "truth", "null"}
        else:
            continue
        if kind not in allowed:
            raise _refused(path, f"holds {field.type} in the column {field.name[:100]!r}")


def _kind(of: pa.DataType) -> str:
    if pa.types.is_dictionary(of):
        of = of.value_type
    if pa.types.is_string(of) or pa.types.is_large_string(of):
        return "text"
    if pa.types.is_integer(of) or pa.types.is_floating(of):
        return "number"
    if pa.types.is_boolean(of):
        return "truth"
    return "null" if pa.types.is_null(of) else "other"


def _decoded(of: pa.DataType) -> pa.DataType:
    return of.value_type if pa.types.is_dictionary(of) else of


def check_size(path: Path, metadata: pq.FileMetaData, stored: int, most_rows: int) -> None:
    """Refuse a table whose header tells of more than a file of its size holds."""
    cells = metadata.num_rows * max(1, metadata.num_columns)
    if metadata.num_rows > most_rows or cells > max(FEW_CELLS, CELLS_PER_BYTE * stored):
        raise _refused(path, f"tells of {metadata.num_rows} rows in {stored} bytes")
    groups = range(metadata.num_row_groups)
    size = sum(max(0, metadata.row_group(group).total_byte_size) for group in groups)
    problem = explain_excess(size, stored, copies=2)
    if problem:
        raise _refused(path, problem)


def check_texts(path: Path, table: pa.Table) -> None:
    """Refuse text that is too long, once or in all rows together.

    Args:
        path: Where the table lies.
        table: Its text columns are dictionaries, so that a repeated text is there once.
    """
    total = 0
    for field in table.schema:
        if not pa.types.is_dictionary(field.type):
            continue
        most = NAME_BYTES if field.name in NAMES else TEXT_BYTES
        for chunk in table[field.name].chunks:
            lengths = pc.binary_length(chunk.dictionary)
            if (pc.max(lengths).as_py() or 0) > most:
                raise _refused(path, f"holds a text of more than {most} bytes in {field.name}")
            total += pc.sum(lengths.take(chunk.indices.drop_null())).as_py() or 0
    if total > ALL_TEXT_BYTES:
        raise _refused(path, f"holds more than {ALL_TEXT_BYTES} bytes of text")


def _refused(path: Path, problem: str) -> DamagedFile:
    return DamagedFile(path, REMEDY.format(study=path.parent), problem)
