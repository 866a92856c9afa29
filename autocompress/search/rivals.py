"""What a candidate has to beat, from the trials before it."""

import dataclasses

from autocompress.evaluate.dominance import Rival, Rivals
from autocompress.objective import Limits
from autocompress.run_record import RunRecord, TrialRecord


def rivals_of(run: RunRecord, number: int) -> Rivals:
    """The rivals of a trial: the same in a resumed run as in an unbroken one.

    Only trials with smaller numbers speak, since a trial that is repeated after a crash may find
    others finished that its first attempt did not. Points that break a limit are rivals like the
    others: whatever they beat breaks the limit, too.

    Args:
        run: The run so far.
        number: Number of the trial that is about to be evaluated.
    """
    past = dataclasses.replace(run, trials=run.trials[:number], limits=Limits())
    has_latency = run.limits.max_latency_ms is not None
    has_latency |= any(objective.name == "latency" for objective in run.objectives)
    history = [(t.measurement.untuned_divergence, t.measurement.accuracy)
               for t in past.comparable if t.measurement]  # fmt: skip
    return Rivals(
        front=tuple(_rival(trial) for trial in past.front()),
        history=tuple((untuned, accuracy) for untuned, accuracy in history if untuned is not None),
        has_latency=has_latency,
        max_size_bytes=run.limits.max_size_bytes,
    )


def _rival(trial: TrialRecord) -> Rival:
    assert trial.measurement is not None
    speedup = trial.measurement.speedup
    return Rival(
        label=trial.label,
        accuracy=trial.measurement.accuracy,
        size_bytes=trial.measurement.size_bytes,
        latency_ratio=None if speedup is None else 1.0 / speedup,
    )
