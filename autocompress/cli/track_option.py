"""The option that says who else is told of a search's trials."""

from collections.abc import Callable
from typing import Any

import click


def track_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--track` to a command."""
    return click.option(
        "--track",
        multiple=True,
        metavar="NAME[:WHERE]",
        help="Write each trial for another tool, too; may be repeated. mlflow[:URI] into results/"
        "mlruns (or MLFLOW_TRACKING_URI), tensorboard[:FOLDER] into the run folder, unless told "
        "otherwise. A tool that fails does not end the search.",
    )(command)
