"""What refinements left in a run folder: results and weights. Light: tables and reports read it."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from autocompress.atomic_file import write_atomically
from autocompress.errors import InputError, RunLockedError, TrialError, first_line
from autocompress.measurement import Measurement
from autocompress.run_record import TrialRecord
from autocompress.storages.own_files import check_own_files

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
                _checked_key(e["key"]): {field: e[field] for field in self.fields}
                for e in document["results"]
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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
        check_own_files(self.folder)
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


def _checked_key(key: str) -> str:
    """A digest, as files are named by it: anything else could lead to another folder."""
    if not re.fullmatch("[0-9a-f]{8,}", key):
        raise ValueError(f"a key must be a digest, but is {key!r}")
    return key


_VALIDATED = (
    "key",
    "trial",
    "plan_digest",
    "epochs",
    "seed",
    "processor",
    "measurement",
    "reason",
)


def validated_trials(folder: Path, trials: tuple[TrialRecord, ...]) -> tuple[TrialRecord, ...]:
    """The trials of a run that `validate` trained again, with what the longest training gave.

    A damaged file counts as none: it must not end a search. `validate` itself refuses it.
    """
    longest: dict[tuple[int, str], tuple[float, Measurement]] = {}
    try:
        for entry in validation_file(folder).read().values():
            if entry["measurement"] is None:
                continue
            key = (entry["trial"], entry["plan_digest"])
            epochs = float(entry["epochs"])
            if key not in longest or epochs > longest[key][0]:
                longest[key] = (epochs, Measurement.from_json(entry["measurement"]))
    except (TypeError, ValueError, AttributeError, InputError, TrialError):
        return ()
    found = ((trial, longest.get((trial.number, trial.plan.digest))) for trial in trials if longest)
    return tuple(
        dataclasses.replace(
            trial, label=f"{trial.label}, {result[0]:g} epochs", measurement=result[1]
        )
        for trial, result in found
        if result is not None
    )


def validation_file(folder: Path) -> ResultFile:
    """Where re-trainings of a run are kept, one for each trial and number of epochs."""
    return ResultFile(folder=folder, name="validation", fields=_VALIDATED, being_done="validated")


_FIELDS = ("key", "trial", "plan_digest", "recipe", "seed", "epochs", "measurement", "reason")


def refined_trials(folder: Path, trials: tuple[TrialRecord, ...]) -> tuple[TrialRecord, ...]:
    """The trials of a run that were refined, with their refined measurements.

    Raises:
        InputError: If `refinements.json` is damaged.
    """
    file = refinements_file(folder)
    entries = file.read().values()
    try:
        measured = {
            (e["trial"], e["plan_digest"]): Measurement.from_json(e["measurement"])
            for e in entries
            if e["measurement"] is not None
        }
    except (TypeError, ValueError, AttributeError, TrialError) as error:
        raise file.unreadable(error) from error
    numbers = {number for number, _ in measured}
    refined = (trial for trial in trials if trial.number in numbers)  # few of many
    found = ((trial, measured.get((trial.number, trial.plan.digest))) for trial in refined)
    return tuple(
        dataclasses.replace(trial, label=f"{trial.label}, refined", measurement=measurement)
        for trial, measurement in found
        if measurement is not None
    )


def refined_weights_path(folder: Path, number: int) -> Path | None:
    """Where the weights of a refined trial lie; None if it was not refined.

    Raises:
        InputError: If `refinements.json` is damaged.
    """
    entries = refinements_file(folder).read().values()
    keys = [e["key"] for e in entries if e["trial"] == number and e["measurement"] is not None]
    return refinement_path(folder, number, keys[0], "safetensors") if keys else None


def refinement_path(folder: Path, number: int, key: str, suffix: str) -> Path:
    """A file of one refinement: another of the same trial, with other options, has another."""
    return folder / "refined" / f"trial_{number:05d}-{key[:8]}.{suffix}"


def refinements_file(folder: Path) -> ResultFile:
    """Where refinements of a run are kept, one for each trial."""
    return ResultFile(folder=folder, name="refinements", fields=_FIELDS, being_done="refined")
