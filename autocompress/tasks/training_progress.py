"""What a user sees while a base model is trained, once, before anything is searched."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress

_logger = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def training_progress(name: str, n_steps: int, unit: str = "steps") -> Iterator[Callable[[], None]]:
    """Report on `n_steps` of training; yields what is to be called after each of them.

    On a terminal this is a bar on stderr that goes away at the end. Elsewhere it is a line in the
    log before and after, and one every ten seconds with the share that is done.
    """
    _logger.info("Training %s, once: %d %s.", name, n_steps, unit)
    if sys.stderr.isatty():
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task(f"Training {name}, once", total=n_steps)
            yield lambda: progress.advance(bar)
    else:
        yield _Lines(name, n_steps)
    _logger.info("Trained %s.", name)


class _Lines:
    """Counts steps, and says now and then how far they got."""

    def __init__(self, name: str, n_steps: int) -> None:
        self._name, self._n_steps, self._n_done = name, n_steps, 0
        self._begun = self._said = time.monotonic()

    def __call__(self) -> None:
        self._n_done += 1
        now = time.monotonic()
        if now - self._said >= _SECONDS_BETWEEN_LINES and self._n_done < self._n_steps:
            self._said = now
            left = (now - self._begun) / self._n_done * (self._n_steps - self._n_done)
            _logger.info(
                "Training %s: %d %%, about %.0f s left.",
                self._name,
                100 * self._n_done // self._n_steps,
                left,
            )
