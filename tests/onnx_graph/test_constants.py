import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from autocompress.onnx_graph.constants import constant_names, constant_values


def model() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]),
        helper.make_node("Concat", ["turned", "turned"], ["joined"], axis=0),
        helper.make_node("MatMul", ["x", "joined"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y")]
    tensors = [numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_constant_names_are_those_no_input_reaches():
    assert constant_names(model().graph) == {"w", "turned", "joined"}


def test_constant_values_computes_what_is_asked():
    found = constant_values(model(), ["joined", "w"])
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert found.keys() == {"joined", "w"}
    assert np.array_equal(found["joined"], np.concatenate([w.T, w.T]))
    assert np.array_equal(found["w"], w)
