"""A study in the run folder: one SQLite file, its lock and its journal."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from autocompress.errors import StudyMismatchError
from autocompress.objective import Direction
from autocompress.storages.journal import Journal
from autocompress.storages.run_lock import RunLock
from autocompress.storages.sqlite import STUDY, guarding, open_storage
from autocompress.storages.store import Result


class SqliteStore:
    """The study of one run folder and of one driver, which holds the folder's lock.

    Args:
        folder: The run folder; created if missing.
    """

    is_shared = False
    driver = ""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "study.db"
        self.name = str(self._path)
        self._lock = RunLock(folder)
        self._journal = Journal(folder)

    def open(
        self,
        directions: Sequence[Direction],
        claim: Callable[[optuna.Study], Mapping[str, Any]],
    ) -> optuna.Study:
        """See `Store`.

        Raises:
            InputError: If the folder cannot be written.
            RunLockedError: If another process drives this run.
            StudyMismatchError: If it is another study, damaged, or has lost trials.
        """
        self._lock.acquire()
        try:
            return self.attempt(lambda: self._open(directions, claim))
        except BaseException:
            self._lock.release()
            raise

    def _open(
        self,
        directions: Sequence[Direction],
        claim: Callable[[optuna.Study], Mapping[str, Any]],
    ) -> optuna.Study:
        is_new = not self._path.exists()
        if is_new or self._path.stat().st_size == 0:
            self._journal.check(())
        self._storage = open_storage(self._path)
        study = optuna.create_study(
            study_name=STUDY, storage=self._storage, directions=directions, load_if_exists=True
        )
        if "identity" not in study.user_attrs and not is_new and study.get_trials(deepcopy=False):
            raise StudyMismatchError(f"The study {self.name} was not made by autocompress.")
        told = {} if is_new else study.user_attrs
        for key, value in claim(study).items():
            study.set_user_attr(key, value)
        self._journal.check(study.get_trials(deepcopy=False), told)
        self._journal.catch_up(study)
        return study

    def close(self) -> None:
        """Close the database, so that its file alone is whole, and release the folder."""
        self._storage.engine.dispose()
        self._lock.release()

    def attempt(self, action: Callable[[], Result], *, is_patient: bool = True) -> Result:
        """See `Store`."""
        with guarding(self._path):
            return action()

    def in_turn(self, action: Callable[[], Result]) -> Result:
        """See `Store`: there is nobody else."""
        return self.attempt(action)

    def check_turn(self) -> None:
        """See `Store`: there is nobody else."""

    def alone(self, action: Callable[[], object]) -> bool:
        """See `Store`: there is nobody else."""
        action()
        return True

    def left_behind(self, trials: Sequence[FrozenTrial]) -> list[tuple[FrozenTrial, bool]]:
        """See `Store`: the driver before was killed if it left its note.

        One that was stopped, or found the disk full, says nothing against its trials.
        """
        return [(trial, self._lock.was_abandoned) for trial in trials]

    def write_attribute(self, key: str, value: Any) -> None:
        """See `Store`: a line of the journal."""
        self._journal.write_attribute(key, value)

    def write_trial(self, trial: FrozenTrial) -> None:
        """See `Store`: a line of the journal."""
        self._journal.write_trial(trial)
