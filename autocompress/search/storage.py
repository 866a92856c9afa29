"""The database under a study: SQLite in write-ahead mode."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy

from autocompress.errors import StudyMismatchError, first_line

STUDY = "autocompress"
FORMAT = 1
DATABASE_ERRORS = (
    optuna.exceptions.StorageInternalError,
    sqlalchemy.exc.SQLAlchemyError,
    sqlite3.Error,
)
_BUSY_S = 30
optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_storage(path: Path) -> optuna.storages.RDBStorage:
    """SQLite in write-ahead mode: readers never block the driver, and a kill loses nothing."""
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_S)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    url = sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _BUSY_S}})
    sqlalchemy.event.listen(storage.engine, "connect", _set_pragmas)
    storage.engine.dispose()  # connections opened before the listener was there
    return storage


def _set_pragmas(connection: Any, _: object) -> None:
    # NORMAL could lose the last trials to a power cut; a few fsyncs a trial are nothing.
    connection.execute("PRAGMA synchronous=FULL")


def unreadable(path: Path, error: Exception) -> StudyMismatchError:
    """The error for a database that cannot be opened or read."""
    return StudyMismatchError(
        f"The study {path} cannot be read: {first_line(error)}.",
        "Restore it from a backup, or start a new run with --run NAME.",
    )
