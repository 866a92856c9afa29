"""Which tasks a user has run on this machine: a run folder names code, and may be anybody's."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from autocompress.errors import InputError
from autocompress.tasks.factory import TASKS, is_named
from autocompress.tasks.in_memory import is_in_memory
from autocompress.tasks.model_cache import cache_folder

_logger = logging.getLogger(__name__)
_asked_here: set[str] = set()


def trust_task(spec: str, arguments: Mapping[str, str]) -> None:
    """Remember that the user asked for a task, so that runs made of it can be opened again.

    A folder that cannot be written is no error: this process remembers it all the same, and the
    log says what is lost.

    Args:
        spec: As a run keeps it: a file is absolute.
        arguments: Of its factory.
    """
    if is_trusted(spec, arguments):
        return
    path, digest = _path(), _digest(spec, arguments)
    _asked_here.add(digest)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(f"{digest}\n".encode())
    except OSError as error:
        _logger.warning("Later commands on this run will need `trust_task`: %s.", error)


def is_trusted(spec: str, arguments: Mapping[str, str]) -> bool:
    """Whether a task is one of this package, or was asked for on this machine before."""
    if spec in TASKS or is_in_memory(spec):  # nothing is imported for either
        return True
    digest = _digest(spec, arguments)
    if digest in _asked_here:
        return True
    try:
        return digest in _path().read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return False


def check_trusted(run: str, spec: str, arguments: Mapping[str, str]) -> None:
    """Refuse to load a task that nobody but a run folder asks for.

    Args:
        run: Name of the run.
        spec: As the run keeps it.
        arguments: Of its factory.

    Raises:
        InputError: If it was never asked for on this machine.
    """
    if not is_trusted(spec, arguments):
        named = "".join(f", {name!r}={value!r}" for name, value in arguments.items())
        raise InputError(
            f"The run {run!r} was made of the task {spec!r}{named}, which was not searched on this "
            "machine: to open it is to run that code.",
            "If you know it and trust it, repeat the command with `trust_task`.",
        )


def _path() -> Path:
    return cache_folder() / "tasks.txt"


def _digest(spec: str, arguments: Mapping[str, str]) -> str:
    """Equal for equal code: a file's path says where it is, a module is found from a folder."""
    is_somewhere = Path(spec.rpartition(":")[0] or spec).is_absolute() or is_named(spec)
    place = "" if is_somewhere else str(Path.cwd())
    return hashlib.sha256(json.dumps([spec, sorted(arguments.items()), place]).encode()).hexdigest()
