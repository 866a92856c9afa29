import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.recurrent import unstack_recurrent
from autocompress.runtime.weight_match import content_of


def graph_of(op, weight):
    """A recurrent node of one direction with zero biases."""
    node = helper.make_node(op, ["x", "W", "R"], ["y", "h"], hidden_size=2)
    value = helper.make_tensor_value_info
    return helper.make_graph(
        [node],
        "g",
        [value("x", 1, [3, 1, weight.shape[2]])],
        [value("y", 1, None)],
        initializer=[
            numpy_helper.from_array(weight, "W"),
            numpy_helper.from_array(np.zeros((1, weight.shape[1], 2), np.float32), "R"),
        ],
    )


@pytest.mark.parametrize(
    ("op", "gates"), [("LSTM", [0, 3, 1, 2]), ("GRU", [1, 0, 2]), ("RNN", [0])]
)
def test_unstack_recurrent_puts_gates_into_pytorchs_order(op, gates):
    torch_order = np.arange(len(gates) * 2 * 4, dtype=np.float32).reshape(-1, 4)
    stacked = torch_order.reshape(len(gates), 2, 4)[gates].reshape(1, -1, 4)
    graph = graph_of(op, stacked)
    unstack_recurrent(graph, {content_of(torch_order)})
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    np.testing.assert_array_equal(values["W_0"], torch_order)
    inner = onnx.helper.make_graph(
        list(graph.node)[:-1],
        "inner",
        [],
        [helper.make_tensor_value_info("W_stacked", 1, None)],
        initializer=list(graph.initializer),
    )
    model = helper.make_model(inner, opset_imports=[helper.make_opsetid("", 17)])
    (again,) = onnx.reference.ReferenceEvaluator(model).run(None, {})
    np.testing.assert_array_equal(again, stacked)
    assert graph.node[-1].input[1] == "W_stacked"


def test_unstack_recurrent_leaves_other_weights_alone():
    graph = graph_of("LSTM", np.ones((1, 8, 4), np.float32))
    before = graph.SerializeToString()
    unstack_recurrent(graph, {content_of(np.zeros((8, 4), np.float32))})
    assert graph.SerializeToString() == before


def test_a_recurrent_net_starts_from_zeros_for_every_batch(store):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(5, 6, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[1][0][-1]

    torch.manual_seed(0)
    module = Last().eval()
    weights = store(module, "quantized")
    one_direction = {"rnn.weight_hh_l0": weights["rnn.weight_hh_l0"]}
    exported = export_onnx(module, (torch.randn(2, 4, 5),), one_direction)
    assert set(exported.quantized) == {"rnn.weight_hh_l0"}
    session = onnx.reference.ReferenceEvaluator(exported.model)
    for n_examples in (1, 5):
        x = torch.randn(n_examples, 4, 5)
        with torch.no_grad():
            want = module(x).numpy()
        (got,) = session.run(None, {"input": x.numpy()})
        np.testing.assert_allclose(got, want, atol=2e-3)
