"""When a search ends: budget, stall or time."""

import dataclasses
from typing import Literal

from autocompress.run_record import RunRecord

Ending = Literal["budget", "stalled", "timeout", "exhausted"]
"""Why a search ended; `exhausted`: every plan of the space has been tried."""

_LEAST_GAIN = 0.001
"""Growth of the hypervolume, as a share of it, below which nothing was found."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StopRules:
    """What ends a search; whichever comes first. Only the time cuts a running trial short.

    Attributes:
        budget: Finished trials the study shall hold, baseline and controls included, >= 1.
        until_stalled: So many searched trials in a row without a better front end the search, >= 1.
        timeout_s: Seconds of a session after which it ends, > 0.
    """

    budget: int
    until_stalled: int | None = None
    timeout_s: float | None = None

    def ending(self, run: RunRecord, elapsed_s: float) -> Ending | None:
        """Why no further trial shall start, or None if one shall.

        Args:
            run: The run so far.
            elapsed_s: Seconds since this session began.
        """
        if run.n_finished >= self.budget:
            return "budget"
        if self.until_stalled is not None and is_stalled(run, self.until_stalled):
            return "stalled"
        if self.timeout_s is not None and elapsed_s >= self.timeout_s:
            return "timeout"
        return None

    def left_s(self, elapsed_s: float) -> float | None:
        """Seconds until time is up, at least 0; None where there is no such rule."""
        return None if self.timeout_s is None else max(0.0, self.timeout_s - elapsed_s)


def is_stalled(run: RunRecord, n_trials: int) -> bool:
    """Whether the last `n_trials` searched trials raised the hypervolume by 0.1 % at most.

    Failed and stopped trials count: they found nothing either. Trials that nobody searched for do
    not. Only points that keep the limits have a volume. As long as none has any (all lose too much
    accuracy, say) a place on the front counts.
    """
    searched = [t for t in run.trials if t.is_finished and t.role == "search"]
    if run.baseline is None or len(searched) < n_trials:
        return False
    last = {trial.number for trial in searched[-n_trials:]}
    before = run.hypervolume(tuple(t for t in run.feasible if t.number not in last))
    after = run.hypervolume(run.feasible)
    if after == 0.0:
        return all(trial.number not in last for trial in run.front())
    return after <= before * (1.0 + _LEAST_GAIN)
