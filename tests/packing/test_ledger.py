"""The ledger: every byte has a row and a kind, and nothing is counted twice."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from autocompress.compress.codes import GridTensor, QuantizedTensor
from autocompress.errors import InputError
from autocompress.packing.ledger import est_entropy_bytes, read_ledger
from autocompress.packing.packed import write_packed
from autocompress.plan import CompressionPlan, LayerPlan

KINDS = ["header", "graph", "payload", "scales", "floats"]


def product_of(**values: Any) -> onnx.ModelProto:
    """A graph that multiplies its input by each of these in turn."""
    names = ["x", *(f"y{i}" for i in range(len(values)))]
    nodes = [
        helper.make_node("Mul", [names[i], name], [names[i + 1]]) for i, name in enumerate(values)
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", None, 64])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, ["n", None, 64])],
        initializer=[numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_ledger_adds_up_to_the_file(
    seed: int, make_example: Callable[[int], Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    example, path = make_example(seed), tmp_path_factory.mktemp("packed") / "model.acz"
    write_packed(path, example.model, example.quantized, example.metadata)
    ledger = read_ledger(path)

    assert list(ledger.n_bytes) == KINDS
    assert min(ledger.n_bytes.values()) > 0
    assert ledger.size_bytes == os.stat(path).st_size
    for kind in ("payload", "scales", "floats"):
        parts = [getattr(row.n_bytes, kind) for row in ledger.rows]
        assert min(parts) >= 0
        assert sum(parts) == ledger.n_bytes[kind]
    assert len(ledger.rows) == len(example.model.graph.initializer)
    for row in ledger.rows:
        assert (row.est_entropy_bytes is None) == (row.n_bytes.payload == 0)
        assert row.n_values == math.prod(row.shape)


@pytest.mark.parametrize(
    ("symbols", "expected"),
    [
        (np.arange(8), 8 * 3 / 8),
        (np.zeros((3, 5), np.int8), 0.0),
        (np.array([1, 1, 1, -9]), (3 * math.log2(4 / 3) + 2) / 8),
        (np.array([], np.int8), 0.0),
    ],
)
def test_est_entropy_bytes_is_shannons_formula(symbols: Any, expected: float) -> None:
    assert est_entropy_bytes(symbols) == pytest.approx(expected)


def test_read_ledger_says_what_each_tensor_takes(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "model.acz"
    codes = rng.integers(-7, 8, size=(8, 64)).astype(np.int8)
    scale = np.linspace(0.1, 0.2, 8, dtype=np.float32)  # not exact in float16
    stored = QuantizedTensor(codes=codes, scale=scale, axis=0, bits=4)
    shifted = rng.integers(0, 4, size=(2, 64)).astype(np.uint8)
    grid = GridTensor(
        codes=shifted,
        scale=np.full((2, 2), 0.5, np.float32),
        zero_point=np.array([[0, 1], [2, 3]], np.uint8),
        block_size=32,
        axis=0,
        bits=2,
    )
    plain = rng.normal(size=(1, 64)).astype(np.float32)
    model = product_of(a=stored.dequantize(), b=grid.dequantize(), c=plain, d=plain.copy())
    write_packed(path, model, {"a": stored, "b": grid}, {"other": 1})
    first, second, third, fourth = read_ledger(path).rows

    assert (first.users, first.shape, first.bits) == (("Mul_0",), (8, 64), 4)
    assert first.stored_as == "codes, 8 scales"
    assert first.n_bytes.scales == 4 * 8
    assert first.est_entropy_bytes == pytest.approx(est_entropy_bytes(codes))
    assert first.bits_per_value == 8 * (first.n_bytes.payload + 32) / (8 * 64)
    entropies = [
        est_entropy_bytes(shifted.astype(int) - offset)
        for offset in (0, np.repeat(grid.zero_point.astype(int), 32, axis=1))
    ]
    assert second.stored_as == "codes in blocks of 32, 1 scale"
    assert min(abs(second.est_entropy_bytes - entropy) for entropy in entropies) < 1e-9
    assert (third.n_bytes.floats, third.bits, third.est_entropy_bytes) == (4 * 64, 32, None)
    assert (fourth.n_bytes.total, fourth.bits, fourth.stored_as) == (0, 32, "as tensor 2")


def test_read_ledger_tells_graph_and_plan(tmp_path: Path) -> None:
    path, model = tmp_path / "model.acz", product_of(a=np.ones((1, 64), np.float32))
    plan = CompressionPlan(layers={"fc": LayerPlan(weight_bits=4)})
    write_packed(path, model, {}, {"plan": plan.to_json(), "by": "a test"})
    ledger = read_ledger(path)

    assert ledger.version == 1
    assert ledger.inputs == {"x": ("n", None, 64)}
    assert ledger.outputs == {"y0": ("n", None, 64)}
    assert ledger.plan_digest == plan.digest
    assert set(ledger.metadata_keys) == {"plan", "by"}


@pytest.mark.parametrize(
    "plan", [None, 7, {"layers": {}}, {"layers": {}, "pruning_ratios": {"a": 10**400}}]
)
def test_read_ledger_takes_a_plan_of_another_kind_for_none(plan: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.acz"
    write_packed(path, product_of(a=np.ones((1, 64), np.float32)), {}, {"plan": plan})
    assert read_ledger(path).plan_digest is None


def test_read_ledger_refuses_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "model.acz"
    write_packed(path, product_of(a=np.ones((1, 64), np.float32)), {}, {})
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"model\.acz' must be .* the checksum does not match"):
        read_ledger(path)
