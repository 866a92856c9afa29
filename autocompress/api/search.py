"""`autocompress.search(task, budget=50)`: what the command line does, from Python."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from autocompress.api.result import Result
from autocompress.api.task_spec import TaskLike, spec_of
from autocompress.errors import InputError
from autocompress.option_readers import whole_number
from autocompress.runs.search_task import search_task
from autocompress.search_options import SearchOptions, names_of
from autocompress.study.listener import Watch
from autocompress.study.records import load_run
from autocompress.tasks.base import Task
from autocompress.tasks.in_memory import is_in_memory, keep_in_memory
from autocompress.terminal.refine_progress import refine_as_asked
from autocompress.terminal.search_progress import SearchProgress


def search(
    task: TaskLike = "digits",
    *,
    budget: int = 50,
    name: str | None = None,
    results: str | Path = Path("results"),
    arguments: Mapping[str, Any] | None = None,
    seed: int = 0,
    space: str | Path = "default",
    target: str | None = None,
    objectives: str | Sequence[str] | None = None,
    max_size: int | str | None = None,
    max_drop: float | str | None = None,
    max_latency: float | str | None = None,
    until_stalled: int | None = None,
    timeout: float | str | None = None,
    sampler: str = "guided",
    proxy: str = "standard",
    without: str | Set[str] | Sequence[str] = frozenset(),
    jobs: int = 1,
    threads: int | None = None,
    runtime: str | None = None,
    runtime_threads: int = 1,
    runtime_batch: int = 1,
    integer: str = "auto",
    integer_weight_bits: int | None = None,
    input_shapes: Sequence[Sequence[int]] | None = None,
    device: str = "cpu",
    executor: str | None = None,
    trial_timeout: float | str = 7200.0,
    trial_memory: int | str | None = None,
    ray_address: str | None = None,
    storage: str | None = None,
    track: str | Sequence[str] = (),
    time: float | str | None = None,
    refine: int = 0,
    quiet: bool = False,
    watch: Watch | None = None,
) -> Result:
    """Search for the Pareto front of a task; the same call again continues the run.

    Args mean what they do for `autocompress search --help`. Numbers are in bytes, shares, seconds
    and, for latency, milliseconds; texts such as "100kB", "1%" or "2ms" will do as well.

    Args:
        task: A Task; a function that returns one; or a spec such as "my_task.py". A Task, and a
            function that no other process can import, is searched in this process (`executor`
            "inline"): one trial at a time, without a limit of its time.
        budget: Finished trials the run shall hold.
        name: Of the run folder; the task's by default.
        results: Folder that holds the run folders.
        arguments: Of the task's function.
        seed: Of everything random.
        space: Search-space file or name.
        target: What the device supports: a file or a name.
        objectives: Axes of the front; accuracy, size and latency by default.
        max_size: Largest packed file.
        max_drop: Accuracy that a point may lose.
        max_latency: Longest inference.
        until_stalled: So many searched trials without a better front end the search.
        timeout: Time after which it ends.
        sampler: guided, tpe, nsga2, gp or random.
        proxy: Tuning behind a trial: quick, standard, thorough, none, and settings of the recipe.
        without: Parts of the search to leave out.
        jobs: Trials at once.
        threads: Of a trial's training; all cores, shared by jobs, by default.
        runtime: Whose latency is measured; ONNX Runtime's by default.
        runtime_threads: Of the runtime.
        runtime_batch: Examples of an inference that is timed.
        integer: Grids of 8-bit activations: auto, static or dynamic.
        integer_weight_bits: Widest weights of layers that may compute in integers, 7 or 8; by
            default what the space, the target or else the runtime says.
        input_shapes: Shape of a timed example for each input, without the batch.
        device: Where to train.
        executor: local, inline or ray; decided by the task by default.
        trial_timeout: Seconds a trial may take.
        trial_memory: Memory a trial may hold.
        ray_address: The cluster.
        storage: Address of a database server.
        track: Who else is told of finished trials, such as "tensorboard" or "mlflow".
        time: Of the search and of training in full the points that dominate most, together.
        refine: So many points of the front are trained in full at the end.
        quiet: No progress.
        watch: Told about progress instead.

    Raises:
        AutocompressError: With a message and a hint; which one it is says the kind.
    """
    given = {key: value for key, value in locals().items() if key in names_of()}
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, Mapping):
        raise InputError(f"`arguments` must be names with their values, but got {arguments!r}.")
    spec = spec_of(task, arguments, jobs=whole_number("jobs", jobs))
    if is_in_memory(spec) and executor not in (None, "inline"):
        raise InputError(
            f"The executor {executor!r} needs a task that other processes can load, but this "
            "one exists in memory only.",
            "Leave `executor` out, or give 'my_task.py:function'.",
        )
    texts = {} if is_in_memory(spec) else {key: _text(value) for key, value in arguments.items()}
    options = SearchOptions.read(given, task=spec, arguments=texts)
    run = search_task(options, watch or SearchProgress(options, quiet=quiet))
    return Result(refine_as_asked(run, options, quiet=quiet))


def _text(value: object) -> str:
    return str(Path(value).absolute()) if isinstance(value, Path) else str(value)


def open_run(folder: str | Path, *, task: Task | None = None, trust: bool = False) -> Result:
    """Open a finished or unfinished run.

    Args:
        folder: The run folder, such as "results/digits".
        task: The Task it was made of, where that existed only in memory; export and refine check
            that it is the same.
        trust: Whether the run's task may be loaded, and so its code run, although it was not
            searched on this machine.

    Raises:
        AutocompressError: If there is no run, or it cannot be read.
    """
    from autocompress.tasks.trust import trust_task

    run = load_run(Path(folder).expanduser())
    spec = run.info["task"]
    if task is not None and not is_in_memory(spec):
        raise InputError(
            f"The run {run.name!r} was made of {spec!r}, which is loaded from there.",
            "Leave `task` out.",
        )
    if task is not None:
        keep_in_memory(task, spec)
    if trust:
        trust_task(spec, run.info["arguments"])
    return Result(run)
