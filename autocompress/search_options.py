"""The options of a search, each written once: its default, its meaning, and how a value is read.

The command line makes its flags from these fields, and `autocompress.search` takes arguments of the
same names. To add an option, add a field here; `test_search_options.py` holds the three equal.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from autocompress import option_readers as read
from autocompress.errors import InputError
from autocompress.objective import OBJECTIVES, Limits, all_costs, default_objectives
from autocompress.option_readers import Reader

Role = Literal["identity", "setting", "kept", "session"]
"""Who keeps an option.

`identity`: a study is continued only with the same value. `setting`: so, too, as a field of
`EvaluationSettings`. `kept`: `resume` repeats it, but it may change. `session`: forgotten.
"""
GROUPS: Final = (
    "What is searched",
    "When it ends",
    "Limits",
    "How it searches",
    "How trials are tuned and measured",
    "Where trials run",
)
_WHAT, _WHEN, _LIMITS, _HOW, _MEASURING, _WHERE = GROUPS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What is known about one field of `SearchOptions` beside its default.

    Attributes:
        help: One or two sentences for people.
        read: How a value is read from text, or checked when it comes from Python.
        group: One of `GROUPS`.
        role: Who keeps it.
        flag: Its name on the command line, if that is not the field's with dashes.
        metavar: What stands for a value in `--help`.
        shown_default: What `--help` says of a default that depends on something.
        environment: Environment variable that sets it on the command line; empty for none.
    """

    help: str
    read: Reader
    group: str
    role: Role = "kept"
    flag: str = ""
    metavar: str | None = None
    shown_default: str = ""
    environment: str = ""


