"""Who is told how a search gets on."""

import dataclasses
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from autocompress.executors.job import OnStage
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.study.stop_rules import Ending


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """What a search tells whoever shows its progress.

    Attributes:
        on_start: Called with a trial's number and label before it is evaluated.
        on_stage: Called with the number of a running trial, its stage and the share of it that is
            done.
        on_finish: Called with each finished trial and the run so far.
        on_wait: Called with how many trials other drivers are at, when none is left for this one;
            with 0 while one of them measures the sensitivity table.
        on_end: Called once, with why the search ended, unless an error ended it.
    """

    on_start: Callable[[int, str], None] = lambda number, label: None
    on_stage: OnStage = lambda number, stage, share: None
    on_finish: Callable[[TrialRecord, RunRecord], None] = lambda trial, run: None
    on_wait: Callable[[int], None] = lambda n_elsewhere: None
    on_end: Callable[[Ending], None] = lambda ending: None


def both(one: Listener, other: Listener) -> Listener:
    """A listener that tells two others, in that order."""

    def on_start(number: int, label: str) -> None:
        one.on_start(number, label)
        other.on_start(number, label)

    def on_stage(number: int, stage: str, share: float) -> None:
        one.on_stage(number, stage, share)
        other.on_stage(number, stage, share)

    def on_finish(trial: TrialRecord, run: RunRecord) -> None:
        one.on_finish(trial, run)
        other.on_finish(trial, run)

    def on_wait(n_elsewhere: int) -> None:
        one.on_wait(n_elsewhere)
        other.on_wait(n_elsewhere)

    def on_end(ending: Ending) -> None:
        one.on_end(ending)
        other.on_end(ending)

    return Listener(
        on_start=on_start, on_stage=on_stage, on_finish=on_finish, on_wait=on_wait, on_end=on_end
    )


class Watch(Protocol):
    """Shows what a search does; a context manager around its trials."""

    listener: Listener
    """Told about trials."""

    def note(self, text: str) -> None:
        """Say something in passing."""
        ...

    def warn(self, text: str) -> None:
        """Say something that must be seen."""
        ...

    def begin(self, run: RunRecord) -> None:
        """Say what lies ahead."""
        ...

    def tell_level(self, n_known: int, n_plans: int, label: str) -> None:
        """Show how far the sensitivity table is."""
        ...

    def __enter__(self) -> object: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
