"""Folders for a moment, and what becomes of them when a process is killed before it is over."""

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

_PREFIX: Final = "autocompress-"
_OLD_S: Final = 24 * 3600.0  # another container may share the folder, and not the process numbers


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that is gone when its context ends.

    A process that is killed leaves its own behind; a later one removes it a day after.
    """
    remove_left_behind()
    return tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-")


def remove_left_behind() -> None:
    """Remove folders, older than a day, of processes that are no more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not owner.isdecimal() or psutil.pid_exists(int(owner)):
            continue
        with contextlib.suppress(OSError):  # somebody else's, or gone by now
            if time.time() - folder.stat().st_mtime > _OLD_S:
                shutil.rmtree(folder)
