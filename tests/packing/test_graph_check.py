"""What is refused of a graph before anything runs it."""

import onnx
import pytest
from onnx import TensorProto, helper

from autocompress.errors import InputError
from autocompress.packing.packed import MAX_MESSAGES, check_graph, check_size


def model_of(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])]
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    )


def test_check_size_counts_every_message() -> None:
    model = onnx.ModelProto()
    for _ in range(MAX_MESSAGES - 2):  # the model and its graph count, too
        model.graph.node.add()
    check_size(model)
    model.opset_import.add()
    with pytest.raises(InputError, match=f"at most {MAX_MESSAGES} nodes"):
        check_size(model)


def test_check_graph_accepts_a_chain() -> None:
    check_graph(model_of(helper.make_node("Neg", ["x"], ["y"])))


@pytest.mark.parametrize(
    ("nodes", "match"),
    [
        ([("Neg", "b", "a"), ("Neg", "a", "b"), ("Neg", "a", "y")], "topologically sorted"),
        ([("Neg", "y", "y")], "topologically sorted|single static assignment"),
        ([("Neg", "x", "y"), ("Abs", "x", "y")], "single static assignment"),
        ([("Negg", "x", "y")], "No Op registered for Negg"),
    ],
)
def test_check_graph_refuses_circles_and_nonsense(
    nodes: list[tuple[str, str, str]], match: str
) -> None:
    with pytest.raises(InputError, match=match):
        check_graph(model_of(*(helper.make_node(k, [a], [b]) for k, a, b in nodes)))


def test_check_graph_refuses_functions_that_call_each_other() -> None:
    model = model_of(helper.make_node("A", ["x"], ["y"], domain="f"))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    for name, other in ("AB", "BA"):
        body = [helper.make_node(other, ["p"], ["q"], domain="f")]
        model.functions.append(helper.make_function("f", name, ["p"], ["q"], body, opsets))
    with pytest.raises(InputError, match="Cycle detected"):
        check_graph(model)


def test_check_graph_refuses_data_in_other_files_at_any_depth() -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secrets")
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    with pytest.raises(InputError, match="'w' lies in another file"):
        check_graph(model_of(node))
