"""Does the proxy rank candidates as full training does? What the figures of a sample say."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from autocompress.measurement import Measurement
from autocompress.run_record import TrialRecord

LEAST_CANDIDATES = 3
"""Two candidates are in order or not: a correlation says nothing about so few."""

_N_SAMPLES = 2000  # the ends of a 95 % interval then move by about 0.01 from seed to seed
_COVERAGE = 0.95
Ranks = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """A rank correlation and how sure it is.

    Attributes:
        value: In [-1, 1]; 1 is the same order.
        p_value: Two-sided, of "the rankings have nothing to do with each other".
        low: Lower end of the 95 % percentile bootstrap interval over candidates.
        high: Upper end. Both ends are 1 where all candidates are in the same order: the bootstrap
            cannot see what did not happen, the p-value then tells more.
    """

    value: float
    p_value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How well two rankings of the same candidates agree.

    Attributes:
        n: Candidates compared.
        kendall: Kendall's tau-b; None for fewer than 3 candidates or if one ranking is all ties.
        spearman: Spearman's rho; None in the same cases.
    """

    n: int
    kendall: Correlation | None
    spearman: Correlation | None


def total_ranks(accuracies: Sequence[float], divergences: Sequence[float | None]) -> Ranks:
    """Rank candidates by accuracy, those of equal accuracy by divergence from the base model.

    Args:
        accuracies: N of them, higher is better.
        divergences: N of them, lower is better. If one is None, none is used: candidates of equal
            accuracy then share a rank.

    Returns:
        Dense ranks, shape (N,): 0 is the worst, equal candidates have equal ranks.

    >>> total_ranks([0.9, 0.8, 0.9, 0.8], [0.2, 0.1, 0.1, 0.1]).tolist()
    [1, 0, 2, 0]
    """
    known = [0.0 if d is None else d for d in divergences]
    is_used = None not in divergences
    scores = [(a, -d if is_used else 0.0) for a, d in zip(accuracies, known, strict=True)]
    place = {score: rank for rank, score in enumerate(sorted(set(scores)))}
    return np.array([place[score] for score in scores], dtype=np.int64)


def rank_agreement(proxy: Ranks, full: Ranks) -> Agreement:
    """Compare two rankings of the same candidates.

    Kendall's tau-b is the surplus of pairs in the same order over pairs in opposite order, ties
    corrected (Kendall 1945); Spearman's rho is the correlation of average ranks (Spearman 1904).

    Args:
        proxy: Ranks or scores, shape (N,); higher is better.
        full: The same candidates, shape (N,).
    """
    is_defined = len(proxy) >= LEAST_CANDIDATES and all(
        len(np.unique(r)) > 1 for r in (proxy, full)
    )
    if not is_defined:
        return Agreement(n=len(proxy), kendall=None, spearman=None)
    # the same samples for both statistics, and in every call
    picks = np.random.default_rng(0).integers(len(proxy), size=(_N_SAMPLES, len(proxy)))
    tau, rho = stats.kendalltau(proxy, full), stats.spearmanr(proxy, full)
    return Agreement(
        n=len(proxy),
        kendall=_correlation(tau, _kendall_of_samples(proxy, full, picks)),
        spearman=_correlation(rho, _spearman_of_samples(proxy, full, picks)),
    )


def _correlation(result: object, samples: NDArray[np.float64]) -> Correlation:
    value, p_value = float(result.statistic), float(result.pvalue)  # type: ignore[attr-defined]
    tail = (1.0 - _COVERAGE) / 2.0
    low, high = np.nanquantile(samples, [tail, 1.0 - tail])
    return Correlation(value=value, p_value=p_value, low=float(low), high=float(high))


def _kendall_of_samples(x: Ranks, y: Ranks, picks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Tau-b of every bootstrap sample; a candidate drawn w times stands for w tied ones; (B,)."""
    signs_x = np.sign(x[:, None] - x[None, :]).astype(np.float64)  # (N, N)
    signs_y = np.sign(y[:, None] - y[None, :]).astype(np.float64)
    weights = np.stack([np.bincount(row, minlength=len(x)) for row in picks]).astype(np.float64)

    def weighted(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.einsum("bi,ij,bj->b", weights, pairs, weights, optimize=True)

    surplus = weighted(signs_x * signs_y)
    return _ratio(surplus, weighted(np.abs(signs_x)) * weighted(np.abs(signs_y)))


def _spearman_of_samples(x: Ranks, y: Ranks, picks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rho of every bootstrap sample, NaN where one side is all ties; (B,)."""
    a, b = (stats.rankdata(side[picks], axis=1) for side in (x, y))  # (B, N)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return _ratio((a * b).sum(axis=1), (a * a).sum(axis=1) * (b * b).sum(axis=1))


def _ratio(numerator: NDArray[np.float64], squared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numerator over the root of `squared`; NaN where that is 0."""
    root = np.sqrt(squared)
    return np.divide(numerator, root, out=np.full_like(root, np.nan), where=root > 0.0)


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
