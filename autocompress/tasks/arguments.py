"""Turn text from the command line into the keyword arguments of a task factory."""

import difflib
import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autocompress.errors import InputError, first_line

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_ENVIRONMENT = "env:"


def convert_arguments(
    factory: Callable[..., object], arguments: Mapping[str, str], origin: str
) -> dict[str, Any]:
    """Check arguments against a factory's signature and convert them by its annotations.

    Understood are `str`, `int`, `float`, `bool`, `pathlib.Path` and each of them `| None`, where
    the text `none` means None. A parameter without annotation takes the type of its default. The
    text `env:NAME` stands for what the environment variable NAME holds: a run keeps the texts.

    Args:
        factory: The function that will be called.
        arguments: Parameter name -> text.
        origin: Where the factory stands, for messages: `file.py:function`.

    Raises:
        InputError: If an argument is unknown, missing, or not of its parameter's type, or its
            environment variable is not set.
    """
    signature = inspect.signature(factory)
    kinds = inspect.Parameter
    named = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    }
    takes_any = any(p.kind is kinds.VAR_KEYWORD for p in signature.parameters.values())
    for name in arguments:
        if name not in named and not takes_any:
            raise _unknown_argument(name, list(named), origin)
    for name, parameter in signature.parameters.items():
        if parameter.kind is kinds.POSITIONAL_ONLY and parameter.default is kinds.empty:
            raise InputError(
                f"Parameters of a task factory must be named ones, but {name!r} of {origin} "
                "is positional-only.",
                "Remove the `/` from its signature.",
            )
    for name, parameter in named.items():
        if parameter.default is kinds.empty and name not in arguments:
            raise InputError(
                f"The task factory {origin} needs the argument {name!r}, but none was given.",
                f"Add {_option(name)}.",
            )
    annotations = _annotations(factory, origin) if arguments else {}
    return {
        name: _convert(name, text, _type_of(name, named, annotations), origin)
        for name, text in arguments.items()
    }


def _looked_up(name: str, text: str) -> str:
    """The text itself, or what the environment variable holds that it names."""
    if not text.startswith(_ENVIRONMENT):
        return text
    variable = text.removeprefix(_ENVIRONMENT)
    if variable not in os.environ:
        raise InputError(
            f"The task argument {name!r} is to be read from the environment variable "
            f"{variable!r}, which is not set.",
            f"Set it: export {variable}=...",
        )
    return os.environ[variable]


def _option(name: str) -> str:
    return "`arguments.data=FOLDER`" if name == "data" else f"`arguments.{name}=...`"


def _unknown_argument(name: str, known: list[str], origin: str) -> InputError:
    close = difflib.get_close_matches(name, known, n=1)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    listed = f"It takes: {', '.join(known)}." if known else "It takes no arguments."
    return InputError(
        f"The task factory {origin} has no parameter {name!r} "
        f"(given by `{'arguments.data' if name == 'data' else f'arguments.{name}'}`).",
        guess + listed,
    )


def _annotations(factory: Callable[..., object], origin: str) -> dict[str, Any]:
    # A class is called through __init__, any other object through __call__.
    if inspect.isclass(factory):
        target: Any = factory.__init__
    else:
        target = factory if inspect.isroutine(factory) else type(factory).__call__
    try:
        return typing.get_type_hints(target)
    except (NameError, AttributeError, TypeError) as error:
        raise InputError(
            f"The annotations of {origin} must be names known in its file, "
            f"but: {first_line(error)}."
        ) from error


def _type_of(
    name: str, named: Mapping[str, inspect.Parameter], annotations: Mapping[str, Any]
) -> Any:
    if name not in named:  # taken by **keywords
        return str
    if name in annotations:
        return annotations[name]
    default = named[name].default
    if isinstance(default, Path):
        return Path
    return type(default) if type(default) in (bool, int, float) else str


def _convert(name: str, text: str, annotation: Any, origin: str) -> Any:
    choices, value = _alternatives(annotation), _looked_up(name, text)
    if type(None) in choices and value.lower() == "none":
        return None
    for choice in choices:
        if choice not in (str, int, float, bool, Path, type(None)):
            raise InputError(
                f"The parameter {name!r} of {origin} must be annotated as str, int, float, bool "
                f"or Path to be set from the command line, but is {annotation}."
            )
    # From narrow to wide: text that is a number becomes one where both are admitted.
    for kind in (bool, int, float, Path, str):
        if kind in choices:
            try:
                return _parse(value, kind)
            except ValueError:
                continue
    expected = " or ".join(choice.__name__ for choice in choices if choice is not type(None))
    raise InputError(
        f"The argument {name!r} of {origin} must be {expected}, but got {text!r}.",
        f"Give it as {_option(name)}.",
    )


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if annotation is Any:
        return (str,)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _parse(text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ValueError(text)
    if kind is Path:
        return Path(text).expanduser()
    return kind(text)
