"""Results that a command adds to a run folder one by one: a JSON file, by key, and a lock."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from autocompress.atomic_file import write_atomically
from autocompress.errors import InputError, RunLockedError, first_line

Results = dict[str, dict[str, Any]]

_FORMAT = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile:
    """Where results are kept; the study is never written.

    Attributes:
        folder: The run folder.
        name: Of the file, without its suffix; what the results are.
        fields: Of every result, `key` among them.
        being_done: What another process is at while it holds the lock: `validated`.
    """

    folder: Path
    name: str
    fields: tuple[str, ...]
    being_done: str

    @property
    def path(self) -> Path:
        """The JSON file."""
        return self.folder / f"{self.name}.json"

    def read(self) -> Results:
        """Results so far by their keys; none if there is no file.

        Raises:
            InputError: If the file is damaged.
        """
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
            if document["format"] != _FORMAT:
                raise ValueError(f"it must have format {_FORMAT}, but has {document['format']!r}")
            return {
                e["key"]: {field: e[field] for field in self.fields} for e in document["results"]
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self.unreadable(error) from error

    def unreadable(self, error: Exception) -> InputError:
        """The error of a file that is damaged."""
        return InputError(
            f"The earlier results in {self.path} cannot be read: {first_line(error)}.",
            "Restore the file, or delete it to start anew.",
        )

    def write(self, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace all results, whole or not at all."""
        document = {"format": _FORMAT, "results": list(results.values())}
        write_atomically(self.path, json.dumps(document, indent=1, allow_nan=False))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time; searching on is not hindered.

        Raises:
            RunLockedError: If another process holds the lock.
            InputError: If the folder cannot be written.
        """
        lock = filelock.FileLock(self.folder / f".{self.name}.lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise RunLockedError(
                f"The run {self.folder} is {self.being_done} by another process at the moment.",
                "Wait until it ends: the same command then continues.",
            ) from None
        except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
            raise InputError(
                f"The run folder {self.folder} must be writable and lockable, but: "
                f"{first_line(error)}."
            ) from error
        try:
            yield
        finally:
            lock.release()
