"""What is printed steers no terminal, whatever names it holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from autocompress.errors import one_line, printable

if TYPE_CHECKING:
    from rich.console import Console


def echo(text: object = "", **how: Any) -> None:
    """`click.echo` of a printable text."""
    click.echo(printable(str(text)), **how)


def echo_line(text: object, **how: Any) -> None:
    """`click.echo` of one line, whatever the names in it hold."""
    click.echo(one_line(str(text)), **how)


def make_console(**how: Any) -> Console:
    """Rich's console; control characters in what it is given are shown and not sent.

    A text such as `[red]` is that text: styles are given as such, or as `rich.text.Text`.

    Args:
        how: Arguments of `rich.console.Console`.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(printable(text), style)

    return SafeConsole(markup=False, **how)
