"""One walk goes through branches in branches, in the order of the graph."""

import onnx
from onnx import TensorProto, helper

from autocompress.onnx_graph.graph import readers, rename_values
from autocompress.onnx_graph.messages import messages_in, tensors_in


def branch(name: str, reads: str, *inner: onnx.NodeProto) -> onnx.GraphProto:
    """A graph that multiplies what it reads by one."""
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("Constant", [], [f"{name}_one"], name=f"{name}_one", value=value),
        *inner,
        helper.make_node("Mul", [reads, f"{name}_one"], [f"{name}_out"], name=f"{name}_out"),
    ]
    out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [1])
    return helper.make_graph(nodes, name, [], [out])


def choice(name: str, first: onnx.GraphProto, second: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If", ["c"], [name], name=name, else_branch=first, then_branch=second)


def nested() -> onnx.GraphProto:
    inner = choice("inner", branch("deep", "w"), branch("deeper", "x"))
    outer = choice("outer", branch("first", "inner", inner), branch("second", "x"))
    last = helper.make_node("Neg", ["outer"], ["y"], name="last")
    kinds = {"c": TensorProto.BOOL, "x": TensorProto.FLOAT}
    inputs = [helper.make_tensor_value_info(name, kind, [1]) for name, kind in kinds.items()]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [2.0])
    return helper.make_graph([outer, last], "g", inputs, [out], [weight])


def test_messages_in_keeps_the_order_of_nodes_at_any_depth():
    names = [part.name for part in messages_in(nested()) if isinstance(part, onnx.NodeProto)]
    first = ["first_one", "inner", "deep_one", "deep_out", "deeper_one", "deeper_out", "first_out"]
    assert names == ["outer", *first, "second_one", "second_out", "last"]


def test_messages_in_starts_with_the_message_itself():
    node = nested().node[0]
    graphs = [part.name for part in messages_in(node) if isinstance(part, onnx.GraphProto)]
    assert next(messages_in(node)) is node
    assert graphs == ["first", "deep", "deeper", "second"]


def test_tensors_in_finds_initializers_and_constants_of_inner_graphs():
    names = [tensor.name for tensor in tensors_in(helper.make_model(nested()))]
    assert sorted(names) == ["value", "value", "value", "value", "w"]


def test_readers_looks_into_inner_graphs():
    found = readers(nested())
    assert [node.name for node in found["w"]] == ["outer"]
    assert [node.name for node in found["outer"]] == ["last"]


def test_rename_values_renames_what_inner_graphs_read():
    graph = nested()
    rename_values(graph, {"w": "weight"})
    assert list(readers(graph)).count("w") == 0
    assert [node.name for node in readers(graph)["weight"]] == ["outer"]
    onnx.checker.check_model(helper.make_model(graph))
