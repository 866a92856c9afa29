"""A trial that waits to be evaluated."""

import dataclasses
from collections.abc import Mapping

from optuna.trial import FrozenTrial

from autocompress.measurement import Fidelity


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A trial that waits to be evaluated.

    Attributes:
        number: Trial number.
        levels: Knob name -> level index.
        fidelity: Training to put behind it.
        label: What tables call it.
        attempts: How often it was started, this time included.
    """

    number: int
    levels: Mapping[str, int]
    fidelity: Fidelity
    label: str
    attempts: int


def job_of(trial: FrozenTrial) -> Job:
    """The job of a running trial, as often as it has been started so far."""
    return Job(
        number=trial.number,
        levels={name: int(level) for name, level in trial.params.items()},
        fidelity=trial.user_attrs["fidelity"],
        label=trial.user_attrs["label"],
        attempts=trial.user_attrs.get("attempts", 1),
    )
