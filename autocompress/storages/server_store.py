"""A study on a database server, which several drivers may share."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial

from autocompress.errors import RunLockedError, StudyMismatchError
from autocompress.objective import Direction
from autocompress.storages.lease import (
    ATTRIBUTES,
    Lease,
    Witness,
    read_leases,
    server_time,
)
from autocompress.storages.server import (
    cause_of,
    is_lost_connection,
    keep_address,
    open_server,
    shown,
    still_locked,
    unreachable,
)
from autocompress.storages.sqlite import DATABASE_ERRORS
from autocompress.storages.store import Result

_DELAYS_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 60.0, 60.0, 60.0)
_POLL_S, _LONG_POLL_S = 0.05, 1.0
_TURN_S = 120.0
_VERSIONS = sqlalchemy.table("version_info", sqlalchemy.column("schema_version"))
_logger = logging.getLogger(__name__)


class ServerStore:
    """One study on a server; each of its drivers holds a lease.

    Drivers take turns where it matters, by a lock on a row of the study's attributes, which the
    server takes back from a driver that dies.

    Args:
        url: Address of the database, password included.
        study: Name of the study there.
        folder: This driver's run folder, for what is not kept in the study.
    """

    is_shared = True

    def __init__(self, url: sqlalchemy.URL, study: str, folder: Path) -> None:
        self.name = f"{study!r} in {shown(url)}"
        self.driver = ""
        self._url = url
        self._study = study
        self._folder = folder
        self._witness = Witness()
        self._turn: sqlalchemy.Connection | None = None

    def open(
        self,
        directions: Sequence[Direction],
        claim: Callable[[optuna.Study], Mapping[str, Any]],
    ) -> optuna.Study:
        """See `Store`.

        Raises:
            InputError: If the server cannot be reached, or the folder not be written.
            StudyMismatchError: If it is another study.
        """
        if (self._folder / "study.db").exists():
            raise StudyMismatchError(
                f"The run folder {self._folder} holds a study of its own, in study.db.",
                "Leave `storage` out to continue it, or choose another `name`.",
            )
        self._storage = open_server(self._url)
        try:
            return self.attempt(lambda: self._open(directions, claim))
        except BaseException:
            self._storage.engine.dispose()
            raise

    def _open(
        self,
        directions: Sequence[Direction],
        claim: Callable[[optuna.Study], Mapping[str, Any]],
    ) -> optuna.Study:
        # One driver at a time probes whose study it is, and makes it its own.
        with self._mapped(), self._locked(sqlalchemy.select(_VERSIONS), _TURN_S):
            try:
                study = optuna.create_study(
                    study_name=self._study,
                    storage=self._storage,
                    directions=directions,
                    load_if_exists=True,
                )
            except ValueError as error:  # other directions
                raise StudyMismatchError(
                    f"The study {self.name} is another one: {error}"
                ) from error
            is_foreign = "identity" not in study.user_attrs and study.get_trials(deepcopy=False)
            if is_foreign or study.directions != _as_optuna(directions):
                raise StudyMismatchError(
                    f"The study {self.name} was not made by autocompress for these objectives.",
                    "Choose another name with `name`.",
                )
            for key, value in claim(study).items():
                study.set_user_attr(key, value)
        self._study_id = study._study_id
        keep_address(self._folder, self._url, self._study)
        self._lease = Lease(self._storage, self._study_id)
        self.driver = self._lease.driver
        with self._mapped():
            self._lease.take()
        return study

    def close(self) -> None:
        """Give the lease back: others may go on with what runs at once."""
        try:
            self._lease.give_back()
        except DATABASE_ERRORS as error:
            _logger.warning("The lease on %s will expire: %s.", self.name, cause_of(error))
        self._storage.engine.dispose()

    def attempt(self, action: Callable[[], Result], *, is_patient: bool = True) -> Result:
        """See `Store`; waits minutes for a server that is restarted."""
        if self._turn is not None:  # which would be lost: it is begun again as a whole
            with self._mapped():
                return action()
        for delay_s in (*(_DELAYS_S if is_patient else ()), None):
            try:
                with self._mapped():
                    return action()
            except _LostConnectionError as lost:
                if delay_s is None:
                    raise unreachable(self.name, lost.error) from lost.error
                _logger.warning(
                    "The study %s cannot be reached (%s): again in %d s.",
                    self.name, cause_of(lost.error), delay_s,
                )  # fmt: skip
                time.sleep(delay_s)
        raise AssertionError("unreachable")

    def in_turn(self, action: Callable[[], Result]) -> Result:
        """See `Store`."""
        return self.attempt(lambda: self._holding("identity", action))

    def check_turn(self) -> None:
        """See `Store`: a turn ends with its connection, and Optuna's would not notice."""
        assert self._turn is not None
        with self._mapped():
            self._turn.execute(sqlalchemy.select(1))

    def alone(self, action: Callable[[], object]) -> bool:
        """See `Store`."""

        def act() -> bool:
            with self._locked(self._row("knobs"), limit_s=0.0):
                action()
            return True

        try:
            return self.attempt(act)
        except RunLockedError:
            time.sleep(_LONG_POLL_S)
            return False

    def left_behind(self, trials: Sequence[FrozenTrial]) -> list[tuple[FrozenTrial, bool]]:
        """See `Store`: trials whose driver gave its lease back, let it expire, or is gone."""
        if not trials:
            return []
        leases, now = self.attempt(
            lambda: (
                read_leases(self._storage.engine, self._study_id),
                server_time(self._storage.engine),
            )
        )
        left = []
        for trial in trials:
            driver = trial.user_attrs.get("driver", "")
            lease = leases.get(driver)
            if driver == self.driver:  # begun, but the answer was lost
                left.append((trial, False))
            elif self._witness.has_expired(driver, lease, now):
                left.append((trial, lease is None or not lease.is_over))
        return left

    def write_attribute(self, key: str, value: Any) -> None:
        """See `Store`: servers have journals and backups of their own."""

    def write_trial(self, trial: FrozenTrial) -> None:
        """See `Store`: servers have journals and backups of their own."""

    def _holding(self, key: str, action: Callable[[], Result]) -> Result:
        """Do something while holding the row of one of the study's attributes."""
        with self._locked(self._row(key), _TURN_S) as connection:
            self._turn = connection
            try:
                return action()
            finally:
                self._turn = None

    def _row(self, key: str) -> Any:
        return sqlalchemy.select(ATTRIBUTES.c.key).where(
            ATTRIBUTES.c.study_id == self._study_id, ATTRIBUTES.c.key == key
        )

    @contextlib.contextmanager
    def _locked(self, row: Any, limit_s: float) -> Iterator[sqlalchemy.Connection]:
        """Hold a row on a connection of its own; asked for again and again, so Ctrl-C works."""
        query, began = row.with_for_update(skip_locked=True), time.monotonic()
        with self._storage.engine.connect() as connection:
            while connection.execute(query).first() is None:
                connection.rollback()
                if time.monotonic() - began >= limit_s:
                    raise still_locked(self.name, limit_s)
                time.sleep(_POLL_S)
            try:
                yield connection
            finally:
                with contextlib.suppress(sqlalchemy.exc.DBAPIError):  # taken back if it is lost
                    connection.rollback()

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn what the database raises into one line, or into what may be tried again."""
        try:
            yield
        except DATABASE_ERRORS as error:
            if is_lost_connection(error):
                raise _LostConnectionError(self.name, error) from error
            raise StudyMismatchError(
                f"The study {self.name} cannot be read or written: {cause_of(error)}."
            ) from error


class _LostConnectionError(Exception):
    """The server was gone; `error` is what was said.

    Args:
        name: Of the study.
        error: From the database.
    """

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(str(unreachable(name, error)))
        self.error = error


def _as_optuna(directions: Sequence[Direction]) -> list[optuna.study.StudyDirection]:
    return [optuna.study.StudyDirection[direction.upper()] for direction in directions]
