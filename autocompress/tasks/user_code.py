"""Where in a user's own code something is, or went wrong: messages name the file and the line."""

import ast
import contextlib
import dataclasses
import functools
import inspect
import os
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final

from torch import nn

from autocompress.errors import InputError, first_line

_OTHERS: Final = tuple(
    str(folder) + os.sep  # a name may begin as another one does
    for folder in (
        Path(__file__).parents[1],
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    )
)


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A line of a file.

    Attributes:
        file: Its path.
        line: Counted from 1.
    """

    file: str
    line: int

    def __str__(self) -> str:
        """As messages write it."""
        return f"{self.file}, line {self.line}"


def is_users(file: str) -> bool:
    """Whether a file is the user's: none of this package, of Python, or of what is installed."""
    return not file.startswith(("<", *_OTHERS))


def place_of_error(error: BaseException, source: str | None = None) -> Place | None:
    """The last line of the user's that an exception passed, or its cause, or the cause's cause.

    Args:
        error: What was caught.
        source: A file whose lines are preferred; None for any of the user's.
    """
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    for link in reversed(chain):
        if isinstance(link, SyntaxError) and link.filename:
            return Place(link.filename, link.lineno or 1)
        lines = _lines_of(link.__traceback__)
        own = [place for place in lines if place.file == source] or lines
        if own:
            return own[-1]
    return None


def _lines_of(trace: TracebackType | None) -> list[Place]:
    frames = traceback.extract_tb(trace)
    return [Place(f.filename, f.lineno or 1) for f in frames if is_users(f.filename)]


def describe_error(error: BaseException, source: str | None = None) -> str:
    """One line: an exception's type and first line, and the last line of the user's it passed."""
    place = place_of_error(error, source)
    where = "" if place is None else f" ({place})"
    text = error.msg if isinstance(error, SyntaxError) else first_line(error)
    return f"{type(error).__name__}: {text}{where}"


@contextlib.contextmanager
def naming_user_code() -> Iterator[None]:
    """Add to an InputError from inside where in the user's code it began, if it does not say so."""
    try:
        yield
    except InputError as error:
        place = place_of_error(error)
        if place is None or error.__cause__ is None or str(place) in error.message:
            raise
        message = f"{error.message.rstrip('.')} ({place})."
        raise InputError(message, error.hint) from error.__cause__


def place_of(thing: object) -> Place | None:
    """Where the user wrote a function, a class or a module's `forward`; None if it is not theirs.

    Args:
        thing: A function, a partial of one, a class, a model, or anything that can be called.
    """
    if isinstance(thing, functools.partial):
        return place_of(thing.func)
    if isinstance(thing, nn.Module):
        return place_of(type(thing).forward)
    function = thing if inspect.isroutine(thing) or isinstance(thing, type) else type(thing)
    try:
        file = inspect.getsourcefile(function)
        line = inspect.getsourcelines(function)[1]
    except (TypeError, OSError):
        return None
    return Place(file, line) if file is not None and is_users(file) else None


def innermost_user_line(frame: FrameType | None) -> Place | None:
    """The user's line that is running: the innermost of theirs on the stack above `frame`."""
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            return Place(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def place_of_field(factory: Place, field: str) -> Place | None:
    """Where a factory gives a field of its Task: the line of `field=` in a call of `...Task(`.

    None where the factory makes no such call itself, or gives the field by `**`.

    Args:
        factory: Where it begins.
        field: Name of the field.
    """
    try:
        tree = ast.parse(Path(factory.file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None
    own = (node for node in ast.walk(tree) if _begins_at(node) == factory.line)
    for node in ast.walk(next(own, ast.Pass())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Task"):
            for keyword in node.keywords:
                if keyword.arg == field:
                    return Place(factory.file, keyword.value.lineno)
    return None


def _begins_at(node: ast.AST) -> int | None:
    """The first line of a statement, its decorators included."""
    if not isinstance(node, ast.stmt):
        return None
    return min(x.lineno for x in (node, *getattr(node, "decorator_list", ())))
