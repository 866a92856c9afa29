"""Knobs that do nothing by themselves: how far what they work on is there in a plan.

Dimension key: `N` plans, `K` knobs, `L` layers.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from autocompress.space.arrays import Array, Levels
from autocompress.space.option_table import Figures, amount_of
from autocompress.space.search_space import AMOUNT_OF, SearchSpace

_LEAST_DIVERGENCE: Final = 1e-6  # nats; below it, what a method makes of it is noise


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OptionContext:
    """What a knob measured in a context depends on.

    Attributes:
        knob: Index of the knob.
        share_of_knob: Index of another knob -> share of the knob's targets that it sets the amount
            of.
        share_of_amount: The same -> share of that knob's targets which are the knob's.
        layers: The same -> which layers both set, as 0 and 1; (L,).
        others: Layers that are none of its targets, as 0 and 1; (L,).
        factors: What each level multiplies the divergence of the context by, for methods;
            (levels,). None for 8-bit inputs and prices of bits, which diverge by themselves.
    """

    knob: int
    share_of_knob: Mapping[int, float]
    share_of_amount: Mapping[int, float]
    layers: Mapping[int, Array]
    others: Array
    factors: Array | None

    def share(self, levels: Levels) -> Array:
        """Share of the knob's targets whose amount is touched; (N,)."""
        shares = np.zeros(len(levels))
        for amount, share in self.share_of_knob.items():
            shares += share * (levels[:, amount] > 0)
        return shares

    def is_given(self, levels: Levels) -> Array:
        """Whether each layer's amount is touched, 1 for layers it does not set; (N, L)."""
        given = np.repeat(self.others[None, :], len(levels), axis=0)
        for amount, layers in self.layers.items():
            given += (levels[:, amount] > 0)[:, None] * layers
        return given


def option_context(
    space: SearchSpace, k: int, figures: Sequence[Figures | None], layers: Sequence[str]
) -> OptionContext:
    """What a knob that was measured in a context depends on.

    Args:
        space: All knobs.
        k: Index of the knob.
        figures: Of its context, and of each of its levels there; None for those that failed.
        layers: Names of the layers that bytes are counted for.
    """
    knob, context = space.knobs[k], figures[0]
    assert context is not None
    amount = amount_of(knob.kind)
    both = {
        i: set(other.targets) & set(knob.targets)
        for i, other in enumerate(space.knobs)
        if other.kind == amount and not set(other.targets).isdisjoint(knob.targets)
    }
    factors = None
    if knob.kind in AMOUNT_OF:
        before = context.divergence
        is_told = before > _LEAST_DIVERGENCE
        factors = np.array([f.divergence / before if f and is_told else 1.0 for f in figures])
    return OptionContext(
        knob=k,
        share_of_knob={i: len(shared) / len(knob.targets) for i, shared in both.items()},
        share_of_amount={
            i: len(shared) / len(space.knobs[i].targets) for i, shared in both.items()
        },
        layers={i: np.array([float(la in shared) for la in layers]) for i, shared in both.items()},
        others=np.array([float(layer not in knob.targets) for layer in layers]),
        factors=factors,
    )
