"""Read a study as plain data, without driving it."""

from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from autocompress.errors import InputError, StudyMismatchError
from autocompress.measurement import Measurement
from autocompress.objective import Limits, parse_objectives
from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord, State, TrialRecord
from autocompress.search.refined import refined_trials
from autocompress.search.storage import DATABASE_ERRORS, FORMAT, STUDY, open_storage, unreadable
from autocompress.space.search_space import Knob

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.PRUNED: "stopped",
}


def load_run(folder: Path) -> RunRecord:
    """Read a run folder without locking it.

    Raises:
        InputError: If the folder holds no study.
        StudyMismatchError: If its study is damaged or was not made by this version.
    """
    path = folder / "study.db"
    if not path.is_file():
        raise InputError(f"The run folder {folder} holds no study.db.", "Run a search first.")
    try:
        study = optuna.load_study(study_name=STUDY, storage=open_storage(path))
        if study.user_attrs.get("format") != FORMAT:
            raise StudyMismatchError(
                f"The study {path} must have format {FORMAT}, "
                f"but has {study.user_attrs.get('format')}."
            )
        return record_of(folder, study)
    except (*DATABASE_ERRORS, KeyError) as error:
        raise unreadable(path, error) from error


def record_of(folder: Path, study: optuna.Study) -> RunRecord:
    """A run's record from its opened study."""
    attributes = study.user_attrs
    identity = attributes["identity"]
    trials = tuple(_trial_record(trial) for trial in study.get_trials(deepcopy=False))
    return RunRecord(
        name=folder.resolve().name,
        folder=folder,
        objectives=parse_objectives(attributes["objectives"]),
        knobs=tuple(
            Knob(**{**k, "targets": tuple(k["targets"]), "levels": tuple(k["levels"])})
            for k in attributes["knobs"]
        ),
        trials=trials,
        info={**attributes["info"], **identity},
        # studies made before there were limits say nothing of them
        limits=Limits(**identity.get("limits", {})),
        fidelity=identity.get("fidelity", 1),
        refined=refined_trials(folder, trials),
    )


def _trial_record(trial: FrozenTrial) -> TrialRecord:
    attributes = trial.user_attrs
    is_complete = trial.state == TrialState.COMPLETE
    return TrialRecord(
        number=trial.number,
        role=attributes["role"],
        label=attributes["label"],
        state=_STATES[trial.state],
        levels=dict(trial.params),
        plan=CompressionPlan.from_json(attributes["plan"]),
        measurement=Measurement.from_json(attributes["measurement"]) if is_complete else None,
        reason=attributes.get("reason"),
    )
