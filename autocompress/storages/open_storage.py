"""Where a run folder's study is."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import optuna
import sqlalchemy

from autocompress.errors import InputError, StudyMismatchError
from autocompress.storages.lease import read_leases, server_time
from autocompress.storages.own_files import check_own_files
from autocompress.storages.run_lock import driver_of
from autocompress.storages.server import (
    address_path,
    open_server,
    read_address,
    reading_server,
    shown,
    without_password,
)
from autocompress.storages.server_store import ServerStore
from autocompress.storages.sqlite import DATABASE_ERRORS, reading
from autocompress.storages.sqlite_store import SqliteStore
from autocompress.storages.store import Store


def is_run(folder: Path) -> bool:
    """Whether a folder holds a study, or says where it is."""
    return (folder / "study.db").is_file() or address_path(folder).is_file()


def run_folders(results: Path) -> list[Path]:
    """Run folders in a results folder, by name."""
    found = {
        path.parent for name in ("study.db", "storage.json") for path in results.glob(f"*/{name}")
    }
    return sorted(found)


def is_on_server(folder: Path) -> bool:
    """Whether a run's study is kept on a database server."""
    return address_path(folder).is_file()


def store_for(folder: Path, storage: sqlalchemy.URL | None, *, is_usual: bool = False) -> Store:
    """The store a search in a run folder is to use.

    Args:
        folder: The run folder; need not exist.
        storage: Address of a server; None for where the run is, or SQLite for a new one.
        is_usual: Whether the address is only where new runs go: those that are elsewhere stay.

    Raises:
        InputError: If what the folder says about it makes no sense.
        StudyMismatchError: If the run is on another server.
    """
    check_own_files(folder)
    if not is_on_server(folder):
        if storage is None or (is_usual and (folder / "study.db").exists()):
            return SqliteStore(folder)
        return ServerStore(storage, folder.name, folder)
    known, study = read_address(folder, given=storage)
    if is_usual:
        return ServerStore(known, study, folder)
    if storage is not None and without_password(storage) != without_password(known):
        raise StudyMismatchError(
            f"The run {folder} is kept in {shown(known)}, not in {shown(storage)}.",
            "Leave `storage` out to continue it, or start a new run with `name=NAME`.",
        )
    return ServerStore(storage or known, study, folder)


@contextlib.contextmanager
def reading_run(folder: Path) -> Iterator[optuna.Study]:
    """The study of a run folder, only read.

    Raises:
        InputError: If there is none, it cannot be reached, or the folder holds links.
        StudyMismatchError: If it was made by another version of Optuna.
    """
    check_own_files(folder)
    if is_on_server(folder):
        with reading_server(*read_address(folder)) as study:
            yield study
        return
    path = folder / "study.db"
    if not path.is_file():
        raise InputError(f"The run folder {folder} holds no study.db.", "Run a search first.")
    with reading(path) as study:
        yield study


def drivers_of(folder: Path) -> list[str]:
    """Who drives a run at the moment, in words; empty if nobody does, or it cannot be seen.

    Args:
        folder: The run folder.
    """
    if not is_on_server(folder):
        driver = driver_of(folder)
        return [] if driver is None else [driver]
    try:
        url, name = read_address(folder)
        storage = open_server(url, skip_table_creation=True)
        try:
            study_id = storage.get_study_id_from_name(name)
            leases, now = read_leases(storage.engine, study_id), server_time(storage.engine)
        finally:
            storage.engine.dispose()
    except (InputError, StudyMismatchError, KeyError, *DATABASE_ERRORS):
        return []
    return sorted(str(lease) for lease in leases.values() if lease.is_held(now))


_FILES: Final = ("study.db", "study.db-wal", "refinements.json", "validation.json")
_SERVER_S: Final = 10.0

Stamp = tuple[object, ...]
"""Compared with an earlier one only: where they are equal, nothing has changed."""


def change_stamp(folder: Path) -> Stamp:
    """What differs as soon as a run's study, or what lies beside it, has been written to.

    Made of the times and sizes of files, so that asking a hundred times a second neither locks nor
    reads anything. A study on a server has no file: there it changes every ten seconds.

    Args:
        folder: The run folder; need not exist.
    """
    stamps: list[object] = [_file_stamp(folder / name) for name in _FILES]
    if is_on_server(folder):
        stamps.append(time.monotonic() // _SERVER_S)
    return tuple(stamps)


def _file_stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    if found.st_size == 0:  # readers leave an empty log beside a study at rest
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
