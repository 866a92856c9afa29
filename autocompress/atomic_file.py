"""Files that are either whole or not there."""

import contextlib
import glob
import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

from autocompress.errors import InputError

_PREFIX: Final = "autocompress-"
_OLD: Final = ".old"
_TOKEN_BYTES: Final = 4
# Another container may share the folder, and not the process numbers.
_LEFT_BEHIND_S: Final = 24 * 3600.0


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
            if time.time() - folder.stat().st_mtime > _LEFT_BEHIND_S:
                shutil.rmtree(folder)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file beside its goal, flush it to disk, then rename it over the goal.

    A reader, or a crash at any moment, sees the old file or the new one and nothing in between.

    Args:
        path: Where to; missing folders are made.
        content: Bytes, or text for UTF-8; line ends are not translated.

    Raises:
        InputError: If the folder or file cannot be written, or if what is there is no file: a
            device would be replaced by one.
    """
    data = content.encode() if isinstance(content, str) else content
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        if path.exists() and not path.is_file():
            raise InputError(
                f"{str(path)!r} must be a file or not be there, but it is a device, a pipe or a "
                "folder.",
                "Choose another place.",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as error:
        raise InputError(
            f"{str(path)!r} must be writable, but: {error.strerror or error}.",
            "Choose another place, or free some space.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def replace_folder(draft: Path, goal: Path) -> None:
    """Put a finished folder in the place of another one, which is removed.

    If this is interrupted or fails, the old folder stays; if the process is killed in between, the
    next call for the same goal brings it back.

    Args:
        draft: Holds files only; on the same disk as `goal`.
        goal: A folder, or nothing yet.

    Raises:
        OSError: If it cannot be done.
    """
    restore_folder(goal)
    flush_folder(draft)
    old = goal.with_name(f".{goal.name}.{secrets.token_hex(_TOKEN_BYTES)}{_OLD}")
    try:
        if goal.exists():
            goal.rename(old)
        draft.rename(goal)
        _flush(goal.parent)
    except BaseException:  # Ctrl-C, too
        if old.exists() and not goal.exists():
            old.rename(goal)
        raise
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(goal: Path) -> None:
    """Bring back what a process that was killed while it replaced `goal` has left of it."""
    token = "[0-9a-f]" * 2 * _TOKEN_BYTES  # other folders with such an ending are somebody's
    for old in goal.parent.glob(f".{glob.escape(goal.name)}.{token}{_OLD}"):
        if goal.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(goal)


def flush_folder(folder: Path) -> None:
    """See to it that a folder's files are on the disk, before the folder is renamed.

    Args:
        folder: Holds files only.

    Raises:
        OSError: If one cannot be written.
    """
    for path in (*folder.iterdir(), folder):
        _flush(path)


def _flush(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
