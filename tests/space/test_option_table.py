"""The table as JSON and back, and what knobs that do nothing alone are measured in."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.space.search_space import Knob, SearchSpace
from autocompress.space.sensitivity_table import (
    Figures,
    MeasuredLevel,
    SensitivityTable,
    context_of,
    estimated_figures,
    measured_levels,
    score_reliability,
)

finite = st.floats(min_value=0.0, max_value=1e9)
names = st.text(max_size=8)
figures = st.builds(
    Figures,
    divergence=finite,
    size_bytes=st.none() | st.integers(0, 2**40),
    layer_bytes=st.dictionaries(names, st.integers(0, 2**40), max_size=4),
    latency_ratio=st.none() | finite,
    halves=st.none() | st.tuples(finite, finite),
)
options = st.builds(
    MeasuredLevel, knob=names, level=st.integers(1, 9), figures=figures, reason=st.none()
) | st.builds(MeasuredLevel, knob=names, level=st.integers(1, 9), figures=st.none(), reason=names)
tables = st.builds(
    SensitivityTable,
    baseline=figures,
    contexts=st.dictionaries(names, figures, max_size=3),
    options=st.lists(options, max_size=5).map(tuple),
    seconds=finite,
    seconds_here=st.none() | finite,
)


@given(tables)
def test_option_table_comes_back_from_json(table: SensitivityTable) -> None:
    assert SensitivityTable.from_json(json.loads(json.dumps(table.to_json()))) == table


@given(figures)
def test_figures_come_back_from_json(found: Figures) -> None:
    assert Figures.from_json(json.loads(json.dumps(found.to_json()))) == found


def knob(kind: Any, targets: str, levels: tuple[Any, ...]) -> Knob:
    return Knob(kind=kind, targets=tuple(targets), levels=levels, label=targets)


SPACE = SearchSpace(
    knobs=(
        knob("weight_bits", "a", (32, 8, 6, 4, 2)),
        knob("weight_bits", "bc", (32, 4, 2)),
        knob("rank_ratio", "a", (1.0, 0.5)),
        knob("pruning_ratio", "a", (0.0, 0.5)),
        knob("activation_bits", "abc", (32, 8)),
        knob("quantizer", "b", ("uniform", "kmeans")),
        knob("granularity", "ab", ("channel", "tensor")),
        knob("factorization", "a", ("svd", "data_svd")),
    )
)


def touched(name: str) -> dict[str, int]:
    found = next(k for k in SPACE.knobs if k.name == name)
    context = context_of(SPACE, found)
    assert set(context) == {k.name for k in SPACE.knobs}
    return {name: level for name, level in context.items() if level}


def test_context_of_an_amount_is_the_untouched_model() -> None:
    for name in ("weight_bits:a", "weight_bits:bc", "rank_ratio:a", "pruning_ratio:a"):
        assert touched(name) == {}


def test_context_of_a_method_has_the_amounts_of_its_layers_at_their_middle_level() -> None:
    assert touched("quantizer:b") == {"weight_bits:bc": 1}
    assert touched("granularity:ab") == {"weight_bits:a": 2, "weight_bits:bc": 1}
    assert touched("factorization:a") == {"rank_ratio:a": 1}


def test_context_of_inputs_has_weights_at_their_mildest_bits() -> None:
    assert touched("activation_bits:abc") == {"weight_bits:a": 1, "weight_bits:bc": 1}


BITS = (32, 8, 6, 5, 4, 3, 2)


def _bits_of(n_layers: int, *others: Knob) -> SearchSpace:
    names = [f"conv{i}" for i in range(n_layers)]
    own = (Knob(kind="weight_bits", targets=(n,), levels=BITS, label=n) for n in names)
    return SearchSpace(knobs=(*own, *others))


def test_few_layers_are_measured_at_all_bits_and_many_at_two() -> None:
    few, many = _bits_of(4), _bits_of(5)
    assert measured_levels(few, few.knobs[0]) == (1, 2, 3, 4, 5, 6)
    assert [BITS[i] for i in measured_levels(many, many.knobs[0])] == [5, 2]


def test_one_level_of_bits_is_enough_where_a_rate_penalty_takes_their_place() -> None:
    price = Knob(kind="rate_price", targets=("conv0",), levels=(0.0, 0.01), label="all")
    pruning = Knob(kind="pruning_ratio", targets=("g",), levels=(0.0, 0.25, 0.5), label="g")
    space = _bits_of(6, price, pruning)
    assert [BITS[i] for i in measured_levels(space, space.knobs[0])] == [3]
    assert [BITS[i] for i in measured_levels(space, space.knobs[1])] == [5, 2]
    assert measured_levels(space, pruning) == (1, 2)
    assert measured_levels(space, price) == (1,)


def test_rate_penalties_between_measured_ones_are_interpolated_in_their_logarithm() -> None:
    levels = (0.0, *(0.01 * 2.0**i for i in range(9)))
    knob = Knob(kind="rate_price", targets=("conv0",), levels=levels, label="all")
    assert measured_levels(SearchSpace(knobs=(knob,)), knob) == (1, 4, 6, 9)
    baseline = Figures(divergence=0.0, size_bytes=4000, layer_bytes={"conv0": 4000})
    mild, strong = (
        Figures(divergence=d, size_bytes=n, layer_bytes={"conv0": n})
        for d, n in ((0.01, 900), (0.08, 600))
    )
    found = estimated_figures(knob, 2, {1: mild, 4: strong}, baseline)
    assert found.divergence == pytest.approx(0.02)
    assert found.size_bytes == 800


def test_other_bits_follow_from_one_measured_level_by_a_factor_of_four_and_a_bit_per_weight() -> (
    None
):
    knob = _bits_of(1).knobs[0]
    baseline = Figures(divergence=0.0, size_bytes=4100, layer_bytes={"conv0": 4000, "fc": 50})
    three = Figures(
        divergence=0.16, size_bytes=450, layer_bytes={"conv0": 350, "fc": 50}, latency_ratio=0.9
    )
    found = estimated_figures(knob, BITS.index(5), {BITS.index(3): three}, baseline)
    assert found.divergence == pytest.approx(0.16 / 4**2)
    assert found.layer_bytes == {"conv0": 350 + 2 * 125, "fc": 50}  # 1,000 weights
    assert found.size_bytes == 450 + 250
    assert found.latency_ratio == 0.9
    coarser = estimated_figures(knob, BITS.index(2), {BITS.index(3): three}, baseline)
    assert coarser.divergence == pytest.approx(0.64)
    assert coarser.size_bytes == 450 - 125


def test_bits_between_two_measured_levels_are_interpolated() -> None:
    knob = _bits_of(1).knobs[0]
    baseline = Figures(divergence=0.0, size_bytes=4000, layer_bytes={"conv0": 4000})
    two = Figures(divergence=1.0, size_bytes=200, layer_bytes={"conv0": 200})
    five = Figures(divergence=0.001, size_bytes=560, layer_bytes={"conv0": 560})
    measured = {BITS.index(2): two, BITS.index(5): five}
    found = estimated_figures(knob, BITS.index(4), measured, baseline)
    assert math.log10(found.divergence) == pytest.approx(-2.0)
    assert found.size_bytes == 200 + 2 * 120


def _scored(*halves: tuple[float, float]) -> SensitivityTable:
    options = tuple(
        MeasuredLevel(
            knob=f"weight_bits:conv{i}", level=3, figures=Figures(divergence=1.0, halves=pair)
        )
        for i, pair in enumerate(halves)
    )
    return SensitivityTable(
        baseline=Figures(divergence=0.0), contexts={}, options=options, seconds=0.0
    )


def test_scores_that_repeat_are_reliable_and_others_are_not() -> None:
    space = _bits_of(6)
    exact = _scored(*((x, 2.0 * x) for x in (0.1, 0.2, 0.5, 1.0, 0.3, 0.05)))
    assert score_reliability(space, exact) == pytest.approx(1.0)
    chance = _scored((0.1, 0.2), (0.2, 0.1), (0.1, 0.1), (0.2, 0.2))
    assert score_reliability(space, chance) == pytest.approx(0.0)
    assert score_reliability(space, _scored((0.1, 0.2), (0.2, 0.1))) is None


def test_reliability_does_not_come_from_levels_of_different_strength() -> None:
    """Two and eight bits differ by orders of magnitude in both halves, which says nothing."""
    space = _bits_of(4)
    pairs = {1: [(1e-4, 2e-4), (2e-4, 1e-4)], 6: [(1.0, 2.0), (2.0, 1.0)]}
    options = tuple(
        MeasuredLevel(
            knob=f"weight_bits:conv{i}", level=level, figures=Figures(divergence=1.0, halves=pair)
        )
        for level, found in pairs.items()
        for i, pair in enumerate(found)
    )
    table = SensitivityTable(
        baseline=Figures(divergence=0.0), contexts={}, options=options, seconds=0.0
    )
    assert score_reliability(space, table) == pytest.approx(-1.0)
