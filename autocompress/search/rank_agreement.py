"""How well one ranking of candidates agrees with another: Kendall's tau-b and Spearman's rho.

Dimension key: `N` candidates, `B` bootstrap samples.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

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
