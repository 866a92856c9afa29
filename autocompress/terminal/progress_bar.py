"""A progress bar on stderr that says nothing where nobody watches."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from autocompress.errors import one_line
from autocompress.terminal.printing import make_console


def is_watched(console: Console) -> bool:
    """Whether what a console shows can be drawn over: FORCE_COLOR makes no terminal of a file."""
    return console.is_interactive and console.file.isatty()


class LiveBar:
    """One bar with a count, the time and a few words; a context manager while it is shown.

    Args:
        title: What is being done.
        total: How often; None if that is not known yet.
        quiet: Whether to show nothing.
    """

    def __init__(self, title: str, total: int | None, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = make_console(stderr=True)
        self._is_live = is_watched(self._console) and not quiet
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[stage]}", markup=False),
            console=self._console,
            disable=not self._is_live,
        )
        self._task = self._bar.add_task(title, total=total, stage="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Say something in passing."""
        if not self._quiet:
            self._bar.console.print(one_line(text), highlight=False, soft_wrap=True)


class StepLine(LiveBar):
    """What is being done at the moment, where somebody watches; a context manager.

    Args:
        title: What all of it is.
    """

    def __init__(self, title: str) -> None:
        super().__init__(title, None, quiet=False)

    def tell(self, step: str) -> None:
        """Show what is being done."""
        self._bar.update(self._task, stage=step)


def duration_words(seconds: float) -> str:
    """A time as people say it.

    >>> duration_words(42), duration_words(600), duration_words(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
