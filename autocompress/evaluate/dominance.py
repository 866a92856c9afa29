"""The dominance stop: a candidate without a chance is not tuned."""

import dataclasses

from autocompress.errors import TrialError
from autocompress.objective import LATENCY, SIZE, Limits
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.space.sensitivity_table import Figures

_LEAST_WITNESSES = 6
_SHRINKS_BY_TUNING = 0.02


class HopelessError(TrialError):
    """A candidate has no chance and is not tuned.

    Args:
        message: Why, in one line.
        figures: What was measured of it, untuned.
    """

    def __init__(self, message: str, figures: Figures) -> None:
        super().__init__("hopeless", message)
        self.args = (message, figures)
        self.figures = figures


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A measured point that a candidate has to beat.

    Attributes:
        label: What tables call it.
        accuracy: On the validation split.
        size_bytes: Of its packed file.
        latency_ratio: Time over the original model's; None where latency is no objective.
    """

    label: str
    accuracy: float
    size_bytes: int
    latency_ratio: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rivals:
    """What is known when a candidate starts.

    Attributes:
        front: The points nobody beats so far.
        history: Divergence before tuning and accuracy after it, of every tuned trial so far.
        has_latency: Whether latency is an objective.
        max_size_bytes: What a packed file may take at most; None for any.
    """

    front: tuple[Rival, ...]
    history: tuple[tuple[float, float], ...]
    has_latency: bool
    max_size_bytes: float | None = None

    def check(self, figures: Figures) -> None:
        """Stop a candidate that no evidence speaks for.

        Hopeless is what is larger than allowed, and what diverges from the base model, untuned, so
        far that no trial which started there or farther (at least 6 of them) came out as accurate
        as a front point that costs no more. Tuning makes files a little smaller (by 0.1 to 1.5 % on
        digits and CIFAR-10), so a rival or a limit has to be smaller by more than that; latency
        follows from shapes and does not change.

        Args:
            figures: Of the candidate before tuning, size included.

        Raises:
            HopelessError: Why, with the figures.
        """
        if (why := self._why_hopeless(figures)) is not None:
            raise HopelessError(why, figures)

    def depends_on_latency(self, figures: Figures) -> bool:
        """Whether a candidate has to be timed to tell if it is hopeless."""
        without = dataclasses.replace(self, has_latency=False)
        return self.has_latency and without._why_hopeless(figures) is not None

    def _why_hopeless(self, figures: Figures) -> str | None:
        assert figures.size_bytes is not None
        least = (1.0 - _SHRINKS_BY_TUNING) * figures.size_bytes
        if self.max_size_bytes is not None and least > self.max_size_bytes:
            return (
                f"Not tuned: {figures.size_bytes:,} bytes, and tuning makes files hardly smaller; "
                f"at most {self.max_size_bytes:,} bytes are allowed."
            )
        cheaper = [r for r in self.front if self._costs_no_more(r, figures)]
        witnesses = [a for divergence, a in self.history if divergence >= figures.divergence]
        if not cheaper or len(witnesses) < _LEAST_WITNESSES:
            return None
        rival, hoped = max(cheaper, key=lambda r: r.accuracy), max(witnesses)
        if hoped >= rival.accuracy:
            return None
        return (
            f"Not tuned: {figures.size_bytes:,} bytes, divergence {figures.divergence:.3g} "
            f"untuned; the best of {len(witnesses)} trials that started no better reached "
            f"{100 * hoped:.2f} %, and {rival.label} has {100 * rival.accuracy:.2f} % at "
            f"{rival.size_bytes:,} bytes."
        )

    def _costs_no_more(self, rival: Rival, figures: Figures) -> bool:
        assert figures.size_bytes is not None
        if rival.size_bytes > (1.0 - _SHRINKS_BY_TUNING) * figures.size_bytes:
            return False
        if not self.has_latency:
            return True
        if rival.latency_ratio is None or figures.latency_ratio is None:
            return False
        return rival.latency_ratio <= figures.latency_ratio


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
    costs = {row for row in (*run.objectives, *run.limits.bounds) if row.is_cost}
    # a probe takes bytes and time: of another cost it cannot say that a rival has no more
    front = past.front() if costs <= {SIZE, LATENCY} else ()
    history = [(t.measurement.untuned_divergence, t.measurement.accuracy)
               for t in past.comparable if t.measurement]  # fmt: skip
    return Rivals(
        front=tuple(_rival(trial) for trial in front),
        history=tuple((untuned, accuracy) for untuned, accuracy in history if untuned is not None),
        has_latency=LATENCY in costs,
        max_size_bytes=run.limits.bounds.get(SIZE),
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
