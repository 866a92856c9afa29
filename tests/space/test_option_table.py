"""The table as JSON and back, and what knobs that do nothing alone are measured in."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from autocompress.space.search_space import Knob, SearchSpace
from autocompress.space.sensitivity_table import (
    Figures,
    MeasuredLevel,
    SensitivityTable,
    context_of,
)

finite = st.floats(min_value=0.0, max_value=1e9)
names = st.text(max_size=8)
figures = st.builds(
    Figures,
    divergence=finite,
    size_bytes=st.none() | st.integers(0, 2**40),
    layer_bytes=st.dictionaries(names, st.integers(0, 2**40), max_size=4),
    latency_ratio=st.none() | finite,
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
