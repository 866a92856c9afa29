import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autocompress.errors import InputError
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.space.build import build_space
from autocompress.space.rules import parse_rules
from autocompress.space.search_space import Knob, SearchSpace

RULES = parse_rules(
    """
    pruning: {round_to: 2}
    rules:
      - pruning_ratio: [0.25, 0.5, 0.75]
        rank_ratio: [0.5, 0.25]
        weight_bits: [8, 4, 2]
        activation_bits: [8]
        shared: [activation_bits]
    """,
    "test",
)
SMALL = SearchSpace(
    knobs=(
        Knob(kind="pruning_ratio", targets=("a",), levels=(0.0, 0.5), label="a"),
        Knob(kind="weight_bits", targets=("a", "b"), levels=(32, 8, 4), label="all"),
        Knob(kind="rank_ratio", targets=("b",), levels=(1.0, 0.5), label="b"),
    )
)
UNTOUCHED = {"pruning_ratio:a": 0, "weight_bits:all": 0, "rank_ratio:b": 0}


@given(st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_encode_and_decode_are_inverses(zoo_net, data):
    space = build_space(zoo_net.profile, RULES).space
    levels = {k.name: data.draw(st.integers(0, len(k.levels) - 1)) for k in space.knobs}
    plan = space.decode(levels)
    assert space.encode(plan) == levels
    assert space.decode(space.encode(plan)) == plan


def test_decode_of_all_zeros_is_the_untouched_plan(zoo_net):
    space = build_space(zoo_net.profile, RULES).space
    assert space.decode({k.name: 0 for k in space.knobs}) == CompressionPlan()
    assert set(space.encode(CompressionPlan()).values()) == {0}


def test_decode_sets_every_target_of_a_shared_knob():
    plan = SMALL.decode({**UNTOUCHED, "weight_bits:all": 2, "rank_ratio:b": 1})
    assert plan == CompressionPlan(
        layers={"a": LayerPlan(weight_bits=4), "b": LayerPlan(weight_bits=4, rank_ratio=0.5)}
    )


def test_decode_refuses_a_missing_knob():
    levels = {name: 0 for name in UNTOUCHED if name != "rank_ratio:b"}
    with pytest.raises(InputError, match="'rank_ratio:b' is missing"):
        SMALL.decode(levels)


@pytest.mark.parametrize("level", [-1, 3])
def test_decode_refuses_a_level_out_of_range(level):
    with pytest.raises(
        InputError, match=rf"'weight_bits:all' must be in \[0, 2\], but got {level}"
    ):
        SMALL.decode({**UNTOUCHED, "weight_bits:all": level})


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            CompressionPlan(pruning_ratios={"a": 0.25}),
            "one of [0.0, 0.5], but the plan asks for 0.25",
        ),
        (CompressionPlan(pruning_ratios={"z": 0.5}), "have no knob in this space"),
        (CompressionPlan(layers={"a": LayerPlan(rank_ratio=0.5)}), "have no knob in this space"),
        (
            CompressionPlan(layers={"a": LayerPlan(weight_bits=8)}),
            "'weight_bits:all' sets one level for 2 targets, but the plan asks for [8, 32]",
        ),
    ],
)
def test_encode_refuses_what_no_level_says(plan, message):
    with pytest.raises(InputError) as caught:
        SMALL.encode(plan)
    assert message in caught.value.message


def test_fingerprint_follows_every_part_of_a_knob():
    base = {"kind": "weight_bits", "targets": ("a",), "levels": (32, 8), "label": "a"}
    changes = ({}, {"kind": "rank_ratio"}, {"targets": ("b",)}, {"levels": (32, 4)}, {"label": "b"})
    spaces = [SearchSpace(knobs=(Knob(**{**base, **change}),)) for change in changes]
    assert len({space.fingerprint for space in spaces}) == len(changes)
    assert spaces[0].fingerprint == SearchSpace(knobs=(Knob(**base),)).fingerprint
