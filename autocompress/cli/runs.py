"""Find the run folder a command is about."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from autocompress.errors import InputError, unknown_name


def results_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--results FOLDER` to a command."""
    return click.option(
        "--results",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("results"),
        show_default=True,
        callback=lambda context, option, value: value.expanduser(),  # `--results=~/x`
        help="Folder that holds the run folders.",
    )(command)


def trust_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--trust-task` to a command that loads a run's task."""
    return click.option(
        "--trust-task",
        "is_trusted",
        is_flag=True,
        help="Load the run's task, and so run its code, although it was not searched on this "
        "machine.",
    )(command)


def load_trusted(run: str | None, results: Path, *, is_trusted: bool) -> Any:
    """The record of a run whose task is going to be loaded.

    Args:
        run: As `resolve_run` takes it.
        results: Folder that holds the run folders.
        is_trusted: Whether the user says that its task may be loaded.
    """
    from autocompress.study.records import load_run
    from autocompress.tasks.trust import trust_task

    record = load_run(resolve_run(run, results))
    if is_trusted:
        trust_task(record.info["task"], record.info["arguments"])
    return record


def resolve_run(run: str | None, results: Path) -> Path:
    """Folder of a run, by name or path; the newest one if none is named.

    Args:
        run: Name inside `results`, or a path, or None.
        results: Folder that holds the run folders.

    Raises:
        InputError: If there is no such run; names those there are.
    """
    from autocompress.storages.open_storage import is_run, run_folders

    found = {folder.name: folder for folder in run_folders(results)}
    if run is None:
        if not found:
            raise InputError(
                f"There is no run in {results} yet.", "Start one: autocompress search --budget 50"
            )
        return max(found.values(), key=_last_started)
    if run in found:
        return found[run]
    if is_run(Path(run)):
        return Path(run)
    if not found:
        raise InputError(f"There is no run {run!r} in {results}.", "Start one with --run.")
    raise unknown_name("run", run, found)


def _last_started(folder: Path) -> float:
    """When a search was last started in a folder; every session writes `run.json` anew."""
    try:
        return (folder / "run.json").stat().st_mtime
    except OSError:
        return 0.0
