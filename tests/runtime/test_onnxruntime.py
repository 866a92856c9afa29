import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from autocompress.errors import TrialError
from autocompress.onnx_graph.session import make_session
from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.onnxruntime import executed_integer_nodes, executed_ops, predict


def graph(*nodes, **initializers):
    """From `x` to `y`, of any size."""
    kept = [numpy_helper.from_array(value, name) for name, value in initializers.items()]
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", "m"]) for n in "xy")
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    inner = helper.make_graph(nodes, "graph", [x], [y], kept)
    return helper.make_model(inner, opset_imports=domains, ir_version=8)


@pytest.fixture
def linear():
    return export_onnx(nn.Linear(5, 3), (torch.zeros(2, 5),), {}).model


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_predict_in_batches_equals_the_whole(linear, batch_size):
    session = make_session(linear, threads=1)
    x = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    whole = session.run(None, {"input": x})[0]
    got = predict(session, (x,), batch_size)
    assert got.shape == (8, 3)
    np.testing.assert_allclose(got, whole, rtol=0, atol=1e-6)


def test_predict_raises_when_the_number_of_inputs_differs(linear):
    x = np.zeros((2, 5), np.float32)
    with pytest.raises(ValueError, match="argument"):
        predict(make_session(linear, threads=1), (x, x), 2)


def test_predict_raises_one_line_when_the_graph_cannot_be_run(linear):
    with pytest.raises(TrialError, match="ONNX Runtime cannot run the graph") as caught:
        predict(make_session(linear, threads=1), (np.zeros((2, 4), np.float32),), 2)
    assert caught.value.reason == "runtime"
    assert "\n" not in str(caught.value)


def test_make_session_takes_graph_bytes_and_file(linear, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(linear, path)
    x = np.ones((2, 5), np.float32)
    sources = (linear, linear.SerializeToString(), path)
    results = [predict(make_session(source, threads=1), (x,), 2) for source in sources]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_make_session_pins_threads(linear):
    options = make_session(linear, threads=2).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)


def test_make_session_raises_one_line_when_the_graph_is_damaged():
    with pytest.raises(TrialError, match="ONNX Runtime refuses the graph") as caught:
        make_session(b"no graph", threads=1)
    assert caught.value.reason == "runtime"
    assert "\n" not in str(caught.value)


def test_executed_ops_counts_the_optimised_graph(linear):
    assert executed_ops(linear) == {"Gemm": 1}
    assert executed_integer_nodes(linear) == 0


@pytest.mark.parametrize(("level", "n_integer"), [(4, 1), (1, 0)])
def test_executed_integer_nodes_counts_products_that_round_their_inputs(level, n_integer):
    sizes = {"K": 32, "N": 4, "bits": 8, "block_size": 16, "accuracy_level": level}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **sizes)
    model = graph(node, w=np.full((4, 2, 16), 129, np.uint8), s=np.ones((4, 2), np.float32))
    assert executed_ops(model) == {"MatMulNBits": 1}
    assert executed_integer_nodes(model) == n_integer


def test_executed_integer_nodes_does_not_count_conversions():
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    model = graph(*nodes)
    assert executed_ops(model)["DynamicQuantizeLinear"] == 1
    assert executed_integer_nodes(model) == 0
