"""SHA-256 checksums inside files, so that no damaged file yields a wrong number.

Each file carries its own checksum: file and checksum are then written by one rename and read by
one request, and a crash cannot separate them. Every format stays valid for its usual readers:

- JSON: the last key of the object, `sha256`, in a line of its own.
- JSON lines: a last line, `{"sha256": ...}`.
- Parquet: a line between the data and the footer, which readers skip.
- All others (archives of torch, PNG, YAML, text): a last line, `# sha256: ...`. It is the comment
  of a zip archive, it follows the last chunk of a PNG, and it is a comment in YAML.

The checksum covers all other bytes of the file.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import PurePath
from typing import IO, Any

DIGITS = 64
"""Hex digits of a SHA-256."""
CHUNK = 1 << 20
FOOTER = 8
"""Bytes at the end of a parquet file: the footer's length (4) and `PAR1`."""
RESTORE = "restore it from a copy"
FORMS = {
    ".json": (b'"sha256": "', b'"}\n'),
    ".jsonl": (b'{"sha256": "', b'"}\n'),
}
"""Suffix of a file's name -> what stands before and after the digits."""
LINE = (b"\n# sha256: ", b"\n")
LINE_LENGTH = sum(map(len, LINE)) + DIGITS


class DamagedFile(ValueError):
    """A file is not as it was written: a bit flipped, or something is missing.

    Attributes:
        path: The file.
        remedy: What the user can do, with the command if there is one.
    """

    def __init__(self, path: object, remedy: str = RESTORE, problem: str = "is damaged") -> None:
        """Name the file, the remedy, and how the file differs from what was written."""
        super().__init__(f"{path} {problem}; {remedy}")
        self.path, self.remedy, self.problem = path, remedy, problem

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what pickle rebuilds the exception from: Ray sends it between processes."""
        return type(self), (self.path, self.remedy, self.problem)


def add_checksum(name: str, content: bytes) -> bytes:
    """Return the content of the file `name` with its checksum.

    Args:
        name: The file's name; its suffix tells the format.
        content: All of the file; of a JSON file one object.
    """
    if name.endswith(".parquet"):
        start = _footer_start(content)
        if start is None:
            raise ValueError(f"{name} is no parquet file")
        return content[:start] + _line(LINE, content) + content[start:]
    body = content
    if name.endswith(".json"):
        body = content.rstrip().removesuffix(b"}").rstrip()
        body += b"\n" if body == b"{" else b",\n"
    return body + _line(_form(name), body)


def append_checksum(archive: io.BytesIO) -> None:
    """Append its checksum, as a comment, to a zip archive without one; nothing is copied."""
    with archive.getbuffer() as view:
        if bytes(view[-2:]) != b"\0\0":
            raise ValueError("the zip archive has a comment already")
        view[-2:] = LINE_LENGTH.to_bytes(2, "little")
        line = _line(LINE, view)
    archive.seek(0, io.SEEK_END)
    archive.write(line)


def strip_checksum(name: str, content: bytes) -> bytes:
    """Return a verified text, JSON lines or binary file without its checksum."""
    before, after = _form(name)
    return content[: -len(before) - DIGITS - len(after)]


def is_intact(name: str, content: bytes) -> bool:
    """Whether `content`, all bytes of the file `name`, fits the checksum that it carries."""
    view = memoryview(content)  # a slice of bytes would be a copy, of perhaps gigabytes
    if name.endswith(".parquet"):
        start = _footer_start(content)
        if start is None or start < LINE_LENGTH:
            return False
        whole = hashlib.sha256(view[: start - LINE_LENGTH])
        whole.update(view[start:])
        return content[start - LINE_LENGTH : start] == _line(LINE, whole.hexdigest())
    form = _form(name)
    line = content[-len(form[0]) - DIGITS - len(form[1]) :]
    return line == _line(form, view[: len(content) - len(line)])


def is_intact_table(file: IO[bytes]) -> bool:
    """Whether an open parquet file fits its checksum; reads it in parts and rewinds it."""
    size = file.seek(0, 2)
    file.seek(max(0, size - FOOTER))
    tail = file.read()
    start = size - FOOTER - int.from_bytes(tail[:4], "little")
    if size < FOOTER or not tail.endswith(b"PAR1") or start < LINE_LENGTH:
        return False
    digest = hashlib.sha256()
    file.seek(0)
    left = start - LINE_LENGTH
    while left and (part := file.read(min(CHUNK, left))):
        digest.update(part)
        left -= len(part)
    line = file.read(LINE_LENGTH)
    digest.update(file.read())
    file.seek(0)
    return line == _line(LINE, digest.hexdigest())


def has_checksum(content: bytes) -> bool:
    """Whether a parquet file carries a checksum; tables that users bring have none."""
    start = _footer_start(content)
    return start is not None and content[start - LINE_LENGTH : start].startswith(LINE[0])


def _footer_start(content: bytes) -> int | None:
    """Return where the footer of a parquet file begins, None where there is none."""
    if len(content) < FOOTER or not content.endswith(b"PAR1"):
        return None
    start = len(content) - FOOTER - int.from_bytes(content[-FOOTER:-4], "little")
    return start if start >= 4 else None


def _form(name: str) -> tuple[bytes, bytes]:
    return FORMS.get(PurePath(name).suffix, LINE)


def _line(form: tuple[bytes, bytes], content: bytes | memoryview | str) -> bytes:
    """Return the line with the digits, or with those of `content`."""
    digits = content if isinstance(content, str) else hashlib.sha256(content).hexdigest()
    return form[0] + digits.encode() + form[1]
