"""The database under a study: SQLite in write-ahead mode."""

import contextlib
import json
import os
import sqlite3
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy

from autocompress.errors import AutocompressError, InputError, StudyMismatchError, first_line

STUDY = "autocompress"
DATABASE_ERRORS = (
    optuna.exceptions.StorageInternalError,
    sqlalchemy.exc.SQLAlchemyError,
    sqlite3.Error,
)
DAMAGE = (
    *DATABASE_ERRORS,
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError),
    ValueError,
)
"""What SQLAlchemy, Optuna, JSON and we raise where a study holds what nobody wrote there."""
_BUSY_S = 30
_HAS_ATTRIBUTES = "SELECT 1 FROM sqlite_master WHERE name = 'study_user_attributes'"
_IDENTITY = "SELECT value_json FROM study_user_attributes WHERE key = 'identity'"
optuna.logging.set_verbosity(optuna.logging.ERROR)  # ours say it in one line


def open_storage(path: Path) -> optuna.storages.RDBStorage:
    """SQLite in write-ahead mode: readers never block the driver, and a kill loses nothing.

    Raises:
        StudyMismatchError: If another version of Optuna made it.
    """
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_S)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    storage = _storage(path, sqlalchemy.URL.create("sqlite", database=str(path)))
    sqlalchemy.event.listen(storage.engine, "connect", _set_pragmas)
    storage.engine.dispose()  # connections opened before the listener was there
    return storage


@contextlib.contextmanager
def reading(path: Path) -> Iterator[optuna.Study]:
    """A study that another process may be writing to, or that belongs to somebody else.

    Nothing is changed, so nothing can get in the driver's way.

    Raises:
        InputError: If it holds no run yet: Optuna would set about creating one.
        StudyMismatchError: If another version of Optuna made it.
    """
    if not read_identity(path):
        raise InputError(
            f"The study {path} holds no run of autocompress.",
            "If a search has only just been started there, repeat this in a moment.",
        )
    address, query = path.resolve().as_uri(), {**_how_to_read(path), "uri": "true"}
    url = sqlalchemy.URL.create("sqlite", database=address, query=query)
    storage = _storage(path, url, skip_table_creation=True)
    try:
        yield optuna.load_study(study_name=STUDY, storage=storage)
    finally:
        storage.engine.dispose()


@contextlib.contextmanager
def connected_to_read(path: Path) -> Iterator[sqlite3.Connection]:
    """A database, without Optuna and without changing anything.

    Raises:
        sqlite3.Error: If it cannot be opened.
    """
    uri = f"{path.resolve().as_uri()}?{urllib.parse.urlencode(_how_to_read(path))}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S)) as connection:
        yield connection


def read_identity(path: Path) -> dict[str, Any]:
    """What a study was made for, read without Optuna; empty if it does not say so.

    Raises:
        sqlite3.Error: If it cannot be read.
    """
    with connected_to_read(path) as connection:
        if connection.execute(_HAS_ATTRIBUTES).fetchone() is None:
            return {}
        found = connection.execute(_IDENTITY).fetchone()
    try:
        identity = json.loads(found[0]) if found else {}
    except (TypeError, ValueError):
        return {}
    return identity if isinstance(identity, dict) else {}


def _how_to_read(path: Path) -> dict[str, str]:
    """SQLite's options for reading a file.

    One that we may not write, and that has no log of its own, is read as it stands: SQLite would
    leave files beside it, which then belong to the reader and keep its owner out, or refuse.
    """
    has_log = path.with_name(f"{path.name}-wal").exists()
    is_fixed = not os.access(path, os.W_OK) and not has_log
    return {"mode": "ro", **({"immutable": "1"} if is_fixed else {})}


def _storage(path: Path, url: sqlalchemy.URL, **options: Any) -> optuna.storages.RDBStorage:
    engine = {"connect_args": {"timeout": _BUSY_S}}
    try:
        return optuna.storages.RDBStorage(url.render_as_string(), engine_kwargs=engine, **options)
    except RuntimeError as error:  # all that Optuna raises where the tables are of another version
        raise StudyMismatchError(
            f"The study {path} was made by another version of Optuna: {first_line(error)}",
            "Install that version; or keep a copy of the file, then upgrade it as Optuna says.",
        ) from error


@contextlib.contextmanager
def guarding(path: Path) -> Iterator[None]:
    """Turn what writing a run raises into one line.

    Args:
        path: The database.

    Raises:
        StudyMismatchError: If the database is damaged.
        AutocompressError: If it, or what goes with it, cannot be written, say because the disk is
            full.
    """
    try:
        yield
    except OSError as error:
        raise _unwritable(path.parent, first_line(error)) from error
    except json.JSONDecodeError as error:  # in a column that holds JSON
        raise unreadable(path, error) from error
    except DATABASE_ERRORS as error:
        cause = first_line(error.__cause__ or error)
        if "full" in cause or "readonly" in cause or "I/O" in cause or "locked" in cause:
            raise _unwritable(path, cause) from error
        raise unreadable(path, error) from error


def _unwritable(path: Path, cause: str) -> AutocompressError:
    return AutocompressError(
        f"The study {path} cannot be written: {cause}.",
        "Make room, then repeat the command: finished trials are kept.",
    )


def _set_pragmas(connection: Any, _: object) -> None:
    # NORMAL could lose the last trials to a power cut; a few fsyncs a trial are nothing.
    connection.execute("PRAGMA synchronous=FULL")


def unreadable(path: Path, error: Exception) -> StudyMismatchError:
    """The error for a database that cannot be opened or read."""
    return StudyMismatchError(
        f"The study {path} cannot be read: {first_line(error)}.",
        f"See what can be saved: autocompress doctor {path.parent}. Or start anew: `name=NAME`.",
    )
