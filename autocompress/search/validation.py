"""Does the proxy rank candidates as full training does? What the figures of a sample say."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from autocompress.measurement import Measurement
from autocompress.run_record import TrialRecord
from autocompress.search.rank_agreement import Agreement, Ranks, rank_agreement, total_ranks


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retraining:
    """One trial, trained in full from the base model.

    Attributes:
        trial: The trial as the search measured it, by the proxy.
        full: What full training gave; None if it failed.
        reason: Why it failed, one line; None unless failed.
        is_same_machine: Whether it was trained on the processor that ran the search.
    """

    trial: TrialRecord
    full: Measurement | None
    reason: str | None = None
    is_same_machine: bool = True

    @property
    def proxy(self) -> Measurement:
        """What the proxy gave."""
        assert self.trial.measurement is not None
        return self.trial.measurement

    @property
    def accuracy(self) -> float:
        """Accuracy after full training."""
        assert self.full is not None
        return self.full.accuracy


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Misranking:
    """Two candidates that the proxy puts in the wrong order.

    Attributes:
        overrated: Ranked higher by the proxy.
        underrated: More accurate after full training.
        gap: By how much, a share.
    """

    overrated: Retraining
    underrated: Retraining
    gap: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What one gets who believes the proxy.

    Attributes:
        picked: The candidate the proxy ranks highest.
        place: Its place after full training; 1 is the best.
        regret: Accuracy that the best candidate has more, a share.
    """

    picked: Retraining
    place: int
    regret: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """A sample of a run's trials, measured by the proxy and after full training.

    Attributes:
        run: Name of the run.
        n_candidates: Trials the sample was taken from.
        proxy_epochs: Epochs of the proxy; 0 if it trains nothing.
        epochs: Epochs of the full one; the recipes differ in nothing else.
        seed: What the seeds of the full trainings were derived from.
        retrainings: The sample, in order of trial numbers.
    """

    run: str
    n_candidates: int
    proxy_epochs: float
    epochs: float
    seed: int
    retrainings: tuple[Retraining, ...]

    @property
    def done(self) -> tuple[Retraining, ...]:
        """The part of the sample that full training could be given to."""
        return tuple(r for r in self.retrainings if r.full is not None)

    @property
    def proxy_ranks(self) -> Ranks:
        """Ranks of `done` by the proxy; 0 is the worst (see `total_ranks`)."""
        return rank_measurements([r.proxy for r in self.done])

    @property
    def full_ranks(self) -> Ranks:
        """Ranks of `done` after full training."""
        return rank_measurements([r.full for r in self.done if r.full is not None])

    def overall(self) -> Agreement:
        """How well the proxy ranks the whole sample."""
        return rank_agreement(self.proxy_ranks, self.full_ranks)

    def best_third(self) -> Agreement:
        """How well it ranks the third, rounded up, that is best after full training."""
        full = self.full_ranks
        best = np.argsort(-full, kind="stable")[: math.ceil(len(full) / 3)]
        return rank_agreement(self.proxy_ranks[best], full[best])

    def cost_ratio(self) -> float | None:
        """Seconds of the proxy over seconds of full training, both with building and measuring.

        None if nothing was trained in full, or not all of it on the machine of the search.
        """
        if not self.done or not all(r.is_same_machine for r in self.done):
            return None
        full_s = sum(r.full.seconds for r in self.done if r.full is not None)
        return sum(r.proxy.seconds for r in self.done) / full_s

    def worst_misranking(self) -> Misranking | None:
        """The wrongly ordered pair farthest apart after full training; None if none is apart."""
        ranks, worst = self.proxy_ranks, None
        for i, first in enumerate(self.done):
            for j, second in enumerate(self.done):
                gap = second.accuracy - first.accuracy
                if ranks[i] > ranks[j] and gap > (0.0 if worst is None else worst.gap):
                    worst = Misranking(overrated=first, underrated=second, gap=gap)
        return worst

    def choice(self) -> Choice | None:
        """What believing the proxy costs; None if nothing was trained in full."""
        if not self.done:
            return None
        picked = int(np.argmax(self.proxy_ranks))
        return Choice(
            picked=self.done[picked],
            place=1 + int((self.full_ranks > self.full_ranks[picked]).sum()),
            regret=max(r.accuracy for r in self.done) - self.done[picked].accuracy,
        )

    def to_json(self) -> dict[str, Any]:
        """Everything as plain containers, for JSON; the misranking and the choice by number."""
        worst, choice = self.worst_misranking(), self.choice()
        return {
            "run": self.run,
            "n_candidates": self.n_candidates,
            "proxy_epochs": self.proxy_epochs,
            "epochs": self.epochs,
            "seed": self.seed,
            "overall": dataclasses.asdict(self.overall()),
            "best_third": dataclasses.asdict(self.best_third()),
            "cost_ratio": self.cost_ratio(),
            "worst_misranking": worst
            and {
                "overrated": worst.overrated.trial.number,
                "underrated": worst.underrated.trial.number,
                "gap": worst.gap,
            },
            "choice": choice
            and {
                "trial": choice.picked.trial.number,
                "place": choice.place,
                "regret": choice.regret,
            },
            "trials": [
                {
                    "trial": r.trial.number,
                    "label": r.trial.label,
                    "role": r.trial.role,
                    "plan_digest": r.trial.plan.digest,
                    "proxy": r.proxy.to_json(),
                    "full": r.full and r.full.to_json(),
                    "reason": r.reason,
                }
                for r in self.retrainings
            ],
        }


def rank_measurements(measurements: Sequence[Measurement]) -> Ranks:
    """Ranks by accuracy, then by divergence; 0 is the worst (see `total_ranks`)."""
    return total_ranks([m.accuracy for m in measurements], [m.divergence for m in measurements])
