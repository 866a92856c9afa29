"""What a study holds that proposals learn from."""

import dataclasses
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from autocompress.measurement import Fidelity
from autocompress.search.guided.look import Look, looks_in


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A study's trials at one moment.

    Attributes:
        trials: All of them, in order of their numbers.
        fidelity: Of the run.
    """

    trials: Sequence[FrozenTrial]
    fidelity: Fidelity

    @property
    def complete(self) -> list[FrozenTrial]:
        """Complete trials of the run's fidelity; they carry their constraints."""
        complete = (trial for trial in self.trials if trial.state == TrialState.COMPLETE)
        return [trial for trial in complete if trial.user_attrs["fidelity"] == self.fidelity]

    @property
    def running(self) -> list[FrozenTrial]:
        """Trials that are being evaluated."""
        return [trial for trial in self.trials if trial.state == TrialState.RUNNING]

    @property
    def failed(self) -> list[dict[str, int]]:
        """Levels of failed trials."""
        return self._levels_of(TrialState.FAIL)

    @property
    def stopped(self) -> list[dict[str, int]]:
        """Levels of trials that were not worth tuning."""
        return self._levels_of(TrialState.PRUNED)

    @property
    def looks(self) -> list[Look]:
        """All plans that were looked at, to choose a trial or as one that was stopped, in order."""
        return [look for trial in self.trials for look in looks_in(trial.user_attrs)]

    def _levels_of(self, state: TrialState) -> list[dict[str, int]]:
        trials = (trial for trial in self.trials if trial.state == state)
        return [{name: int(level) for name, level in trial.params.items()} for trial in trials]
