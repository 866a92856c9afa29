"""Progressive bits: a plan's own grids are reached from finer ones, a level at a time.

Two-bit weights that start from trained three-bit ones end higher than those that start from floats
(Zhuang et al. 2018). Layers whose quantizer knows no finer grid keep their own from the start; so
do those whose bits have a price, which start from weights rounded for it.
"""

import dataclasses

from autocompress.compress.quantizers.table import find_quantizer
from autocompress.plan import CompressionPlan, LayerPlan

_FLOORS = (4, 3, 2)  # bits; finer grids than 4 bits lose next to nothing without training


def ladder(plan: CompressionPlan) -> tuple[CompressionPlan, ...]:
    """Plans that lead to `plan`, which is the last: each with coarser grids than the one before.

    >>> from autocompress.plan import LayerPlan
    >>> plan = CompressionPlan(layers={"conv": LayerPlan(weight_bits=2)})
    >>> [step.layers["conv"].weight_bits for step in ladder(plan)]
    [4, 3, 2]
    """
    steps = [_with_floor(plan, floor) for floor in _FLOORS]
    return tuple(dict.fromkeys([*steps, plan]))


def _with_floor(plan: CompressionPlan, floor: int) -> CompressionPlan:
    layers = {name: _raised(layer, floor) for name, layer in plan.layers.items()}
    return dataclasses.replace(plan, layers=layers)


def _raised(layer: LayerPlan, floor: int) -> LayerPlan:
    is_priced = layer.rate_price > 0.0  # its own grid is coarser than its bits already
    if is_priced or layer.weight_bits >= floor or floor not in find_quantizer(layer.quantizer).bits:
        return layer
    return dataclasses.replace(layer, weight_bits=floor)
