"""The option `--json`, and how its one document is printed.

A user's code may print while it is loaded or called. With `--json` that goes to stderr, as all else
does, and stdout holds the document alone.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
_STDOUT: Final = "autocompress.stdout"


def json_option(says: str) -> Callable[[Command], Command]:
    """Add `--json`, as `as_json`.

    Args:
        says: Its help.
    """
    return click.option("--json", "as_json", is_flag=True, help=says, callback=_keep_stdout)


def print_json(document: object, *, allow_nan: bool = True) -> None:
    """Print the document of a command that has `json_option`."""
    stdout = click.get_current_context().meta.get(_STDOUT)
    click.echo(json.dumps(document, indent=2, allow_nan=allow_nan), file=stdout)


def _keep_stdout(context: click.Context, parameter: click.Parameter, is_asked: bool) -> bool:
    if is_asked:
        context.meta[_STDOUT] = sys.stdout
        context.with_resource(contextlib.redirect_stdout(sys.stderr))
    return is_asked
