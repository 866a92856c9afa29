"""What `validate` left in a run folder. Light: tables and reports read it."""

import dataclasses
from pathlib import Path

from autocompress.errors import InputError, TrialError
from autocompress.measurement import Measurement
from autocompress.run_record import TrialRecord
from autocompress.search.result_file import ResultFile

_FIELDS = ("key", "trial", "plan_digest", "epochs", "seed", "processor", "measurement", "reason")


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
    return ResultFile(folder=folder, name="validation", fields=_FIELDS, being_done="validated")
