import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autocompress.errors import InputError
from autocompress.export.loading.counterparts import find_counterparts
from autocompress.onnx_graph.constants import constant_values


def model(nodes, initializers=None, inputs=("x",), outputs=("y",)) -> onnx.ModelProto:
    def info(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    tensors = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in (initializers or {}).items()
    ]
    graph = helper.make_graph(
        nodes, "g", [info(name) for name in inputs], [info(name) for name in outputs], tensors
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(op, inputs, outputs, name="", **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), name=name, **attributes)


W, B = np.ones((2, 3, 1, 1), np.float32), np.ones(2, np.float32)
NORM = {"gamma": B, "beta": B, "mean": B, "variance": B}
FRESH = [
    node("Conv", "x w", "a", "conv"),
    node("Asin", "a", "marked"),
    node("BatchNormalization", "marked gamma beta mean variance", "n"),
    node("Relu", "n", "y"),
]


def test_a_kept_norm_pairs_its_four_tensors():
    kept = [*FRESH[:1], node("BatchNormalization", "a gamma beta mean variance", "n"), FRESH[3]]
    found = find_counterparts(model(FRESH, {"w": W, **NORM}), model(kept, {"w": W, **NORM}))
    assert {pair[:2] for pair in found.tensors} == {(name, name) for name in ("w", *NORM)}
    assert found.norms == (("mean", ""),)
    assert [use.new_bias for use in found.layers] == [""]


def test_a_folded_norm_becomes_the_bias_of_its_layer():
    folded = [node("Conv", "x k b", "c"), node("Relu", "c", "y")]
    found = find_counterparts(model(FRESH, {"w": W, **NORM}), model(folded, {"k": W, "b": B}))
    assert {pair[:2] for pair in found.tensors} == {("w", "k")}
    assert found.norms == (("mean", "w"),)
    assert [use.new_bias for use in found.layers] == ["b"]


def test_a_folded_norm_needs_a_bias_in_its_place():
    bare = [node("Conv", "x k", "c"), node("Relu", "c", "y")]
    with pytest.raises(InputError, match="no bias in its place"):
        find_counterparts(model(FRESH, {"w": W, **NORM}), model(bare, {"k": W}))


INTEGER = [
    node("QuantizeLinear", "x s z", "x_q"),
    node("DequantizeLinear", "x_q s z", "x_dq"),
    node("DequantizeLinear", "k ks", "k_dq", axis=0),
    node("Conv", "x_dq k_dq b", "c"),
    node("QuantizeLinear", "c s zero", "c_q"),  # saturation in place of the ReLU
    node("DequantizeLinear", "c_q s zero", "y"),
]
CODES = {
    "s": np.float32(0.5),
    "z": np.uint8(3),
    "zero": np.uint8(0),
    "k": np.array([[[[2]]] * 3] * 2, np.int8),
    "ks": np.array([0.5, 0.25], np.float32),
    "b": B,
}


def test_integer_graphs_are_seen_through():
    packed = model(INTEGER, CODES)
    found = find_counterparts(model(FRESH, {"w": W, **NORM}), packed)
    assert {pair[:2] for pair in found.tensors} == {("w", "k_dq")}
    assert [use.grid for use in found.layers] == [("s", "z")]
    weight = constant_values(packed, ["k_dq"])["k_dq"]
    assert np.array_equal(weight, np.array([[[[1.0]]] * 3, [[[0.5]]] * 3], np.float32))


def test_a_clamp_is_not_passed_over_where_the_grid_goes_on():
    packed = model(INTEGER, CODES | {"zero": np.uint8(1)})
    with pytest.raises(InputError, match="has `Relu` where the file has `Conv`"):
        find_counterparts(model(FRESH, {"w": W, **NORM}), packed)


def test_a_clamp_is_not_passed_over_without_a_grid():
    packed = model([node("Conv", "x k b", "y")], {"k": W, "b": B})
    with pytest.raises(InputError, match="has `Relu` where the file has `Conv`"):
        find_counterparts(model(FRESH, {"w": W, **NORM}), packed)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([node("Relu", "x", "y")], [node("Tanh", "x", "y")], "`Relu` where the file has `Tanh`"),
        (
            [node("Softmax", "x", "y", axis=1)],
            [node("Softmax", "x", "y", axis=2)],
            "`Softmax` with axis = 1 where the file has 2",
        ),
        (
            [node("Relu", "x", "a"), node("Add", "a a", "y")],
            [node("Relu", "x", "a"), node("Relu", "x", "b"), node("Add", "a b", "y")],
            "one value where the file has two different ones",
        ),
        ([node("Add", "x w", "y")], [node("Add", "x x", "y")], "reads a constant"),
        ([node("Clip", "x w", "y")], [node("Clip", "x w w", "y")], "2 inputs where the file has 3"),
        (
            [node("Split", "x", "y z")],
            [node("Split", "x", "z y")],
            "one output of a node where the file has another",
        ),
    ],
)
def test_find_counterparts_says_where_networks_part(ours, theirs, message):
    ours, theirs = model(ours, {"w": B}), model(theirs, {"w": B})
    with pytest.raises(InputError, match=message):
        find_counterparts(ours, theirs)


def test_find_counterparts_tells_inputs_apart():
    ours = model([node("Sub", "x z", "y")], inputs=("x", "z"))
    theirs = model([node("Sub", "z x", "y")], inputs=("x", "z"))
    with pytest.raises(InputError, match=r"input '[xz]' where the file has input '[xz]'"):
        find_counterparts(ours, theirs)
    with pytest.raises(InputError, match="as many inputs as the file's graph, 1, but has 2"):
        find_counterparts(ours, model([node("Relu", "x", "y")]))


def test_any_width_passes_over_numbers_of_groups():
    ours, theirs = (model([node("Conv", "x w", "y", group=n)], {"w": W}) for n in (2, 4))
    with pytest.raises(InputError, match="group = 2 where the file has 4"):
        find_counterparts(ours, theirs)
    assert len(find_counterparts(ours, theirs, any_width=True).tensors) == 1
