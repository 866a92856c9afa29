"""What refinements left in a run folder: results and weights. Light: tables and reports read it."""

import dataclasses
from pathlib import Path

from autocompress.errors import TrialError
from autocompress.measurement import Measurement
from autocompress.run_record import TrialRecord
from autocompress.search.result_file import ResultFile

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
