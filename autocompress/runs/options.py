"""What a search is asked for, checked before anything is loaded."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autocompress.errors import InputError
from autocompress.executors.registry import Resources
from autocompress.objective import LATENCY, Limits, default_objectives, parse_objectives
from autocompress.runs.tracking.registry import make_trackers
from autocompress.samplers.propose import check_sampler
from autocompress.storages.server import check_server, parse_storage
from autocompress.study.optimize import check_parts
from autocompress.study.session import n_usable_cores
from autocompress.study.stop_rules import StopRules
from autocompress.train.presets import parse_proxy


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """One search: which task, where to, how, and for how long.

    Attributes:
        task: The task's spec, as `load_task` takes it.
        arguments: Arguments of its factory.
        results: Folder that holds the run folders.
        rules: What ends the search.
        settings: Fields of `EvaluationSettings`, without those that the proxy decides.
        options: What `autocompress resume` needs to repeat the search: options of the command line
            by their names, as JSON.
        resources: What trials may take.
        name: Of the run folder; None for the task's.
        seed: Of everything random.
        space: Search-space file, or name of a shipped one.
        target: What the device supports: a file or a name; None for everything.
        objectives: Axes of the front, comma-separated.
        limits: What a point must keep.
        sampler: Name in `sampler.SAMPLERS`.
        proxy: Tuning behind a trial, as `parse_proxy` reads it.
        without: Parts of the search to leave out.
        executor: Name in `executors.table.EXECUTORS`.
        storage: Address of a database server; None for the run folder.
        is_usual_storage: Whether that is only where new runs go.
        track: Who else is told of finished trials, as `make_trackers` reads it.
    """

    task: str
    arguments: Mapping[str, str]
    results: Path
    rules: StopRules
    settings: Mapping[str, Any]
    options: Mapping[str, Any]
    resources: Resources = dataclasses.field(default_factory=Resources)
    name: str | None = None
    seed: int = 0
    space: str = "default"
    target: str | None = None
    objectives: str = dataclasses.field(default_factory=default_objectives)
    limits: Limits = dataclasses.field(default_factory=Limits)
    sampler: str = "guided"
    proxy: str = "standard"
    without: frozenset[str] = frozenset()
    executor: str = "local"
    storage: str | None = None
    is_usual_storage: bool = False
    track: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check everything that can be wrong before the task is loaded.

        Raises:
            InputError: If a name is unknown, a number outside its range, or the server away.
        """
        for name in ("threads", "runtime_threads", "runtime_batch"):
            value = self.settings.get(name, 1)
            if not 0 < value < float("inf"):
                raise InputError(f"`--{name.replace('_', '-')}` must be positive, but got {value}.")
        if self.name is not None and run_name(self.name) != self.name:
            raise InputError(
                f"`--run` must hold letters, digits, '-', '_' and '.' only, but got {self.name!r}.",
                "Choose the folder it lies in with --results.",
            )
        parse_objectives(self.objectives)
        check_sampler(self.sampler)
        check_parts(self.without)
        parse_proxy(self.proxy)
        make_trackers(self.track, self.results)  # are they there?
        if self.storage is not None:
            server = parse_storage(self.storage)
            if not self.is_usual_storage:
                check_server(server)

    def folder(self, task_name: str) -> Path:
        """The run folder."""
        return self.results / (self.name or run_name(task_name))


def run_name(task_name: str) -> str:
    """A task's name as that of a folder."""
    kept = (c if c.isalnum() or c in "-_." else "-" for c in task_name)
    return "".join(kept).strip(".") or "run"


def default_threads(jobs: int) -> int:
    """Threads of one trial: all cores, shared by the trials at once."""
    return max(1, n_usable_cores() // jobs)


def settled_integer(integer: str, folder: Path, objectives: str) -> str:
    """What `--integer auto` means, as far as it is known before anything is measured.

    A run keeps what it began with; where latency is no objective, trained grids do.

    Args:
        integer: What was asked for.
        folder: The run folder, which need not exist.
        objectives: As they were typed.
    """
    if integer != "auto":
        return integer
    try:
        kept = json.loads((folder / "run.json").read_bytes())["settings"]["integer"]
    except (OSError, ValueError, KeyError, TypeError):
        kept = None
    if kept in ("static", "dynamic"):
        return str(kept)
    return "auto" if LATENCY.name in objectives else "static"
