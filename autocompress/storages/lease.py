"""Who drives a shared study: leases, renewed while a driver lives, in the study itself."""

import dataclasses
import json
import logging
import os
import socket
import threading
import time
import uuid
from typing import Any, Final

import sqlalchemy

from autocompress.storages.run_lock import is_alive, started_at

PREFIX: Final = "driver:"
RENEW_S: Final = 10.0
EXPIRY_S: Final = 60.0
_logger = logging.getLogger(__name__)

ATTRIBUTES: Final = sqlalchemy.table(
    "study_user_attributes",
    sqlalchemy.column("study_id"),
    sqlalchemy.column("key"),
    sqlalchemy.column("value_json"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LeaseNote:
    """What a driver leaves in a shared study.

    Attributes:
        host: Its machine's name.
        machine: Tells machines, and containers, of the same name apart.
        pid: Its process.
        started: When that began, which tells it from a later one of the same number.
        seen: When the lease was last renewed, by the server's clock.
        is_over: Whether the driver ended by itself.
    """

    host: str
    machine: str
    pid: int
    started: float
    seen: float
    is_over: bool = False

    def is_held(self, now: float) -> bool:
        """Whether its driver lives, as far as can be seen from here.

        Args:
            now: The server's clock.
        """
        if self.is_over:
            return False
        if self.machine == _machine():
            return is_alive(self.pid, self.started)
        return now - self.seen <= EXPIRY_S

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Witness:
    """Sees leases expire: not at the first probed after an outage, when nobody could renew any."""

    def __init__(self) -> None:
        self._stale_since: dict[str, tuple[float, float]] = {}

    def has_expired(self, driver: str, lease: LeaseNote | None, now: float) -> bool:
        """Whether a driver is gone.

        A lease of another machine must have been seen unrenewed for a while of our own.

        Args:
            driver: Whose.
            lease: What it left; None if it left none.
            now: The server's clock.
        """
        if lease is None or lease.is_over:
            return True
        if lease.is_held(now):
            self._stale_since.pop(driver, None)
            return False
        if lease.machine == _machine():
            return True
        seen, since = self._stale_since.get(driver, (lease.seen, time.monotonic()))
        if seen != lease.seen:
            since = time.monotonic()
        self._stale_since[driver] = lease.seen, since
        return time.monotonic() - since >= 2.0 * RENEW_S


class Lease:
    """This process's lease on a study; renewed by a thread until it is given back.

    Args:
        storage: Optuna's, of the server.
        study_id: Optuna's number of the study.
    """

    def __init__(self, storage: Any, study_id: int) -> None:
        self.driver = uuid.uuid4().hex[:12]
        self._storage = storage
        self._study_id = study_id
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def take(self) -> None:
        """Write it, and renew it from now on.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: If it cannot be written.
        """
        self._write(is_over=False)
        self._thread.start()

    def give_back(self) -> None:
        """Say that this driver is done.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: If it cannot be written; it will expire then.
        """
        self._over.set()
        self._thread.join(timeout=RENEW_S)
        self._write(is_over=True)

    def _renew(self) -> None:
        while not self._over.wait(RENEW_S):
            try:
                self._write(is_over=False)
            except Exception as error:  # noqa: BLE001 - the server may be back in a moment
                _logger.debug("The lease could not be renewed: %s", error)

    def _write(self, *, is_over: bool) -> None:
        pid = os.getpid()
        note = LeaseNote(
            host=socket.gethostname(),
            machine=_machine(),
            pid=pid,
            started=started_at(pid) or 0.0,
            seen=server_time(self._storage.engine),
            is_over=is_over,
        )
        self._storage.set_study_user_attr(
            self._study_id, f"{PREFIX}{self.driver}", dataclasses.asdict(note)
        )


def read_leases(engine: sqlalchemy.Engine, study_id: int) -> dict[str, LeaseNote]:
    """All leases that were ever taken: driver -> what it left; those nobody can read are left out.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: If they cannot be read.
    """
    query = sqlalchemy.select(ATTRIBUTES.c.key, ATTRIBUTES.c.value_json).where(
        ATTRIBUTES.c.study_id == study_id, ATTRIBUTES.c.key.like(f"{PREFIX}%")
    )
    leases = {}
    with engine.connect() as connection:
        for key, text in connection.execute(query):
            try:
                leases[key.removeprefix(PREFIX)] = LeaseNote(**json.loads(text))
            except (TypeError, ValueError):
                continue
    return leases


def server_time(engine: sqlalchemy.Engine) -> float:
    """Seconds by the server's clock: those of drivers may differ.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: If it cannot be asked.
    """
    with engine.connect() as connection:
        return float(
            connection.execute(sqlalchemy.select(sqlalchemy.func.now())).scalar_one().timestamp()
        )


def _machine() -> str:
    """Where process numbers mean the same: host, its start, and the container."""
    parts = [socket.gethostname()]
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            parts.append(file.read().strip())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    except OSError:  # not Linux
        pass
    return ":".join(parts)
