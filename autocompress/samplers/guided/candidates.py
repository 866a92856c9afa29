"""Plans worth judging: perturbed sweeps, mutations and crossings of the front, and chance.

Dimension key: `P` plans, `K` knobs.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from autocompress.samplers.guided.lagrangian_sweep import (
    HIGHEST_PRICE,
    best_plans,
    mildest,
    regimes,
)
from autocompress.space.prediction import Predictor
from autocompress.space.sensitivity_table import Levels

_N_SWEEPS = 64
_N_MUTANTS = 256
_N_CROSSED = 64
_N_RANDOM = 32
_DOUBT = 0.7  # standard deviation of the log factor by which an option's divergence is doubted


def draw_candidates(
    live: Sequence[Sequence[int]],
    parents: Levels,
    predictor: Predictor | None,
    random: np.random.Generator,
    *,
    power: float,
    has_latency: bool,
    is_far: bool = False,
    bits_of: Mapping[int, Sequence[int]] | None = None,
) -> Levels:
    """Draw plans from all sources.

    Args:
        live: Levels to choose from, per knob.
        parents: Measured plans on the front; (P, K) level indices, P >= 1.
        predictor: What the sensitivity table says; without one there are no sweeps.
        random: Source of chance.
        power: Divergences are raised to it in sweeps.
        has_latency: Whether some sweeps shall pay for time as well.
        is_far: Whether sweeps shall go to the highest prices: nothing is small enough yet.
        bits_of: See `mutated`.

    Returns:
        (n, K) level indices without repeats.
    """
    drawn = [parents, _at_random(live, _N_RANDOM, random)]
    if predictor is not None:
        drawn.append(_perturbed_sweeps(live, predictor, random, power, has_latency, is_far))
        drawn.append(mutated(live, drawn[-1], _N_MUTANTS // 2, random, bits_of))
    drawn.append(mutated(live, parents, _N_MUTANTS, random, bits_of))
    drawn.append(_repriced(live, parents, bits_of or {}))
    drawn.append(_crossed(parents, _N_CROSSED, random))
    return np.unique(np.concatenate(drawn), axis=0)


def mutated(
    live: Sequence[Sequence[int]],
    parents: Levels,
    n_plans: int,
    random: np.random.Generator,
    bits_of: Mapping[int, Sequence[int]] | None = None,
) -> Levels:
    """Copies of random parents with a few knobs moved, mostly by one level.

    Args:
        live: Levels to choose from, per knob.
        parents: (P, K) level indices, not modified.
        n_plans: How many.
        random: Source of chance.
        bits_of: Knobs of prices, each with those of its layers' bits, which stay where one is paid.

    Returns:
        (n_plans, K).
    """
    plans = parents[random.integers(len(parents), size=n_plans)].copy()
    every = [k for k, choices in enumerate(live) if len(choices) > 1]
    for plan in plans:
        idle = {bit for k, bits in (bits_of or {}).items() if plan[k] > 0 for bit in bits}
        movable = [k for k in every if k not in idle]
        n_moves = min(len(movable), int(random.geometric(0.4)))
        for k in random.choice(movable, size=n_moves, replace=False) if movable else ():
            choices = live[k]
            at = int(np.searchsorted(choices, plan[k]))
            if random.random() < 0.8:
                at += 1 if random.random() < 0.5 else -1
            else:
                at = int(random.integers(len(choices)))
            plan[k] = choices[min(max(at, 0), len(choices) - 1)]
    return plans


def _perturbed_sweeps(
    live: Sequence[Sequence[int]],
    predictor: Predictor,
    random: np.random.Generator,
    power: float,
    has_latency: bool,
    is_far: bool,
) -> Levels:
    of_regimes = regimes(predictor.space, live)
    n_sweeps = _N_SWEEPS // len(of_regimes)
    lowest, highest = (0.0, np.log10(HIGHEST_PRICE)) if is_far else (-3.0, 2.0)
    plans = []
    for choices in of_regimes:
        prices = np.zeros((n_sweeps, 2))
        prices[:, 0] = 10.0 ** random.uniform(lowest, highest, size=n_sweeps)
        if has_latency:
            of_time = 10.0 ** random.uniform(-2.0, 1.0, size=n_sweeps)
            prices[:, 1] = prices[:, 0] * of_time * (random.random(n_sweeps) < 0.75)
        weights = [
            np.exp(_DOUBT * random.standard_normal((n_sweeps, 1)))
            * np.exp(0.3 * _DOUBT * random.standard_normal((n_sweeps, len(knob.levels))))
            for knob in predictor.space.knobs
        ]
        start = mildest(choices, n_sweeps)
        plans.append(best_plans(predictor, prices, start, choices, power=power, weights=weights))
    return np.concatenate(plans)


def _repriced(
    live: Sequence[Sequence[int]], parents: Levels, bits_of: Mapping[int, Sequence[int]]
) -> Levels:
    """Parents with every other rate penalty: their structures are trained already."""
    plans = [parents[:0]]
    for k in bits_of:
        for level in live[k]:
            plan = parents.copy()
            plan[:, k] = level
            plans.append(plan)
    return np.concatenate(plans)


def _crossed(parents: Levels, n_plans: int, random: np.random.Generator) -> Levels:
    """Each knob from one of two random parents; (n_plans, K)."""
    mothers = parents[random.integers(len(parents), size=n_plans)]
    fathers = parents[random.integers(len(parents), size=n_plans)]
    return np.where(random.random(mothers.shape) < 0.5, mothers, fathers)


def _at_random(live: Sequence[Sequence[int]], n_plans: int, random: np.random.Generator) -> Levels:
    columns = [random.choice(np.asarray(choices), size=n_plans) for choices in live]
    return np.stack(columns, axis=1).astype(np.int64)
