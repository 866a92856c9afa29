"""One driver at a time: the lock on a run folder."""

import json
import os
import socket
from pathlib import Path

import filelock

from autocompress.errors import InputError, RunLockedError, first_line


class RunLock:
    """Held by the process that drives a run; gone when that process is, however it dies.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = filelock.FileLock(folder / ".lock", timeout=0)

    def acquire(self) -> None:
        """Make the folder if it is missing, lock it, and leave a note of who drives it.

        Raises:
            InputError: If the folder cannot be written.
            RunLockedError: If another process drives this run.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            self._write_note()
        except filelock.Timeout:
            raise self._locked() from None
        except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
            self._lock.release()
            raise InputError(
                f"The run folder {self._folder} must be writable and lockable, but: "
                f"{first_line(error)}.",
                "Choose another place with --results FOLDER.",
            ) from error

    def release(self) -> None:
        """Let others drive."""
        self._lock.release()

    @property
    def _note(self) -> Path:
        return self._folder / ".driver.json"

    def _write_note(self) -> None:
        holder = {"host": socket.gethostname(), "pid": os.getpid()}
        self._note.write_text(json.dumps(holder), encoding="utf-8")

    def _locked(self) -> RunLockedError:
        try:
            holder = json.loads(self._note.read_text(encoding="utf-8"))
            who = f"process {holder['pid']} on {holder['host']}"
        except (OSError, ValueError, KeyError):
            who = "another process"
        message = f"The run {self._folder} is driven by {who} at the moment."
        return RunLockedError(message, "Wait until it ends, or start another run with --run NAME.")
