"""Whether a run has changed, without opening it."""

import time
from pathlib import Path
from typing import Final

from autocompress.search.stores.located import is_on_server

_FILES: Final = ("study.db", "study.db-wal", "refinements.json", "validation.json")
_SERVER_S: Final = 10.0

Stamp = tuple[object, ...]
"""Compared with an earlier one only: where they are equal, nothing has changed."""


def change_stamp(folder: Path) -> Stamp:
    """What differs as soon as a run's study, or what lies beside it, has been written to.

    Made of the times and sizes of files, so that asking a hundred times a second neither locks nor
    reads anything. A study on a server has no file: there it changes every ten seconds.

    Args:
        folder: The run folder; need not exist.
    """
    stamps: list[object] = [_file_stamp(folder / name) for name in _FILES]
    if is_on_server(folder):
        stamps.append(time.monotonic() // _SERVER_S)
    return tuple(stamps)


def _file_stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    if found.st_size == 0:  # readers leave an empty log beside a study at rest
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
