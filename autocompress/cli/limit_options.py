"""Options that say what a point must keep to count."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from autocompress.cli.quantities import parse_bytes, parse_milliseconds, parse_share

if TYPE_CHECKING:
    from autocompress.objective import Limits


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--max-size`, `--max-drop` and `--max-latency` to a command."""
    for name, metavar, help_text in (
        ("--max-latency", "TIME", "Longest inference, such as 2ms or 250us."),
        ("--max-drop", "SHARE", "Accuracy a point may lose, such as 0.01, 1% or 1pt."),
        ("--max-size", "SIZE", "Largest packed file, such as 100kB, 1.5MB or 64KiB."),
    ):
        command = click.option(name, metavar=metavar, help=f"Limit: {help_text}")(command)
    return command


def limits_of(max_size: str | None, max_drop: str | None, max_latency: str | None) -> Limits:
    """The limits that were typed.

    Raises:
        InputError: If one is no size, share or time, or outside its range.
    """
    from autocompress.objective import Limits

    return Limits(
        max_drop=None if max_drop is None else parse_share("--max-drop", max_drop),
        max_size_bytes=None if max_size is None else parse_bytes("--max-size", max_size),
        max_latency_ms=None
        if max_latency is None
        else parse_milliseconds("--max-latency", max_latency),
    )
