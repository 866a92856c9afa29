"""Predictions from a sensitivity table, against models whose options act as it supposes."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.space.prediction import Predictor
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.space.sensitivity_table import (
    Figures,
    MeasuredLevel,
    SensitivityTable,
    context_of,
)
from autocompress.technique import TECHNIQUES

LAYERS = ("a", "b")


def knob(kind: Any, targets: str, levels: tuple[Any, ...]) -> Knob:
    return Knob(kind=kind, targets=tuple(targets), levels=levels, label=targets)


SPACE = SearchSpace(
    knobs=(
        knob("weight_bits", "a", (32, 8, 4)),
        knob("weight_bits", "b", (32, 8)),
        knob("pruning_ratio", "a", (0.0, 0.25, 0.5)),
        knob("activation_bits", "ab", (32, 8)),
        knob("quantizer", "a", ("uniform", "kmeans", "binary")),
    )
)
NAMES = [k.name for k in SPACE.knobs]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synthetic:
    """A model whose levels act as the predictor supposes; tables are indexed [knob][level]."""

    divergence: list[list[float]]
    bytes_ratio: list[list[list[float]]]  # per layer
    rest: list[list[int]]
    latency: list[list[float]]

    def figures(self, levels: Mapping[str, int]) -> Figures:
        at = [levels[name] for name in NAMES]
        touched = {"a": at[0] > 0, "b": at[1] > 0}
        share = sum(touched.values()) / 2  # of the layers with 8-bit activations
        method = self.divergence[4][at[4]] if touched["a"] else 1.0
        divergence = self.divergence[0][at[0]] * method
        divergence += self.divergence[1][at[1]] + self.divergence[2][at[2]]
        divergence += self.divergence[3][at[3]] * share
        scales = (1.0, 1.0, 1.0, share, float(touched["a"]))
        layer_bytes = {}
        for i, layer in enumerate(LAYERS):
            size = 1e12
            for k, level in enumerate(at):
                is_on = touched[layer] if k == 3 else touched["a"] if k == 4 else True
                size *= self.bytes_ratio[k][level][i] if is_on else 1.0
            layer_bytes[layer] = round(size)
        rest = 1000 + sum(
            scale * self.rest[k][level]
            for k, (level, scale) in enumerate(zip(at, scales, strict=True))
        )
        return Figures(
            divergence=divergence,
            size_bytes=round(sum(layer_bytes.values()) + rest),
            layer_bytes=layer_bytes,
            latency_ratio=math.prod(
                self.latency[k][level] ** scale
                for k, (level, scale) in enumerate(zip(at, scales, strict=True))
            ),
        )

    def table(self) -> SensitivityTable:
        contexts, options = {}, []
        for k in SPACE.knobs:
            context = context_of(SPACE, k)
            if any(context.values()):
                contexts[k.name] = self.figures(context)
            for level in range(1, len(k.levels)):
                figures = self.figures({**context, k.name: level})
                options.append(MeasuredLevel(knob=k.name, level=level, figures=figures))
        return SensitivityTable(
            baseline=self.figures(dict.fromkeys(NAMES, 0)),
            contexts=contexts,
            options=tuple(options),
            seconds=1.0,
        )


@st.composite
def synthetics(draw: st.DrawFn) -> Synthetic:
    def per_level(numbers: st.SearchStrategy[Any], untouched: Any) -> list[list[Any]]:
        return [[untouched, *(draw(numbers) for _ in k.levels[1:])] for k in SPACE.knobs]

    ratio = st.floats(0.05, 1.5)
    divergence = per_level(st.floats(1e-3, 1.0), 0.0)
    divergence[4][0] = 1.0  # a method multiplies
    ratios = per_level(st.tuples(ratio, ratio), (1.0, 1.0))
    for method in ratios[4]:
        assert len(method) == 2
    ratios[4] = [(a, 1.0) for a, _ in ratios[4]]  # it is layer a's alone
    return Synthetic(
        divergence=divergence,
        bytes_ratio=ratios,
        rest=per_level(st.integers(0, 100).map(lambda n: 2 * n), 0),
        latency=per_level(ratio, 1.0),
    )


EVERY = np.array(list(itertools.product(*(range(len(k.levels)) for k in SPACE.knobs))))


@settings(max_examples=30, deadline=None)
@given(synthetics())
def test_predictor_is_exact_where_options_do_not_interact(model: Synthetic) -> None:
    predictor = Predictor(SPACE, model.table())
    measured = [model.figures(dict(zip(NAMES, row.tolist(), strict=True))) for row in EVERY]

    np.testing.assert_allclose(
        predictor.divergence(EVERY), [f.divergence for f in measured], rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        predictor.size_bytes(EVERY), [f.size_bytes for f in measured], rtol=1e-5
    )
    by_layer = [[f.layer_bytes[name] for name in predictor.layers] for f in measured]
    np.testing.assert_allclose(predictor.layer_bytes(EVERY), by_layer, rtol=1e-5, atol=1.0)
    np.testing.assert_allclose(
        predictor.latency_ratio(EVERY), [f.latency_ratio for f in measured], rtol=1e-9
    )
    shares = predictor.divergences(EVERY)
    assert shares.shape == EVERY.shape
    assert (shares >= 0.0).all()
    np.testing.assert_allclose(shares.sum(axis=1), predictor.divergence(EVERY))


def simple(kind: Any, *levels: Figures | None, base: Figures | None = None) -> Predictor:
    """Of a space with one knob, whose levels have these figures."""
    values = (0.0, *(0.01 * (i + 1) for i in range(len(levels))))
    space = SearchSpace(knobs=(Knob(kind=kind, targets=("a",), levels=values, label="a"),))
    base = base or Figures(divergence=0.0, size_bytes=1000, layer_bytes={"a": 900}, latency_ratio=1)
    table = SensitivityTable(
        baseline=base,
        contexts={"quantizer:a": base} if TECHNIQUES[kind].is_method else {},
        options=tuple(
            MeasuredLevel(knob=f"{kind}:a", level=i, figures=f, reason=None if f else "broke")
            for i, f in enumerate(levels, start=1)
        ),
        seconds=0.0,
    )
    return Predictor(space, table)


def at(divergence: float, size_bytes: int, latency_ratio: float | None = 1.0) -> Figures:
    return Figures(
        divergence=divergence,
        size_bytes=size_bytes,
        layer_bytes={"a": size_bytes - 100},
        latency_ratio=latency_ratio,
    )


def test_live_levels_drops_what_another_level_beats() -> None:
    predictor = simple(
        "pruning_ratio",
        at(0.1, 800),
        at(0.2, 850),  # worse and larger than the first
        at(0.2, 600),
        at(0.2, 600, 1.5),  # as good and as large as the one before, but slower
        at(0.1, 850, 0.5),  # larger, but faster
    )
    assert predictor.live_levels() == ((0, 1, 3, 5),)


def test_live_levels_takes_small_differences_in_latency_for_noise() -> None:
    predictor = simple(
        "pruning_ratio",
        at(0.1, 800, 1.0),
        at(0.1, 800, 0.985),  # within noise of the milder one
        at(0.2, 810, 0.985),
        at(0.2, 810, 0.96),
    )
    assert predictor.live_levels() == ((0, 1, 4),)


def test_live_levels_never_holds_what_failed_and_always_the_untouched() -> None:
    predictor = simple("pruning_ratio", None, at(0.1, 800), None)
    assert predictor.live_levels() == ((0, 2),)
    assert simple("pruning_ratio", None).live_levels() == ((0,),)
    grows = simple("pruning_ratio", at(0.1, 1200))
    assert grows.live_levels() == ((0,),)


def test_live_levels_drops_a_level_that_does_nothing() -> None:
    assert simple("pruning_ratio", at(0.0, 1000), at(0.1, 800)).live_levels() == ((0, 2),)


def test_live_levels_keeps_methods_and_everything_without_sizes() -> None:
    assert simple("quantizer", at(0.3, 1100)).live_levels() == ((0, 1),)
    unsized = Figures(divergence=0.0)
    levels = (Figures(divergence=0.1), Figures(divergence=0.2))
    assert simple("pruning_ratio", *levels, base=unsized).live_levels() == ((0, 1, 2),)


def test_predictor_takes_a_failed_level_for_its_milder_neighbour() -> None:
    predictor = simple("pruning_ratio", at(0.1, 800, 0.9), None, at(0.3, 600, 0.8))
    levels = np.arange(4)[:, None]

    assert predictor.divergence(levels).tolist() == [0.0, 0.1, 0.1, 0.3]
    assert predictor.size_bytes(levels) == pytest.approx([1000, 800, 800, 600])
    assert predictor.latency_ratio(levels) == pytest.approx([1.0, 0.9, 0.9, 0.8])


def test_predictor_counts_bytes_of_layers_that_had_none_as_the_rest() -> None:
    base = Figures(divergence=0.0, size_bytes=1000, layer_bytes={"a": 900, "bn": 0})
    option = Figures(divergence=0.1, size_bytes=560, layer_bytes={"a": 400, "bn": 60})
    predictor = simple("pruning_ratio", option, base=base)
    assert predictor.layers == ("a",)
    assert predictor.size_bytes(np.array([[0], [1]])) == pytest.approx([1000, 560])


def test_predictor_lets_a_layer_be_gone() -> None:
    base = Figures(divergence=0.0, size_bytes=1000, layer_bytes={"a": 600, "b": 300})
    option = Figures(divergence=0.1, size_bytes=390, layer_bytes={"a": 0, "b": 300})
    predictor = simple("drop_block", option, base=base)
    assert predictor.size_bytes(np.array([[1]])) == pytest.approx([390])


def test_predictor_knows_no_latency_where_none_was_measured() -> None:
    base = Figures(divergence=0.0, size_bytes=1000, layer_bytes={"a": 900})
    predictor = simple("pruning_ratio", at(0.1, 800, None), base=base)
    assert not predictor.has_latency
    assert predictor.latency_ratio(np.array([[1]])).tolist() == [1.0]


def test_predictor_of_a_space_without_knobs_predicts_the_untouched_model() -> None:
    table = SensitivityTable(baseline=at(0.0, 1000), contexts={}, options=(), seconds=0.0)
    predictor = Predictor(SearchSpace(knobs=()), table)
    levels = np.zeros((2, 0), dtype=np.int64)
    assert predictor.divergence(levels).tolist() == [0.0, 0.0]
    assert predictor.size_bytes(levels).tolist() == [1000.0, 1000.0]
    assert predictor.live_levels() == ()


PRICED = SearchSpace(
    knobs=(
        knob("weight_bits", "a", (32, 8, 2)),
        knob("weight_bits", "b", (32, 8, 2)),
        knob("pruning_ratio", "a", (0.0, 0.5)),
        knob("rate_price", "ab", (0.0, 0.01, 0.1)),
    )
)


def priced_figures(levels: Mapping[str, int]) -> Figures:
    """Layers of 3200 bytes a weight bit in 100; a price leaves 4 bits or 1, if there are more."""
    bits_a, bits_b, pruned, price = (levels[k.name] for k in PRICED.knobs)
    left = (32.0, 4.0, 1.0)[price]
    held = {}
    for layer, level in (("a", bits_a), ("b", bits_b)):
        bits = (32.0, 8.0, 2.0)[level]
        held[layer] = 100.0 * (min(bits, left) if level else bits)
    held["a"] *= 0.5 if pruned else 1.0
    return Figures(
        divergence=0.01 * (bits_a + bits_b + pruned) + 0.1 * price,
        size_bytes=int(sum(held.values())) + 100,
        layer_bytes={layer: int(n) for layer, n in held.items()},
    )


@pytest.fixture
def priced_table() -> SensitivityTable:
    names = [k.name for k in PRICED.knobs]
    untouched = dict.fromkeys(names, 0)
    context = context_of(PRICED, PRICED.knobs[3])
    assert context == {**untouched, names[0]: 1, names[1]: 1}
    alone = {k.name: context if k.kind == "rate_price" else untouched for k in PRICED.knobs}
    return SensitivityTable(
        baseline=priced_figures(untouched),
        contexts={names[3]: priced_figures(context)},
        options=tuple(
            MeasuredLevel(
                knob=k.name,
                level=level,
                figures=priced_figures({**alone[k.name], k.name: level}),
            )
            for k in PRICED.knobs
            for level in range(1, len(k.levels))
        ),
        seconds=0.0,
    )


EVERY_PRICED = np.array(list(itertools.product(*(range(len(k.levels)) for k in PRICED.knobs))))


def test_predictor_takes_bits_or_their_price_whichever_leaves_fewer_bytes(
    priced_table: SensitivityTable,
) -> None:
    names = [k.name for k in PRICED.knobs]
    expected = [
        priced_figures(dict(zip(names, row.tolist(), strict=True))).size_bytes
        for row in EVERY_PRICED
    ]
    sizes = Predictor(PRICED, priced_table).size_bytes(EVERY_PRICED)
    assert sizes == pytest.approx(expected, rel=1e-6)


def test_predictor_takes_a_price_that_could_not_be_measured_for_none(
    priced_table: SensitivityTable,
) -> None:
    options = tuple(
        dataclasses.replace(o, figures=None, reason="broke") if "rate_price" in o.knob else o
        for o in priced_table.options
    )
    predictor = Predictor(PRICED, dataclasses.replace(priced_table, contexts={}, options=options))
    without = EVERY_PRICED.copy()
    without[:, 3] = 0
    assert (predictor.size_bytes(EVERY_PRICED) == predictor.size_bytes(without)).all()
    assert predictor.live_levels()[3] == (0,)


def _deep(**changed: float) -> Predictor:
    """Two blocks that can be left out, channels inside the first, and 8-bit activations."""
    knobs = (
        Knob(kind="drop_block", targets=("block0",), levels=(0, 1), label="block0"),
        Knob(kind="drop_block", targets=("block1",), levels=(0, 1), label="block1"),
        Knob(kind="pruning_ratio", targets=("block0.a",), levels=(0.0, 0.5), label="block0.a"),
        Knob(kind="weight_bits", targets=("block0.a",), levels=(32, 8), label="w"),
        Knob(kind="activation_bits", targets=("block0.a",), levels=(32, 8), label="x"),
    )
    space = SearchSpace(knobs=knobs)
    ratios = {"drop_block:block0": 0.8, "drop_block:block1": 0.7, "pruning_ratio:block0.a": 1.1}
    ratios |= {"weight_bits:w": 1.0, "activation_bits:x": 0.5}
    ratios |= {f"drop_block:{block}": ratio for block, ratio in changed.items()}
    figures = {
        name: Figures(divergence=0.0, size_bytes=1, layer_bytes={}, latency_ratio=ratio)
        for name, ratio in ratios.items()
    }
    base = Figures(divergence=0.0, size_bytes=1, layer_bytes={}, latency_ratio=1.0)
    table = SensitivityTable(
        baseline=base,
        contexts={"activation_bits:x": base},
        options=tuple(MeasuredLevel(knob=name, level=1, figures=f) for name, f in figures.items()),
        seconds=0.0,
    )
    return Predictor(space, table)


@pytest.mark.parametrize(
    ("levels", "ratio"),
    [
        ((0, 0, 0, 0, 0), 1.0),
        ((1, 1, 0, 0, 0), 1.0 - 0.2 - 0.3),  # what blocks save adds up
        ((0, 1, 1, 0, 0), 1.0 - 0.3 + 0.1),
        ((1, 0, 1, 0, 0), 1.0 - 0.2),  # channels of a block that is gone count no more
        ((0, 0, 0, 1, 1), 0.5),
        ((0, 1, 1, 1, 1), 0.5 * (1.0 - 0.3 + 0.1)),
        ((1, 1, 1, 0, 1), 1.0 - 0.2 - 0.3),  # 8-bit activations of float weights do nothing
    ],
)
def test_latency_is_what_structure_saves_of_what_integers_leave(
    levels: tuple[int, ...], ratio: float
) -> None:
    assert _deep().latency_ratio(np.array([levels])).tolist() == pytest.approx([ratio])


def test_latency_never_falls_to_nothing() -> None:
    predictor = _deep(block0=0.4, block1=0.3)
    assert predictor.latency_ratio(np.array([[1, 1, 0, 1, 1]])).tolist() == pytest.approx([0.025])
