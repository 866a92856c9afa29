"""Plans for every budget from the sensitivity table: a Lagrangian sweep.

For a price on bytes and one on time, the plan that minimises divergence + price x cost; raising the
price walks from the original model to the smallest one (Everett 1963; SPDY, Frantar & Alistarh
2022, spends one budget so). Bits, ranks and widths of a layer multiply, so its knobs cannot be
chosen one by one: coordinate descent takes them in turn until nothing changes. Where every layer
has one knob only the sum is separable and the first round finds the optimum.

Dimension key: `P` plans at once, `K` knobs, `L` layers.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from autocompress.space.prediction import Predictor
from autocompress.space.search_space import SearchSpace
from autocompress.space.sensitivity_table import Array, Levels

_MAX_ROUNDS = 12
HIGHEST_PRICE: Final = 1e3
_LOWEST_PRICE, _N_PRICES = 1e-5, 128


def best_plans(
    predictor: Predictor,
    prices: Array,
    start: Levels,
    live: Sequence[Sequence[int]],
    *,
    power: float = 1.0,
    weights: Sequence[Array] | None = None,
) -> Levels:
    """The best plan at each price, as far as coordinate descent finds it.

    Args:
        predictor: What options do.
        prices: Price of the file and of the inference, each as a share of the original model's,
            in units of `power`-scaled divergence; (P, 2).
        start: Where to start; (P, K) level indices, not modified.
        live: Levels to choose from, per knob.
        power: Divergences are raised to it: below 1 tuning repairs large damage better than small.
        weights: Per knob, factors on the divergence of its levels per plan, (P, levels); None for
            ones.

    Returns:
        (P, K) level indices.
    """
    levels = start.copy()
    log_bytes = _sum_over_knobs(predictor.log_bytes, levels)  # (P, L)
    rest = _sum_over_knobs([r[:, None] for r in predictor.added_rest], levels)[:, 0]
    log_latency = _sum_over_knobs([t[:, None] for t in predictor.log_latency], levels)[:, 0]
    share = 1.0 / max(float(predictor.table.baseline.size_bytes or 1), 1.0)
    harms = [d**power for d in predictor.added_divergence]
    for _ in range(_MAX_ROUNDS):
        changed = False
        for k, choices in enumerate(live):
            if len(choices) < 2:
                continue
            options = np.asarray(choices)  # (C,)
            without = log_bytes - predictor.log_bytes[k][levels[:, k]]  # (P, L)
            with_each = without[:, None, :] + predictor.log_bytes[k][options]  # (P, C, L)
            rest_without = rest - predictor.added_rest[k][levels[:, k]]
            time_without = log_latency - predictor.log_latency[k][levels[:, k]]
            rests = rest_without[:, None] + predictor.added_rest[k][options]
            times = time_without[:, None] + predictor.log_latency[k][options]
            harm = np.broadcast_to(harms[k][options], rests.shape)
            if weights is not None:
                harm = harm * weights[k][:, options]
            cost = (
                harm
                + prices[:, :1] * share * (np.exp(with_each) @ predictor.base_bytes + rests)
                + prices[:, 1:] * np.exp(times)
            )
            picked = cost.argmin(axis=1)
            rows = np.arange(len(levels))
            chosen = options[picked]
            changed |= bool((chosen != levels[:, k]).any())
            levels[:, k] = chosen
            log_bytes, rest = with_each[rows, picked], rests[rows, picked]
            log_latency = times[rows, picked]
        if not changed:
            break
    return levels


def sweep(
    predictor: Predictor,
    live: Sequence[Sequence[int]],
    *,
    power: float = 1.0,
    time_share: float = 0.0,
) -> Levels:
    """The plans from nearly untouched to as small as the space goes, as the price rises.

    Args:
        predictor: What options do.
        live: Levels to choose from, per knob.
        power: See `best_plans`.
        time_share: Price of time over that of bytes.

    Returns:
        (P, K) level indices without repeats and without the untouched plan, in no order.
    """
    price = np.geomspace(_LOWEST_PRICE, HIGHEST_PRICE, _N_PRICES)
    prices = np.stack([price, time_share * price], axis=1)
    plans = np.concatenate(
        [
            best_plans(predictor, prices, mildest(choices, _N_PRICES), choices, power=power)
            for choices in regimes(predictor.space, live)
        ]
    )
    return np.unique(plans[plans.any(axis=1)], axis=0)


def regimes(space: SearchSpace, live: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
    """Levels to choose from without a rate penalty, and with one; only the first without its knob.

    With a price the bits of its layers are those it was measured at: it decides what codes take,
    and fewer bits save nothing that it does not. Of several knobs each can stay without one.
    """
    bits_of = penalized_bits(space)
    prices = [k for k in bits_of if len(live[k]) > 1]
    if not prices:
        return [list(live)]
    bits = {bit for k in prices for bit in bits_of[k]}
    without: list[Sequence[int]] = [(0,) if k in prices else live[k] for k in range(len(live))]
    penalized = [(1,) if k in bits else live[k] for k in range(len(live))]
    if len(prices) == 1:
        (k,) = prices
        penalized[k] = live[k][1:]
    return [without, penalized]


def with_measured_bits(bits_of: Mapping[int, Sequence[int]], plans: Levels) -> Levels:
    """Plans whose penalized layers have no fewer bits than prices were measured at, without
    repeats.

    With a price fewer bits change the rounding and hardly the file. A layer can stay untouched.

    Args:
        bits_of: From `penalized_bits`.
        plans: (P, K) level indices, not modified.

    Returns:
        (at most P, K).
    """
    settled = plans.copy()
    for k, bits in bits_of.items():
        for bit in bits:
            settled[(plans[:, k] > 0) & (plans[:, bit] > 1), bit] = 1
    return np.unique(settled, axis=0)


def penalized_bits(space: SearchSpace) -> dict[int, list[int]]:
    """Indices of the knobs of prices, each with those of its layers' bits."""
    return {
        k: [
            i
            for i, other in enumerate(space.knobs)
            if other.kind == "weight_bits" and not set(knob.targets).isdisjoint(other.targets)
        ]
        for k, knob in enumerate(space.knobs)
        if knob.kind == "rate_price"
    }


def mildest(choices: Sequence[Sequence[int]], n_plans: int) -> Levels:
    """The first level of every knob, (n_plans, K)."""
    return np.tile(np.array([levels[0] for levels in choices], dtype=np.int64), (n_plans, 1))


def _sum_over_knobs(tables: Sequence[Array], levels: Levels) -> Array:
    """(levels, W) per knob and (P, K) level indices -> (P, W)."""
    width = tables[0].shape[1] if tables else 0
    total = np.zeros((len(levels), width))
    for k, table in enumerate(tables):
        total += table[levels[:, k]]
    return total
