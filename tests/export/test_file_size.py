"""Bytes of a file that keeps its weights elsewhere."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autocompress.export.bench import size_of


def external(path: Path, name: str, location: str) -> onnx.TensorProto:
    """A weight of 400 bytes in a file beside `path`."""
    tensor = numpy_helper.from_array(np.ones(100, np.float32), name)
    (path.parent / location).write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    return tensor


def test_size_of_counts_the_weights_that_a_graph_names_once_each(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [100])
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=external(path, "k", "constants"))],
        "branch",
        [],
        [output],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["a"], ["y"], then_branch=branch, else_branch=branch)],
        "graph",
        [],
        [output],
        [external(path, name, "weights.bin") for name in "bc"],
    )
    onnx.save(helper.make_model(graph), path)
    (tmp_path / "model.onnx.data").write_bytes(b"of another model")
    assert size_of(path) == path.stat().st_size + 800
    (tmp_path / "weights.bin").unlink()
    assert size_of(path) == path.stat().st_size + 400


@pytest.mark.parametrize("location", ["x" * 5000, "nul\0", "."])
def test_size_of_bears_names_that_no_file_can_have(tmp_path: Path, location: str) -> None:
    path = tmp_path / "model.onnx"
    weight = external(path, "w", "weights.bin")
    weight.external_data[0].value = location
    onnx.save(helper.make_model(helper.make_graph([], "graph", [], [], [weight])), path)
    assert size_of(path) == path.stat().st_size


def test_size_of_takes_what_is_no_graph_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no graph")
    assert size_of(path) == 8


def test_size_of_counts_the_weights_of_openvino(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_bytes(b"12345")
    assert size_of(tmp_path / "model.xml") == 5
    (tmp_path / "model.bin").write_bytes(b"123")
    assert size_of(tmp_path / "model.xml") == 8
