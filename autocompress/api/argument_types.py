"""Arguments of Python calls have the types that their annotations promise, or one line says so."""

import numbers
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from autocompress.errors import InputError
from autocompress.objective import OBJECTIVES

_WHOLE: Final = ("budget", "seed", "jobs", "runtime_threads", "runtime_batch", "refine")
_WHOLE_OR_NONE: Final = ("threads", "until_stalled")
_TEXTS: Final = ("sampler", "proxy", "integer", "device")
_TEXTS_OR_NONE: Final = ("runtime", "executor", "ray_address", "storage")
_PATHS: Final = ("space", "target")
_QUANTITIES: Final = (*(row.option for row in OBJECTIVES.values()), "timeout", "trial_memory")
_COLLECTIONS: Final = ("objectives", "without", "track")


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `search`, each of its type; whole numbers of any library as those of Python.

    Raises:
        InputError: If one is of another type.
    """
    checked = dict(options)
    for name in _WHOLE:
        checked[name] = whole_number(name, options[name])
    for name in _WHOLE_OR_NONE:
        if options[name] is not None:
            checked[name] = whole_number(name, options[name])
    checked["trial_timeout"] = number("trial_timeout", options["trial_timeout"])
    checked["input_shapes"] = _shapes(options["input_shapes"])
    for name in (*_TEXTS, *_TEXTS_OR_NONE):
        value = options[name]
        is_left_out = value is None and name in _TEXTS_OR_NONE
        _check(name, "a text", value, holds=isinstance(value, str) or is_left_out)
    for name in _PATHS:
        path(name, options[name], may_be_none=name == "target")
    for name in _QUANTITIES:
        value = options.get(name)
        holds = value is None or isinstance(value, str) or _is_number(value)
        _check(name, "a number, or a text with its unit", value, holds=holds)
    for name in _COLLECTIONS:
        value = options[name]
        holds = value is None or isinstance(value, str)
        if not holds and isinstance(value, Collection):
            holds = all(isinstance(part, str) for part in value)
        _check(name, "a text or several", value, holds=holds)
    return checked


def whole_number(name: str, value: object) -> int:
    """A whole number.

    Raises:
        InputError: If it is anything else.

    >>> whole_number("budget", 2.5)
    Traceback (most recent call last):
    autocompress.errors.InputError: `budget` must be a whole number, but got 2.5.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise _of_another_type(name, "a whole number", value)
    return int(value)


def number(name: str, value: object) -> float:
    """A number.

    Raises:
        InputError: If it is anything else.
    """
    if not _is_number(value):
        raise _of_another_type(name, "a number", value)
    return float(value)  # type: ignore[arg-type]


def path(name: str, value: object, *, may_be_none: bool = False) -> None:
    """Check that something is a text or a path.

    Raises:
        InputError: If it is anything else.
    """
    holds = isinstance(value, str | Path) or (may_be_none and value is None)
    _check(name, "a text or a path", value, holds=holds)


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _shapes(value: Any) -> tuple[tuple[int, ...], ...] | None:
    if value is None:
        return None
    try:
        shapes = tuple(tuple(whole_number("", size) for size in shape) for shape in value)
    except (TypeError, InputError):
        shapes = ()
    if not shapes or any(size < 1 for shape in shapes for size in shape):
        what = "a shape of positive numbers for each input, such as [(3, 32, 32)]"
        raise _of_another_type("input_shapes", what, value)
    return shapes


def _check(name: str, what: str, value: object, *, holds: bool) -> None:
    if not holds:
        raise _of_another_type(name, what, value)


def _of_another_type(name: str, what: str, value: object) -> InputError:
    shown = " ".join(repr(value).split())[:80]
    return InputError(f"`{name}` must be {what}, but got {shown}.")
