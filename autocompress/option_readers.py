"""Readers of option values: text as people type it, or values that come from Python.

A reader takes the option's name, for its message, and a value. Text that was typed on the command
line is marked as such by `Typed`; without the mark, `"5"` is no whole number.
"""

import math
import numbers
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Final, TypeAlias

from autocompress.errors import InputError, unknown_name
from autocompress.quantities import parse_bytes, parse_drop, parse_milliseconds, parse_seconds

# Parts of the search as version 0.1 called them, which its runs keep.
NAMES_OF_0_1: Final = {
    "table": "sensitivity_table",
    "seeds": "initial_design",
    "ladder": "early_stopping",
}
Reader: TypeAlias = Callable[[str, object], Any]


class Typed(str):
    """Text from the command line, where a number comes as text as well."""

    __slots__ = ()


def whole_number(name: str, value: object) -> int:
    """A whole number.

    Raises:
        InputError: If it is anything else.

    >>> whole_number("budget", 2.5)
    Traceback (most recent call last):
    autocompress.errors.InputError: `budget` must be a whole number, but got 2.5.
    """
    if isinstance(value, Typed):
        try:
            return int(value)
        except ValueError:
            raise _of_another_type(name, "a whole number", value) from None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise _of_another_type(name, "a whole number", value)
    return int(value)


def at_least(least: int) -> Reader:
    """A reader of whole numbers from `least` on.

    >>> at_least(1)("jobs", 0)
    Traceback (most recent call last):
    autocompress.errors.InputError: `jobs` must be at least 1, but got 0.
    """

    def read(name: str, value: object) -> int:
        number = whole_number(name, value)
        if number < least:
            raise InputError(f"`{name}` must be at least {least}, but got {number}.")
        return number

    return read


def number(name: str, value: object) -> float:
    """A number.

    Raises:
        InputError: If it is anything else.
    """
    if not _is_number(value):
        raise _of_another_type(name, "a number", value)
    return float(value)  # type: ignore[arg-type]


def text(name: str, value: object) -> str:
    """A text.

    Raises:
        InputError: If it is anything else.
    """
    if not isinstance(value, str):
        raise _of_another_type(name, "a text", value)
    return str(value)


def one_of(*choices: str) -> Reader:
    """A reader of one of some words."""

    def read(name: str, value: object) -> str:
        word = text(name, value)
        if word not in choices:
            raise unknown_name(f"value of `{name}`", word, choices)
        return word

    return read


def one_of_numbers(*choices: int) -> Reader:
    """A reader of one of some whole numbers."""

    def read(name: str, value: object) -> int:
        number = whole_number(name, value)
        if number not in choices:
            wanted = " or ".join(map(str, choices))
            raise InputError(f"`{name}` must be {wanted}, but got {number}.")
        return number

    return read


def path(name: str, value: object) -> Path:
    """A text or a path, with `~` for the home folder.

    Raises:
        InputError: If it is anything else.
    """
    if not isinstance(value, str | Path):
        raise _of_another_type(name, "a text or a path", value)
    return Path(value).expanduser()


def _folder(name: str, value: object) -> Path:
    folder = path(name, value)
    if folder.is_file():
        raise InputError(f"`{name}` must be a folder, but {str(folder)!r} is a file.")
    return folder


def _file_or_name(name: str, value: object) -> str:
    """A file that exists as an absolute path: a run may be continued from another folder."""
    found = path(name, value)
    return str(found.absolute()) if found.is_file() else str(value)


def _quantity(parse: Callable[[str, str], Any], plain: Callable[[float], Any], unit: str) -> Reader:
    """A reader of a number > 0 with its unit, as text, or of a plain number."""

    def read(name: str, value: object) -> Any:
        if isinstance(value, str):
            quantity = parse(name, value)
        elif _is_number(value):
            quantity = plain(value)  # type: ignore[arg-type]
        else:
            raise _of_another_type(name, "a number, or a text with its unit", value)
        if not 0 < quantity < math.inf:
            raise InputError(f"`{name}` must be more than 0{unit}, but got {quantity:g}.")
        return quantity

    return read


def drop(name: str, value: object) -> float:
    """A loss of accuracy as a share in [0, 1], as text or as a plain number below 1.

    Raises:
        InputError: If it is anything else.

    >>> drop("max_drop", "1pt")
    0.01
    """
    if isinstance(value, str):
        return parse_drop(name, value)
    if not _is_number(value):
        raise _of_another_type(name, "a number, or a text with its unit", value)
    return parse_drop(name, f"{value:.12g}")


def _listed(name: str, value: object) -> list[str]:
    """Names with commas between them, or a collection of names."""
    if value is None:  # of runs that version 0.1 kept
        return []
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, Collection) or not all(isinstance(part, str) for part in parts):
        raise _of_another_type(name, "a text or several", value)
    return [part.strip() for part in parts if part.strip()]


def _names(name: str, value: object) -> str:
    return ",".join(_listed(name, value))


def _parts(name: str, value: object) -> frozenset[str]:
    return frozenset(NAMES_OF_0_1.get(word, word) for word in _listed(name, value))


def _texts(name: str, value: object) -> tuple[str, ...]:
    parts = () if value is None else (value,) if isinstance(value, str) else value
    if not isinstance(parts, Collection) or not all(isinstance(part, str) for part in parts):
        raise _of_another_type(name, "a text or several", value)
    return tuple(map(str, parts))


def _shapes(name: str, value: object) -> tuple[tuple[int, ...], ...] | None:
    if isinstance(value, list | tuple) and not value:
        return None
    what = "a shape of positive numbers for each input, such as [(3, 32, 32)]"
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise _of_another_type(name, what, value)
    try:
        return tuple(map(_shape, value))
    except (TypeError, InputError):
        raise _of_another_type(name, what, value) from None


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        return parse_shape(value)
    shape = tuple(whole_number("shape", size) for size in value)
    if not shape or min(shape) < 1:
        raise InputError("A shape must be positive numbers.")
    return shape


def parse_shape(typed: str) -> tuple[int, ...]:
    """A shape such as `3,32,32`.

    Raises:
        InputError: If it is anything else.
    """
    parts = [part.strip() for part in typed.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(
            f"A shape must be positive numbers such as 3,32,32, but got {str(typed)!r}."
        )
    return tuple(map(int, parts))


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _of_another_type(name: str, what: str, value: object) -> InputError:
    shown = " ".join(repr(str(value) if isinstance(value, str) else value).split())[:80]
    return InputError(f"`{name}` must be {what}, but got {shown}.")


WHOLE: Final[Reader] = whole_number
TEXT: Final[Reader] = text
FOLDER: Final[Reader] = _folder
FILE_OR_NAME: Final[Reader] = _file_or_name
NAMES: Final[Reader] = _names
PARTS: Final[Reader] = _parts
TEXTS: Final[Reader] = _texts
SHAPES: Final[Reader] = _shapes
SIZE: Final[Reader] = _quantity(parse_bytes, int, " bytes")
DROP: Final[Reader] = drop
MILLISECONDS: Final[Reader] = _quantity(parse_milliseconds, float, " ms")
SECONDS: Final[Reader] = _quantity(parse_seconds, float, " s")
