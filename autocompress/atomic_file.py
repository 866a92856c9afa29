"""Files that are either whole or not there."""

import contextlib
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


def flush_folder(folder: Path) -> None:
    """See to it that a folder's files are on the disk, before the folder is renamed.

    Args:
        folder: Holds files only.

    Raises:
        OSError: If one cannot be written.
    """
    for path in (*folder.iterdir(), folder):
        if path.is_dir() and os.name == "nt":  # a folder cannot be opened there
            continue
        descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
