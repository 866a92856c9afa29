"""Options of a call, in Python's values or in the words of the command line, as a request."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Final

from autocompress.api.argument_types import checked_options
from autocompress.errors import AutocompressError, InputError
from autocompress.executors.registry import Resources
from autocompress.objective import OBJECTIVES, default_objectives, limits_of
from autocompress.quantities import parse_bytes, parse_seconds
from autocompress.runs.options import SearchRequest, default_threads
from autocompress.space.targets import load_target
from autocompress.study.stop_rules import StopRules

_OPTION: Final = re.compile(r"--([a-z][a-z-]*)")
_NAMES: Final = {"run": "name"}
_SETTINGS: Final = (
    *("threads", "runtime", "runtime_threads", "runtime_batch"),
    *("integer", "input_shapes", "device"),
)


def request_of(
    spec: str,
    arguments: Mapping[str, Any],
    results: Path,
    name: str | None,
    options: dict[str, Any],
) -> SearchRequest:
    """A request, with what `autocompress resume` needs to repeat it.

    Args:
        spec: Of the task.
        arguments: Of its factory; kept as text.
        results: Folder that holds the run folders.
        name: Of the run folder.
        options: As `autocompress.api.search.search` takes them.

    Raises:
        InputError: If one cannot be used.
    """
    options = _with_target(checked_options(options))
    timeout, storage, track = (options.pop(key) for key in ("timeout", "storage", "track"))
    kept = _kept(options)
    shapes = options["input_shapes"]
    settings = {key: kept[key] for key in _SETTINGS}
    settings["input_shapes"] = shapes
    memory = kept["trial_memory"]
    return SearchRequest(
        task=spec,
        arguments={key: _text(value) for key, value in arguments.items()},
        results=results,
        name=name,
        rules=StopRules(
            budget=kept["budget"],
            until_stalled=kept["until_stalled"],
            timeout_s=None if timeout is None else parse_seconds("--timeout", str(timeout)),
        ),
        resources=Resources(
            jobs=kept["jobs"],
            timeout_s=kept["trial_timeout"],
            memory_bytes=None if memory is None else parse_bytes("--trial-memory", memory),
            ray_address=kept["ray_address"],
        ),
        limits=limits_of({row.option: kept.get(row.option) for row in OBJECTIVES.values()}),
        without=_parts(kept["without"]),
        settings=settings,
        options=kept,
        storage=storage,
        track=(track,) if isinstance(track, str) else tuple(track or ()),
        **{key: kept[key] for key in ("seed", "space", "target", "objectives", "sampler")},
        **{key: kept[key] for key in ("proxy", "executor")},
    )


def _kept(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the command line writes them, with numbers in the units it takes."""
    kept = dict(options)
    for row in OBJECTIVES.values():
        value = kept.get(row.option)
        if value is not None and not isinstance(value, str):
            kept[row.option] = f"{value:.12g}{row.quantity.typed_unit}"
    memory = kept["trial_memory"]
    kept["trial_memory"] = None if memory is None else str(memory)
    kept["objectives"] = _joined(kept["objectives"])
    kept["without"] = _joined(kept["without"]) or None
    shapes = kept["input_shapes"]
    kept["input_shapes"] = [",".join(map(str, shape)) for shape in shapes or ()]
    space = Path(kept["space"]).expanduser()
    kept["space"] = str(space.absolute()) if space.is_file() else str(kept["space"])
    if kept["jobs"] < 1:
        raise InputError(f"`--jobs` must be at least 1, but got {kept['jobs']}.")
    if kept["threads"] is None:
        kept["threads"] = default_threads(kept["jobs"])
    return kept


def _with_target(options: dict[str, Any]) -> dict[str, Any]:
    """Options where the target decides those that were left open."""
    name = options["target"]
    target = None if name is None else load_target(name)
    defaults = {
        "runtime": (target and target.runtime) or "onnxruntime",
        "objectives": (target and target.objectives) or default_objectives(),
        "max_size": None if target is None or target.max_size is None else str(target.max_size),
    }
    opened = {key: value for key, value in defaults.items() if options[key] is None}
    if name is not None and Path(name).expanduser().is_file():
        opened["target"] = str(Path(name).expanduser().absolute())
    return {**options, **opened}


def _joined(names: str | Sequence[str] | Set[str] | None) -> str:
    if names is None or isinstance(names, str):
        return names or ""
    return ",".join(sorted(names) if isinstance(names, Set) else names)


def _parts(names: str | None) -> frozenset[str]:
    return frozenset(filter(None, (part.strip() for part in (names or "").split(","))))


def _text(value: object) -> str:
    return str(Path(value).absolute()) if isinstance(value, Path) else str(value)


def in_python_words(error: AutocompressError) -> AutocompressError:
    """The same error, with options of the command line called as arguments are.

    >>> in_python_words(InputError("`--max-drop` must lie in [0, 1].")).message
    '`max_drop` must lie in [0, 1].'
    """

    def named(found: re.Match[str]) -> str:
        name = found[1].replace("-", "_")
        return _NAMES.get(name, name)

    error.message = _OPTION.sub(named, error.message)
    error.hint = _OPTION.sub(named, error.hint)
    error.args = (error.message, error.hint)
    return error


@contextlib.contextmanager
def python_words() -> Iterator[None]:
    """Let errors from inside name arguments, not options of the command line."""
    try:
        yield
    except AutocompressError as error:
        in_python_words(error)
        raise
