import pytest

from autocompress.compress.quantizers.registry import QUANTIZERS, has_integer_form
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.runs.refine.training import progressive_bits
from autocompress.technique import BINARY_BITS


def steps(**layers: LayerPlan) -> list[dict[str, float]]:
    plan = CompressionPlan(layers=layers)
    return [{n: p.weight_bits for n, p in step.layers.items()} for step in progressive_bits(plan)]


def test_ladder_comes_down_to_each_layers_own_bits() -> None:
    assert steps(a=LayerPlan(weight_bits=2), b=LayerPlan(weight_bits=3), c=LayerPlan()) == [
        {"a": 4, "b": 4},
        {"a": 3, "b": 3},
        {"a": 2, "b": 3},
    ]
    assert steps(a=LayerPlan(weight_bits=BINARY_BITS)) == [{"a": bits} for bits in (4, 3, 2, 1)]


@pytest.mark.parametrize(
    "plan",
    [
        LayerPlan(weight_bits=4),
        LayerPlan(weight_bits=2, rate_price=0.05),
        LayerPlan(rank_ratio=0.5),
        LayerPlan(),
    ],
)
def test_ladder_is_the_plan_alone_where_its_grids_are_fine(plan: LayerPlan) -> None:
    whole = CompressionPlan(layers={"a": plan}, pruning_ratios={"g": 0.5}, dropped_blocks=("b",))
    assert progressive_bits(whole) == (whole,)


@pytest.mark.parametrize(
    ("quantizer", "bits"), [(name, bits) for name, spec in QUANTIZERS.items() for bits in spec.bits]
)
def test_ladder_never_changes_what_a_layer_can_have_as_its_input(
    quantizer: str, bits: float
) -> None:
    """An input grid stays while the bits change: all levels must take one, or none."""
    layer = LayerPlan(weight_bits=bits, quantizer=quantizer, activation_bits=8)
    levels = [p.layers["a"] for p in progressive_bits(CompressionPlan(layers={"a": layer}))]
    assert levels[-1] == layer
    assert len({has_integer_form(quantizer, "channel", level.weight_bits) for level in levels}) == 1
