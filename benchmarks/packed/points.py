"""What is trained: one plan for all layers of a model, and a strength of the entropy penalty."""

import dataclasses
from collections.abc import Mapping
from typing import Final

from autocompress.analysis.profile import ModelProfile
from autocompress.plan import CompressionPlan, LayerPlan


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One file to be.

    Attributes:
        bits: Most bits of a weight.
        price: `LayerPlan.rate_price`, the rate penalty; 0 for uniform bits, the controls.
        entropy: `Recipe.entropy_strength`.
    """

    bits: int
    price: float = 0.0
    entropy: float = 0.5

    def plan(self, profile: ModelProfile) -> CompressionPlan:
        """The plan for every layer that can be quantized, with 8-bit activations."""
        layer = LayerPlan(weight_bits=self.bits, activation_bits=8, rate_price=self.price)
        names = [la.name for la in profile.layers if "weight_bits" not in la.refusals]
        return CompressionPlan(layers=dict.fromkeys(names, layer))


POINTS: Final[Mapping[str, Point]] = {
    "price 0.03": Point(bits=8, price=0.03),
    "price 0.035": Point(bits=8, price=0.035),
    "price 0.055": Point(bits=8, price=0.055),
    "price 0.055, entropy 1.5": Point(bits=8, price=0.055, entropy=1.5),
    "price 0.085": Point(bits=8, price=0.085),
    "price 0.055, no entropy penalty": Point(bits=8, price=0.055, entropy=0.0),
    "uniform 2 bit": Point(bits=2),
    "uniform 3 bit": Point(bits=3),
    "uniform 4 bit": Point(bits=4),
    "uniform 8 bit": Point(bits=8),
    "uniform 3 bit, no entropy penalty": Point(bits=3, entropy=0.0),
}