def _option(default: Any, group: str, reader: Reader, text: str, **more: Any) -> Any:
    option = Option(help=text, read=reader, group=group, **more)
    return dataclasses.field(default=default, metadata={"option": option})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """One search: which task, where to, how, and for how long.

    >>> options = SearchOptions.read({"budget": 8, "max_size": "100kB"})
    >>> options.max_size, options.limits
    (100000, Limits(max_size_bytes=100000))

    Attributes:
        task: The task's spec, as `load_task` takes it.
        arguments: Arguments of its factory, as text.
        is_usual_storage: Whether `storage` is only where new runs go.
    """

    task: str = "digits"
    arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    name: str | None = _option(
        None, _WHAT, read.TEXT, "Name of the run folder.",
        role="session", flag="--run", metavar="NAME", shown_default="the task's name",
    )  # fmt: skip
    results: Path = _option(  # noqa: RUF009 - a field, like the others
        Path("results"), _WHAT, read.FOLDER, "Folder that holds the run folders.",
        role="session", metavar="DIRECTORY",
    )  # fmt: skip
    space: str = _option("default", _WHAT, read.FILE_OR_NAME, "Search-space file or name.")
    target: str | None = _option(
        None, _WHAT, read.FILE_OR_NAME,
        "What the device supports: a YAML file, or x86-onnxruntime, x86-onnxruntime-vnni, "
        "x86-openvino-amx, arm-xnnpack, storage-only. Plans outside it are not proposed.",
        metavar="TARGET",
    )  # fmt: skip
    objectives: str | None = _option(
        None, _WHAT, read.NAMES, "Axes of the front: accuracy, and at least one of "
        f"{', '.join(cost.name for cost in all_costs())}.",
        metavar="NAMES", shown_default=f"{default_objectives()}, or the target's",
    )  # fmt: skip
    seed: int = _option(0, _WHAT, read.WHOLE, "Seed of everything random.", role="identity")

    budget: int = _option(
        50, _WHEN, read.at_least(1),
        "Total number of finished trials, the baseline and the controls included.",
    )  # fmt: skip
    until_stalled: int | None = _option(
        None, _WHEN, read.at_least(1),
        "End when N searched trials in a row have not enlarged the front's hypervolume by 0.1 %.",
        metavar="N",
    )  # fmt: skip
    timeout: float | None = _option(
        None, _WHEN, read.SECONDS, "End after this time, such as 30m or 2h.",
        role="session", metavar="TIME",
    )  # fmt: skip
    time: float | None = _option(
        None, _WHEN, read.SECONDS,
        "Search, train in full the points that dominate most, and end after about this time in "
        "all, such as 2h; what earlier sessions used counts.",
        metavar="TIME",
    )  # fmt: skip
    refine: int = _option(
        0, _WHEN, read.at_least(0),
        "Then train in full the K points of the front that dominate most; see `refine`.",
        metavar="K",
    )  # fmt: skip

    max_size: int | None = _option(
        None, _LIMITS, read.SIZE, OBJECTIVES["size"].limit_help,
        metavar="SIZE",
    )  # fmt: skip
    max_drop: float | None = _option(
        None, _LIMITS, read.DROP, OBJECTIVES["accuracy"].limit_help,
        metavar="SHARE",
    )  # fmt: skip
    max_latency: float | None = _option(
        None, _LIMITS, read.MILLISECONDS, OBJECTIVES["latency"].limit_help,
        metavar="TIME",
    )  # fmt: skip

    sampler: str = _option(
        "guided", _HOW, read.TEXT,
        "guided (sensitivity table, Gaussian process, expected hypervolume improvement), tpe, "
        "nsga2, gp or random.",
        role="identity",
    )  # fmt: skip
    without: frozenset[str] = _option(
        frozenset(), _HOW, read.PARTS,
        "Parts of the search to leave out: sensitivity_table, initial_design, surrogate, "
        "early_stopping.",
        role="identity", metavar="PARTS",
    )  # fmt: skip

    proxy: str = _option(
        "standard", _MEASURING, read.TEXT,
        "Tuning behind a trial: quick, standard, thorough or none, and settings of the recipe, "
        "such as quick,learning_rate=0.001.",
    )  # fmt: skip
    runtime: str | None = _option(
        None, _MEASURING, read.TEXT,
        "Who runs what is timed: onnxruntime, openvino, openvino_bf16, executorch, torch_export.",
        role="setting", shown_default="onnxruntime, or the target's",
    )  # fmt: skip
    runtime_threads: int = _option(
        1, _MEASURING, read.at_least(1), "Threads of the runtime.", role="setting"
    )
    runtime_batch: int = _option(
        1, _MEASURING, read.at_least(1), "Examples of an inference that is timed.", role="setting"
    )
    integer: str = _option(
        "auto", _MEASURING, read.one_of("auto", "static", "dynamic"),
        "Grids of quantized activations: the trained ones (static), or one for each inference "
        "(dynamic: products and LSTMs in ONNX Runtime). auto: what is faster.",
        role="setting",
    )  # fmt: skip
    integer_weight_bits: int | None = _option(
        None, _MEASURING, read.one_of_numbers(7, 8),
        "Widest weights of layers that may compute in integers. 7 gives the same results on every "
        "processor; with 8, kernels for x86 without VNNI saturate.",
        shown_default="7; 8 for executorch and where the target says so",
    )  # fmt: skip
    input_shapes: tuple[tuple[int, ...], ...] | None = _option(
        None, _MEASURING, read.SHAPES,
        "Shape of a timed example, without the batch; once for each input.",
        role="setting", flag="--input-shape", metavar="N,N,...", shown_default="the task's",
    )  # fmt: skip
    threads: int | None = _option(
        None, _MEASURING, read.at_least(1), "Threads of a trial's training.",
        role="setting", shown_default="all cores, shared by jobs",
    )  # fmt: skip
    device: str = _option("cpu", _MEASURING, read.TEXT, "Where to train.", role="setting")

    jobs: int = _option(1, _WHERE, read.at_least(1), "Trials at once.")
    trial_timeout: float = _option(
        7200.0, _WHERE, read.SECONDS, "Time a trial may take.", metavar="TIME"
    )
    trial_memory: int | None = _option(
        None, _WHERE, read.SIZE, "Memory a trial may hold, such as 4GB.",
        metavar="SIZE", shown_default="no limit",
    )  # fmt: skip
    executor: str | None = _option(
        None, _WHERE, read.TEXT,
        "Evaluate in worker processes (local), in this one (inline), or on a Ray cluster (ray).",
        shown_default="local; inline for a task that lives in this process only",
    )  # fmt: skip
    ray_address: str | None = _option(
        None, _WHERE, read.TEXT, "Ray cluster.", metavar="HOST:PORT", shown_default="this machine"
    )
    storage: str | None = _option(
        None, _WHERE, read.TEXT,
        "Keep the study on a database server, such as postgresql://user@host/database, where "
        "several searches share its budget.",
        role="session", metavar="URL", shown_default="SQLite in the run folder",
        environment="AUTOCOMPRESS_STORAGE",
    )  # fmt: skip
    track: tuple[str, ...] = _option(
        (), _WHERE, read.TEXTS,
        "Write each trial for another tool, too; may be repeated. mlflow[:URI] into results/"
        "mlruns (or MLFLOW_TRACKING_URI), tensorboard[:FOLDER] into the run folder, unless told "
        "otherwise. A tool that fails does not end the search.",
        role="session", metavar="NAME[:WHERE]",
    )  # fmt: skip
    is_usual_storage: bool = False

    @classmethod
    def read(cls, given: Mapping[str, Any], **more: Any) -> "SearchOptions":
        """Options from values of Python's or from text.

        Args:
            given: Field -> value; None where nothing was said and the default is None.
            more: Fields that are no options: `task`, `arguments`, `is_usual_storage`.

        Raises:
            InputError: If a value is of the wrong type or outside its range; names the field.
        """
        return cls(**{name: _read(name, value) for name, value in given.items()}, **more)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any], **more: Any) -> "SearchOptions":
        """Options as a run keeps them, those of earlier versions included.

        Args:
            kept: From `to_json`, or what an earlier version wrote: quantities as text.
            more: Other fields, which go before.

        Raises:
            InputError: If there is an unknown one, or a value makes no sense.
        """
        if not isinstance(kept, Mapping):
            raise InputError("It keeps no options.")
        unknown = sorted(kept.keys() - set(names_of("identity", "setting", "kept")))
        if unknown:
            raise InputError(f"It keeps an option {unknown[0]!r}, which does not exist.")
        values = {name: _read(name, value) for name, value in kept.items()}
        return cls(**{**values, **more})

    def changed(self, given: Mapping[str, Any], **more: Any) -> "SearchOptions":
        """These options with others in their place; both as `read` takes them.

        Raises:
            InputError: If a value is of the wrong type or outside its range; names the field.
        """
        values = {name: _read(name, value) for name, value in given.items()}
        return dataclasses.replace(self, **values, **more)

    def to_json(self) -> dict[str, Any]:
        """What `resume` needs to repeat the search, as JSON."""
        return {
            name: _plain(getattr(self, name)) for name in names_of("identity", "setting", "kept")
        }

    def identity(self) -> dict[str, Any]:
        """What must stay the same for a study to be continued, beside the settings."""
        return {name: _plain(getattr(self, name)) for name in names_of("identity")}

    def settings(self) -> dict[str, Any]:
        """Fields of `EvaluationSettings`, without those that the proxy decides."""
        return {name: getattr(self, name) for name in names_of("setting")}

    @property
    def limits(self) -> Limits:
        """What a point must keep to count."""
        rows = OBJECTIVES.values()
        return Limits(**{row.limit: getattr(self, row.option, None) for row in rows})


def _fields() -> dict[str, dataclasses.Field[Any]]:
    fields = dataclasses.fields(SearchOptions)
    return {field.name: field for field in fields if "option" in field.metadata}


def option_of(name: str) -> Option:
    """What is known about an option beside its default."""
    option: Option = _fields()[name].metadata["option"]
    return option


def default_of(name: str) -> Any:
    """The default of an option."""
    return _fields()[name].default


def names_of(*roles: Role) -> tuple[str, ...]:
    """Names of the options with one of these roles, or of all; in the order of the fields."""
    return tuple(n for n in _fields() if not roles or option_of(n).role in roles)


def _read(name: str, value: object) -> Any:
    if value is None and default_of(name) is None:
        return None
    return option_of(name).read(name, value)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, frozenset):
        return sorted(value)
    return str(value) if isinstance(value, Path) else value
