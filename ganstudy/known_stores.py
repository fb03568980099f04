"""Which tracking stores this user named for a study: those that a folder brings are not used.

A study's folder records where it is tracked. Whoever made the folder chose that address, and
results of this machine must not go there unless its user says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from ganstudy.provenance import redact
from ganstudy.storage import is_remote, name_of, write_text
from ganstudy.store import cache_folder

SQLITE = "sqlite:///"


def is_beside(study: Path, uri: str) -> bool:
    """Return whether `uri` is a file in the runs folder of `study`: nothing leaves that folder."""
    if not uri.startswith(SQLITE) or is_remote(study):
        return False
    runs = os.path.realpath(study.absolute().parent)
    store = os.path.realpath(uri.removeprefix(SQLITE).partition("?")[0])
    return Path(store).is_relative_to(runs)


def remember_store(study: Path, uri: str) -> None:
    """Note in the user's cache that the user named the store `uri` for `study`."""
    note = _note(study, uri)
    with contextlib.suppress(OSError):  # without a cache the user names it again
        note.parent.mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps({"study": name_of(study), "uri": redact(uri)}))


def is_known_store(study: Path, uri: str) -> bool:
    """Return whether `uri` lies beside `study`, or the user named it for this study before."""
    return is_beside(study, uri) or _note(study, uri).is_file()


def _note(study: Path, uri: str) -> Path:
    # Recorded are redacted addresses: one that lacks a user is the same as one with `***@`.
    plain = redact(uri).replace("***@", "")
    digest = hashlib.sha256(f"{name_of(study)}\n{plain}".encode()).hexdigest()[:32]
    return cache_folder() / "stores" / f"{digest}.json"
