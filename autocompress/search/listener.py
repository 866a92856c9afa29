"""Who is told how a search gets on."""

import dataclasses
from collections.abc import Callable

from autocompress.run_record import RunRecord, TrialRecord
from autocompress.search.executors.job import OnStage
from autocompress.search.stop_rules import Ending


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """What a search tells whoever shows its progress.

    Attributes:
        on_start: Called with a trial's number and label before it is evaluated.
        on_stage: Called with the number of a running trial, its stage and the share of it that is
            done.
        on_finish: Called with each finished trial and the run so far.
        on_wait: Called with how many trials other drivers are at, when none is left for this one;
            with 0 while one of them measures the option table.
        on_end: Called once, with why the search ended, unless an error ended it.
    """

    on_start: Callable[[int, str], None] = lambda number, label: None
    on_stage: OnStage = lambda number, stage, share: None
    on_finish: Callable[[TrialRecord, RunRecord], None] = lambda trial, run: None
    on_wait: Callable[[int], None] = lambda n_elsewhere: None
    on_end: Callable[[Ending], None] = lambda ending: None
