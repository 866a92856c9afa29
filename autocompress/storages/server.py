"""Databases on a server: their addresses, how they are opened, and what is said when one fails."""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import optuna
import sqlalchemy

from autocompress.atomic_file import write_atomically
from autocompress.errors import (
    AutocompressError,
    InputError,
    RunLockedError,
    StudyMismatchError,
    first_line,
)
from autocompress.storages.sqlite import DATABASE_ERRORS
from autocompress.tasks.model_cache import cache_folder

_logger = logging.getLogger(__name__)

VARIABLE: Final = "AUTOCOMPRESS_STORAGE"
"""Environment variable that holds an address, so that its password need not be typed."""

_EXAMPLE = "Such as `storage=postgresql://user@host:5432/database`."
_PASSWORD_HINT = (
    f"The password may stand in the variable {VARIABLE}=postgresql://user:password@host/database, "
    "in PGPASSWORD, or in ~/.pgpass."
)
_LIBPQ: Final = ("psycopg", "psycopg2")
# An address may come with a run folder from elsewhere: nothing that names files but certificates.
_QUERY: Final = (
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "channel_binding", "require_auth"),
    *("connect_timeout", "application_name", "target_session_attrs", "options", "gssencmode"),
    *("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
)
_FOR_LIBPQ: Final = {
    "connect_timeout": "10",
    "application_name": "autocompress",
    # a server that lost its power is noticed
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
# a driver that lost its power must not hold a lock for hours, one that measures may hold it long
_FOR_SESSIONS: Final = (
    "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3 "
    "-c idle_in_transaction_session_timeout=0"
)


def parse_storage(text: str) -> sqlalchemy.URL:
    """An address as SQLAlchemy writes it: `postgresql://user:password@host:port/database`.

    Raises:
        InputError: If it is none, or one of a file; the message never shows a password.
    """
    wanted = "`storage` must be the address of a database server"
    try:
        url = sqlalchemy.make_url(text)
        url.get_dialect()
    except sqlalchemy.exc.NoSuchModuleError as error:  # names the dialect only
        raise InputError(f"{wanted}: {first_line(error)}.", _EXAMPLE) from None
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise InputError(f"{wanted}.", _EXAMPLE) from None
    except ImportError:
        pass  # said with the install command when it is opened
    if url.get_backend_name() == "sqlite":
        raise InputError(
            "`storage` is for database servers; a SQLite file is kept in the run folder anyway.",
            "Leave it out, and choose the folder with `results`.",
        )
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "postgresql" or url.get_driver_name() not in _LIBPQ:
        raise InputError(f"{wanted}: {url.drivername} is not supported.", _EXAMPLE)
    for key in sorted(url.query):
        if key not in _QUERY:
            raise InputError(
                f"{wanted}: its option {key!r} is not supported.",
                f"Supported are {', '.join(_QUERY)}.",
            )
    return url


def without_password(url: sqlalchemy.URL) -> sqlalchemy.URL:
    """The address to be kept and shown."""
    query = {key: value for key, value in url.query.items() if "pass" not in key}
    return url._replace(password=None).set(query=query)  # `set` takes None for no change


def shown(url: sqlalchemy.URL) -> str:
    """An address for messages."""
    return without_password(url).render_as_string()


def keep_address(folder: Path, url: sqlalchemy.URL, study: str) -> None:
    """Write into a run folder where its study is; without the password.

    Raises:
        InputError: If the folder cannot be written.
    """
    content = {"storage": without_password(url).render_as_string(), "study": study}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(address_path(folder), json.dumps(content, indent=2) + "\n")
        _remember(url)
    except OSError as error:
        raise InputError(
            f"The run folder {folder} must be writable, but: {first_line(error)}.",
            "Choose another place with `results=FOLDER`.",
        ) from error


def address_path(folder: Path) -> Path:
    """Where a run folder says on which server its study is."""
    return folder / "storage.json"


def read_address(folder: Path, given: sqlalchemy.URL | None = None) -> tuple[sqlalchemy.URL, str]:
    """Address and name of a run folder's study; the password is taken from the environment.

    A folder may come from somebody else, and a server learns at least a user's name and may ask
    for the password. So one that this user has not used on this machine is not connected to.

    Args:
        folder: The run folder.
        given: An address that the user has typed, which is theirs to trust.

    Raises:
        InputError: If the file makes no sense, or names a server that was not used here.
    """
    path = address_path(folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        url, study = parse_storage(content["storage"]), str(content["study"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} must name a storage and a study: {first_line(error)}.") from error
    if url.password is None and os.environ.get(VARIABLE):
        usual = parse_storage(os.environ[VARIABLE])
        if without_password(usual) == without_password(url):
            return usual, study
    is_typed = given is not None and without_password(given) == without_password(url)
    if not is_typed and not _is_known(url):
        raise InputError(
            f"The run {folder} is kept in {shown(url)}, which was not used on this machine.",
            f"If you know that server and trust it, set {VARIABLE}={shown(url)} and repeat this.",
        )
    return url, study


def _known_servers() -> Path:
    return cache_folder() / "servers.txt"


def _place(url: sqlalchemy.URL) -> str:
    """Which server, database and user an address means; equal for equal ones."""
    parts = [url.host, url.port or 5432, url.database, url.username]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _is_known(url: sqlalchemy.URL) -> bool:
    try:
        return _place(url) in _known_servers().read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return False


def _remember(url: sqlalchemy.URL) -> None:
    """Keep that the user has used a server, so that runs on it can be opened again."""
    if _is_known(url):
        return
    path = _known_servers()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(f"{_place(url)}\n".encode())
    except OSError as error:
        _logger.warning("Later commands on this run will need %s: %s.", VARIABLE, error)


def check_server(url: sqlalchemy.URL) -> None:
    """Connect once, to say at once what is wrong.

    Raises:
        InputError: If it cannot be reached, or its driver is not installed.
    """
    with _explained(url):
        _check_connection(url)


def open_server(url: sqlalchemy.URL, **options: Any) -> optuna.storages.RDBStorage:
    """Connect, and create Optuna's tables if the database has none.

    Raises:
        InputError: If it cannot be reached, or its driver is not installed.
        StudyMismatchError: If its tables are of another version of Optuna.
    """
    address = url.render_as_string(hide_password=False)
    address = address.replace("{", "%7B").replace("}", "%7D")  # Optuna fills in templates
    with _explained(url):
        _check_connection(url)
        # The first keeps no connection open that would be left behind by an error.
        unpooled = {**_engine_options(url), "poolclass": sqlalchemy.NullPool}
        for _ in range(2):  # of several that create the tables at once all but one fail
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
                optuna.storages.RDBStorage(address, {**unpooled}, **options)
                break
        else:
            optuna.storages.RDBStorage(address, unpooled, **options)
        options = {**options, "skip_table_creation": True}
        return optuna.storages.RDBStorage(address, _engine_options(url), **options)


@contextlib.contextmanager
def _explained(url: sqlalchemy.URL) -> Iterator[None]:
    """Turn what opening a database raises into one line."""
    try:
        yield
    except RuntimeError as error:  # all that Optuna raises where the tables are of another version
        raise StudyMismatchError(
            f"The storage {shown(url)} was made by another version of Optuna: {first_line(error)}.",
            "Install that version; or back the database up, then upgrade it as Optuna says.",
        ) from error
    except ImportError as error:
        is_postgresql = url.get_backend_name() == "postgresql"
        raise InputError(
            f"The storage {shown(url)} needs a driver that is not installed: {first_line(error)}.",
            "pip install 'autocompress[postgres]'." if is_postgresql else "Install it with pip.",
        ) from error
    except DATABASE_ERRORS as error:
        raise InputError(
            f"The storage {shown(url)} cannot be opened: {cause_of(error)}.", _PASSWORD_HINT
        ) from error


def _engine_options(url: sqlalchemy.URL) -> dict[str, Any]:
    """What connections are opened with; what the address says itself stands."""
    if url.get_backend_name() != "postgresql":
        return {"pool_pre_ping": True}
    ours = {key: value for key, value in _FOR_LIBPQ.items() if key not in url.query}
    given = url.query.get("options", "")
    options = f"{_FOR_SESSIONS} {given if isinstance(given, str) else ' '.join(given)}"
    return {"pool_pre_ping": True, "connect_args": {**ours, "options": options.strip()}}


def _check_connection(url: sqlalchemy.URL) -> None:
    engine = sqlalchemy.create_engine(url, **_engine_options(url))
    try:
        with engine.connect():
            pass
    finally:
        engine.dispose()


@contextlib.contextmanager
def reading_server(url: sqlalchemy.URL, name: str) -> Iterator[optuna.Study]:
    """A study on a server, only read.

    Raises:
        InputError: If it cannot be reached, or has no such study.
        StudyMismatchError: If its tables are of another version of Optuna.
    """
    storage = open_server(url, skip_table_creation=True)
    try:
        yield optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        raise InputError(f"The storage {shown(url)} holds no study {name!r}.") from error
    except DATABASE_ERRORS as error:
        raise StudyMismatchError(
            f"The study {name!r} in {shown(url)} cannot be read: {cause_of(error)}."
        ) from error
    finally:
        storage.engine.dispose()


def cause_of(error: Exception) -> str:
    """What the database itself said, in one line."""
    *_, root = _chain(error)
    text = first_line(getattr(root, "orig", None) or root)
    return text.replace("\n", " ")


def is_lost_connection(error: Exception) -> bool:
    """Whether the server was gone, and may come back."""
    return any(
        isinstance(found, _MAY_PASS)
        and (found.connection_invalidated or (_state(found) or "08")[:2] in _GONE)
        for found in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what was behind it: Optuna asks a dead session again, which hides the cause."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _state(error: sqlalchemy.exc.DBAPIError) -> str | None:
    """SQLSTATE, as psycopg or psycopg2 tells it."""
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)


_GONE: Final = ("08", "57", "53")  # classes of SQLSTATE: connection, operator, resources
_MAY_PASS = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)


def unreachable(name: str, error: Exception) -> AutocompressError:
    """The error for a server that went away and did not come back."""
    return AutocompressError(
        f"The study {name} cannot be reached: {cause_of(error)}.",
        "When the server is back repeat the command: finished trials are kept.",
    )


def still_locked(name: str, limit_s: float) -> RunLockedError:
    """The error for a turn that another driver does not end."""
    return RunLockedError(
        f"Another driver of the study {name} has held its lock for more than {limit_s:g} s.",
        "Look for one that hangs: autocompress studies.",
    )
