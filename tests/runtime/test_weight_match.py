import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from autocompress.runtime.weight_match import (
    content_of,
    fold_transposes,
    match_weights,
    parameter_of,
    stored_in_graph,
    weight_contents,
)


def graph_of(nodes, **initializers):
    tensors = [numpy_helper.from_array(value, name) for name, value in initializers.items()]
    output = helper.make_tensor_value_info("out", 1, None)
    return helper.make_graph(nodes, "g", [], [output], initializer=tensors)


def matmul(weight, output="out", scope=""):
    return helper.make_node("MatMul", ["x", weight], [output], name=scope)


@pytest.mark.parametrize(
    ("key", "parameter"),
    [("0", "0.weight"), ("1.weight_ih_l0", "1.weight_ih_l0"), ("", "weight")],
)
def test_parameter_of_tells_layers_from_parameters(key, parameter):
    assert parameter_of(key, nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2))) == parameter


def test_parameter_of_finds_a_layer_under_its_second_name():
    module = nn.ModuleDict({"first": nn.Linear(2, 2)})
    module["second"] = module["first"]
    assert parameter_of("second", module) == "second.weight"


def test_content_of_does_not_tell_zeros_apart_but_shapes():
    zeros = np.zeros((2, 3), np.float32)
    assert content_of(zeros) == content_of(-zeros)
    assert content_of(zeros) != content_of(zeros.T)
    assert content_of(np.arange(6.0).reshape(2, 3).T) == content_of(
        np.ascontiguousarray(np.arange(6.0).reshape(2, 3).T)
    )


def test_match_weights_finds_both_layouts_of_a_tied_weight(store):
    torch.manual_seed(0)
    module = nn.ModuleDict({"embed": nn.Embedding(7, 4), "head": nn.Linear(4, 7, bias=False)})
    module["head"].weight = module["embed"].weight
    weights = store(module, "codebook")
    values = weights["embed"].dequantize()
    gather = helper.make_node("Gather", ["table", "tokens"], ["x"], name="embed")
    graph = graph_of(
        [gather, matmul("onnx::MatMul_1", scope="head")],
        **{"table": values, "onnx::MatMul_1": np.ascontiguousarray(values.T)},
    )
    matched = match_weights(graph, weight_contents(module, weights))
    assert matched == {"embed.weight": ("embed", "head"), "head.weight": ("embed", "head")}
    assert [n.input[0 if n.op_type == "Gather" else 1] for n in graph.node] == list(matched)
    stored = stored_in_graph(graph, matched, weights)
    np.testing.assert_array_equal(stored["embed.weight"].dequantize(), values)
    np.testing.assert_array_equal(stored["head.weight"].dequantize(), values.T)


def test_match_weights_leaves_what_it_does_not_know():
    module = nn.Sequential(nn.Linear(3, 3))
    graph = graph_of([matmul("other")], other=np.eye(3, dtype=np.float32))
    assert match_weights(graph, weight_contents(module, {})) == {}
    assert graph.initializer[0].name == "other"


def test_fold_transposes_turns_constant_matrices_only():
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    turn = helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0])
    keep = helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])
    model = helper.make_model(graph_of([turn, keep, matmul("turned")], w=weight))
    fold_transposes(model)
    assert [n.op_type for n in model.graph.node] == ["Transpose", "MatMul"]
    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    np.testing.assert_array_equal(values["turned"], weight.T)
