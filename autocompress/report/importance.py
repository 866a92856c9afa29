"""Which knobs the figures of a run follow: rank correlations over its finished trials."""

import dataclasses
import math
from statistics import NormalDist
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from autocompress.objective import Objective
from autocompress.run_record import RunRecord
from autocompress.space.search_space import Knob

LEAST_TRIALS: Final = 20
"""With fewer trials chance alone gives correlations that look like findings."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How the knobs of a run go together with one figure.

    Attributes:
        objective: The figure.
        n_trials: Tuned trials behind it, controls included.
        knobs: Knobs that had more than one level in them.
        rho: Spearman's rank correlation of each knob's level with the figure, in [-1, 1].
        chance: What |rho| of one knob that does nothing exceeds in 1 of 20 runs.
        chance_of_any: What the largest |rho| of as many such knobs exceeds in 1 of 20 runs.
    """

    objective: Objective
    n_trials: int
    knobs: tuple[Knob, ...]
    rho: tuple[float, ...]
    chance: float
    chance_of_any: float


def knob_importance(run: RunRecord, objective: Objective) -> Importance | None:
    """Rank every knob by how strongly a figure follows its level (Spearman 1904).

    A correlation, not a cause: a search moves knobs together, and one that is turned along with a
    strong one seems strong as well.

    Args:
        run: Its comparable trials count.
        objective: The figure.

    Returns:
        None with fewer than `LEAST_TRIALS` trials, or if the figure or every knob is constant.
    """
    names = [knob.name for knob in run.knobs]
    trials = [t for t in run.comparable if all(name in t.levels for name in names)]
    if len(trials) < LEAST_TRIALS:
        return None
    values = np.array([getattr(t.measurement, objective.field) for t in trials], dtype=np.float64)
    levels = np.array([[t.levels[name] for name in names] for t in trials], dtype=np.float64)
    moved = [k for k in range(levels.shape[1]) if np.ptp(levels[:, k]) > 0]
    if np.ptp(values) == 0 or not moved:
        return None
    ranks = _standard_ranks(levels[:, moved])  # (N, K)
    rho = ranks.T @ _standard_ranks(values[:, None])[:, 0] / len(trials)
    return Importance(
        objective=objective,
        n_trials=len(trials),
        knobs=tuple(run.knobs[k] for k in moved),
        rho=tuple(float(r) for r in rho),
        chance=_chance(len(trials), 1),
        chance_of_any=_chance(len(trials), len(moved)),
    )


def _chance(n_trials: int, n_knobs: int) -> float:
    """What the largest |rho| of knobs that do nothing exceeds in 1 of 20 runs (Šidák 1967).

    The rho of independent ranks is about normal with variance 1 / (N - 1).
    """
    tail = 1 - 0.95 ** (1 / n_knobs)
    return NormalDist().inv_cdf(1 - tail / 2) / math.sqrt(n_trials - 1)


def _standard_ranks(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks within each column, ties sharing theirs, with mean 0 and variance 1; same shape."""
    ranks = pd.DataFrame(columns).rank().to_numpy(dtype=np.float64)
    return np.asarray((ranks - ranks.mean(axis=0)) / ranks.std(axis=0))
