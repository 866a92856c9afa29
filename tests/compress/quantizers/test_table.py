import pytest

from autocompress.compress.quantizers.table import (
    QUANTIZERS,
    find_quantizer,
    parse_granularity,
    why_not_quantize,
)
from autocompress.errors import InputError
from autocompress.plan import FULL_BITS, WEIGHT_BITS, LayerPlan


def test_find_quantizer_lists_the_choices_when_unknown():
    with pytest.raises(InputError, match="Unknown quantizer 'kmean'") as caught:
        find_quantizer("kmean")
    assert "Did you mean 'kmeans'?" in caught.value.hint
    assert "uniform_asymmetric" in caught.value.hint


def test_the_default_plan_names_a_quantizer_that_takes_all_bits():
    plan = LayerPlan()
    spec = find_quantizer(plan.quantizer)
    assert {*spec.bits, FULL_BITS} == set(WEIGHT_BITS)
    assert parse_granularity(plan.granularity).kind in spec.granularities


@pytest.mark.parametrize("spec", QUANTIZERS.values(), ids=QUANTIZERS)
def test_every_quantizer_takes_bits_that_a_plan_can_name(spec):
    assert set(spec.bits) <= set(WEIGHT_BITS)
    assert spec.granularities


def test_parse_granularity_reads_what_there_is():
    assert parse_granularity("channel").kind == "channel"
    assert parse_granularity("tensor").group_size is None
    assert parse_granularity("group:128").group_size == 128


@pytest.mark.parametrize(
    "text", ["group:7", "group:", "group:x", "group:-8", "group:8.5", "group:²"]
)
def test_parse_granularity_refuses_bad_groups(text):
    with pytest.raises(InputError, match="N >= 8") as caught:
        parse_granularity(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize("text", ["", "chanel", "row:8"])
def test_parse_granularity_lists_the_choices_when_unknown(text):
    with pytest.raises(InputError, match="Unknown granularity") as caught:
        parse_granularity(text)
    assert "channel, group:N, tensor" in caught.value.hint


@pytest.mark.parametrize(
    ("quantizer", "granularity", "bits", "kind", "shape", "why"),
    [
        ("uniform", "channel", 4, "linear", (8, 9), ""),
        ("uniform", "group:8", 4, "linear", (8, 9), ""),
        ("uniform", "group:16", 4, "linear", (8, 16), "group:16 needs channels of more weights"),
        ("uniform", "group:16", 4, "transposed_conv", (32, 8, 1), ""),
        ("uniform", "group:16", 4, "transposed_conv", (8, 32, 1), "more weights than 8"),
        ("uniform", "group:16", 4, "recurrent", (), ""),
        ("power_of_two", "channel", 8, "linear", (8, 9), "stores weights in 5, 4, 3 or 2 bits"),
        ("fixed_point", "channel", 1.58, "linear", (8, 9), "not in 1.58"),
        ("kmeans", "group:8", 4, "linear", (8, 9), "takes granularity channel or tensor"),
        ("hashed", "channel", 4, "linear", (8, 9), "takes granularity tensor, not channel"),
        ("hashed", "channel", 32, "recurrent", (), ""),
    ],
)
def test_why_not_quantize(quantizer, granularity, bits, kind, shape, why):
    reason = why_not_quantize(quantizer, granularity, bits, kind, shape)
    assert why in reason
    assert bool(reason) == bool(why)
