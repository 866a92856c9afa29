"""One driver at a time: the lock on a run folder."""

import contextlib
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import psutil

from autocompress.errors import InputError, RunLockedError, first_line
from autocompress.storages.own_files import check_own_files

_PATIENCE_S = 1.0  # a driver that comes has left no note yet, one that goes has none any more
_CLOCK_STEP_S = 5.0  # when a process began is told by a clock that may be set


class RunLock:
    """Held by the process that drives a run; gone when that process is, however it dies.

    Args:
        folder: The run folder.

    Attributes:
        was_abandoned: Whether the driver before, if there was one, was killed: it left its note.
    """

    def __init__(self, folder: Path) -> None:
        self.was_abandoned = False
        self._folder = folder
        self._lock = filelock.FileLock(folder / ".lock", timeout=_PATIENCE_S)

    def acquire(self) -> None:
        """Make the folder if it is missing, lock it, and leave a note of who drives it.

        Raises:
            InputError: If the folder cannot be written, or holds links.
            RunLockedError: If another process drives this run.
        """
        try:
            check_own_files(self._folder)
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            self.was_abandoned = _note_of(self._folder).exists()
            self._write_note()
        except filelock.Timeout:
            raise self._locked() from None
        except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
            self._lock.release()
            raise InputError(
                f"The run folder {self._folder} must be writable and lockable, but: "
                f"{first_line(error)}.",
                "Choose another place with `results=FOLDER`.",
            ) from error

    def release(self) -> None:
        """Let others drive."""
        with contextlib.suppress(OSError):
            _note_of(self._folder).unlink()
        self._lock.release()

    def _write_note(self) -> None:
        note = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": started_at(os.getpid()),
        }
        _note_of(self._folder).write_text(json.dumps(note), encoding="utf-8")

    def _locked(self) -> RunLockedError:
        note = _read_note(self._folder)
        who = "another process" if note is None else _words(note)
        message = f"The run {self._folder} is driven by {who} at the moment."
        return RunLockedError(message, "Wait until it ends, or start another run with `name=NAME`.")


def driver_of(folder: Path) -> str | None:
    """Who drives a run at the moment, in words; None if nobody does.

    Read off the note a driver leaves, without touching the lock: that of a process which is gone
    does not count, nor does one whose number another process has now. Whether a process on another
    host lives cannot be seen from here.

    Args:
        folder: The run folder.
    """
    note = _read_note(folder)
    if note is None:
        return None
    if note["host"] == socket.gethostname() and not is_alive(note["pid"], note["started"]):
        return None
    return _words(note)


def _note_of(folder: Path) -> Path:
    return folder / ".driver.json"


def _read_note(folder: Path) -> dict[str, Any] | None:
    try:
        note = json.loads(_note_of(folder).read_text(encoding="utf-8"))
        return {
            "host": str(note["host"]),
            "pid": int(note["pid"]),
            "started": float(note["started"]),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _words(note: Mapping[str, Any]) -> str:
    return f"process {note['pid']} on {note['host']}"


def is_alive(pid: int, started: float) -> bool:
    """Whether a process of this machine lives, and began when that one did."""
    now = started_at(pid)
    return now is not None and abs(now - started) < _CLOCK_STEP_S


def started_at(pid: int) -> float | None:
    """When a process of this machine began, in seconds since the epoch; None if it is gone."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None
