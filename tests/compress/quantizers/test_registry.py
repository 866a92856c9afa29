import pytest
import torch

from autocompress.compress.quantizers.registry import (
    QUANTIZERS,
    find_quantizer,
    has_integer_form,
    parse_granularity,
    why_not_quantize,
)
from autocompress.errors import InputError
from autocompress.plan import LayerPlan
from autocompress.runtime.integer_codes import to_integer_codes
from autocompress.technique import FULL_BITS, WEIGHT_BITS
from tests.needs import need_extra

WAYS = [
    pytest.param(name, {"group": "group:8"}.get(kind, kind), bits, id=f"{name}-{kind}-{bits:g}")
    for name, spec in QUANTIZERS.items()
    for kind in spec.granularities
    for bits in spec.bits
]


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


@pytest.mark.parametrize(("name", "granularity", "bits"), WAYS)
def test_integer_form_is_what_the_runtime_finds_in_a_stored_weight(name, granularity, bits):
    if name == "nni_qat":
        need_extra("nni")
    spec = QUANTIZERS[name]
    found = []
    # not centred on zero, as trained weights need not be
    for shift, has_mask in ((0.0, True), (0.4, False), (-2.0, True), (-2.0, False)):
        if has_mask and not spec.takes_masks:
            continue
        weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) + shift
        mask = weight > -0.3 if has_mask else None
        quantizer = spec.make(weight, bits, parse_granularity(granularity), 0, mask)
        moved = weight + 0.1 * torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
        found.append(to_integer_codes(quantizer.freeze(moved, mask)) is not None)
    assert all(found) == has_integer_form(name, granularity, bits)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_integer_form_is_one_of_what_a_quantizer_can_do(name):
    assert set(QUANTIZERS[name].integer_bits) <= set(QUANTIZERS[name].bits)
    assert not has_integer_form(name, "channel", FULL_BITS)


def test_integer_form_refuses_unknown_names():
    with pytest.raises(InputError, match="Unknown quantizer 'unifrom'"):
        has_integer_form("unifrom", "channel", 4)
    with pytest.raises(InputError, match="Unknown granularity 'row'"):
        has_integer_form("uniform", "row", 4)
