"""What a run folder may hold: plain files of its own, and nothing that leads elsewhere."""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from autocompress.errors import InputError

_FILES: Final = (
    *("study.db", "study.db-wal", "study.db-shm", "study.db-journal", "trials.jsonl"),
    *("storage.json", "run.json", "refinements.json", "validation.json"),
    *(".lock", ".refinements.lock", ".validation.lock", ".driver.json"),
    *("trials.csv", "front.csv", "report.html"),
)
_FOLDERS: Final = ("candidates", "refined", "exports")


def check_own_files(folder: Path) -> None:
    """Refuse a run folder in which a name of ours is a link, a device or a pipe.

    A folder may come from somebody else. Through a link, writing a lock or a journal would empty or
    extend whatever file of the user's it names; a pipe would hang its reader. The folder itself may
    be a link: that is the user's own choice.

    Args:
        folder: The run folder, which need not exist.

    Raises:
        InputError: If one is; it says which, and what to do.
    """
    for name in (*_FILES, *_FOLDERS):
        _check(folder, name)
    for name in ("candidates", "refined"):
        with contextlib.suppress(OSError):
            for inside in os.listdir(folder / name):
                _check(folder, f"{name}/{inside}")


def _check(folder: Path, name: str) -> None:
    try:
        mode = (folder / name).lstat().st_mode
    except OSError:  # there is none, or it cannot be seen: opening it says so
        return
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # one in the other's place does no harm
        return
    what = "a link" if stat.S_ISLNK(mode) else "a device or a pipe"
    raise InputError(
        f"In the run folder {folder} {name!r} must be a file or a folder of its own, but it is "
        f"{what}.",
        "A folder from elsewhere could lead to files of yours in this way. If it is your own, put "
        "a copy in its place.",
    )
