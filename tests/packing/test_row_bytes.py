"""Bytes of each tensor of a packed file: exact where they can be, and they add up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from autocompress.compress.codes import QuantizedTensor
from autocompress.errors import InputError
from autocompress.packing.ledger import read_ledger, tensor_bytes
from autocompress.packing.packed import write_packed


def product_of(**values: Any) -> onnx.ModelProto:
    """A graph that multiplies its input by each of these in turn."""
    names = ["x", *(f"y{i}" for i in range(len(values)))]
    nodes = [
        helper.make_node("Mul", [names[i], name], [names[i + 1]]) for i, name in enumerate(values)
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, ["n", 64])],
        initializer=[numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_tensor_bytes_add_up_to_what_is_coded(
    seed: int, make_example: Callable[[int], Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    example, path = make_example(seed), tmp_path_factory.mktemp("packed") / "model.acz"
    write_packed(path, example.model, example.quantized, {})
    found, ledger = tensor_bytes(path, example.model), read_ledger(path).n_bytes

    assert set(found) == {tensor.name for tensor in example.model.graph.initializer}
    assert min(found.values()) >= 0
    assert sum(found.values()) == ledger["payload"] + ledger["scales"] + ledger["floats"]


def test_tensor_bytes_are_exact_for_what_is_not_pooled(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(8, 64)).astype(np.float32)
    codes = rng.integers(-7, 8, size=(8, 64)).astype(np.int8)
    scale = np.full(8, 0.1, np.float32) + np.arange(8, dtype=np.float32) * 1e-4
    stored = QuantizedTensor(codes=codes, scale=scale, axis=0, bits=4)
    model = product_of(
        first=rng.normal(size=(1, 64)).astype(np.float32),
        weight=weight[:1],
        again=weight[:1].copy(),
        stored=stored.dequantize(),
    )
    path = tmp_path / "model.acz"
    # the product broadcasts rows, which is enough for a graph that is never run
    write_packed(path, model, {"stored": stored}, {})
    found, ledger = tensor_bytes(path, model), read_ledger(path).n_bytes

    assert found["first"] == found["weight"] == 4 * 64
    assert found["again"] == 0
    assert found["stored"] == ledger["payload"] + 4 * 8  # its codes, and scales as float32
    assert 0.8 * 8 * 64 / 2 < ledger["payload"] <= 8 * 64 / 2


def test_tensor_bytes_share_out_half_floats_by_number(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    halves = [rng.normal(size=(1, 64)).astype(np.float16).astype(np.float32) for _ in range(3)]
    model = product_of(a=halves[0], b=halves[1], c=halves[2], scalar=np.float32(0.5))
    path = tmp_path / "model.acz"
    write_packed(path, model, {}, {})
    found = tensor_bytes(path, model)

    assert sum(found.values()) == read_ledger(path).n_bytes["floats"] < 2 * (3 * 64 + 1) + 10
    assert max(found[n] for n in "abc") - min(found[n] for n in "abc") <= 1
    assert found["scalar"] <= 2


def test_tensor_bytes_refuses_another_graph(tmp_path: Path) -> None:
    path = tmp_path / "model.acz"
    write_packed(path, product_of(a=np.ones((1, 64), np.float32)), {}, {})
    with pytest.raises(InputError, match=r"model\.acz' must hold the given graph"):
        tensor_bytes(path, product_of(a=np.ones((2, 64), np.float32)))


def test_tensor_bytes_refuses_a_damaged_file(tmp_path: Path) -> None:
    path, model = tmp_path / "model.acz", product_of(a=np.ones((1, 64), np.float32))
    write_packed(path, model, {}, {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="must be an undamaged packed model"):
        tensor_bytes(path, model)
