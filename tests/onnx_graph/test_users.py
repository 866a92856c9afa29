"""Who computes with a constant: looked up through nodes that fold, and into inner graphs."""

import numpy as np
from onnx import GraphProto, TensorProto, helper, numpy_helper

from autocompress.onnx_graph.users import MAX_USERS, users_of


def graph_of(nodes: list[tuple[str, str, str]], *constants: str) -> GraphProto:
    """Nodes as (operator, inputs, output), names parted by spaces."""
    made = [
        helper.make_node(kind, reads.split(), [out], name=f"{kind}_{i}")
        for i, (kind, reads, out) in enumerate(nodes)
    ]
    value = helper.make_tensor_value_info
    return helper.make_graph(
        made,
        "g",
        [value("x", TensorProto.FLOAT, None)],
        [value(made[-1].output[0], TensorProto.FLOAT, None)],
        initializer=[numpy_helper.from_array(np.zeros(2, np.float32), name) for name in constants],
    )


def test_users_of_names_nodes_in_the_order_of_the_graph() -> None:
    graph = graph_of([("Mul", "x a", "h"), ("Add", "h b", "i"), ("Add", "i a", "y")], "a", "b", "c")
    assert users_of(graph) == {"a": ("Mul_0", "Add_2"), "b": ("Add_1",), "c": ()}


def test_users_of_looks_through_nodes_that_compute_with_constants_alone() -> None:
    graph = graph_of(
        [
            ("DequantizeLinear", "w s", "d"),
            ("Transpose", "d", "t"),
            ("MatMul", "x t", "h"),
            ("Mul", "h s", "y"),
        ],
        "w",
        "s",
    )
    assert users_of(graph) == {"w": ("MatMul_2",), "s": ("MatMul_2", "Mul_3")}


def test_users_of_names_the_last_node_when_a_constant_only_leaves_the_graph() -> None:
    graph = graph_of([("Neg", "w", "n"), ("Abs", "n", "y")], "w")
    assert users_of(graph) == {"w": ("Abs_1",)}


def test_users_of_looks_into_inner_graphs() -> None:
    inner = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["z"])],
        "inner",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    graph = graph_of([("If", "x", "y")], "w")
    graph.node[0].attribute.append(helper.make_attribute("then_branch", inner))
    assert users_of(graph) == {"w": ("If_0",)}


def test_users_of_stays_quick_and_short_when_a_chain_is_long() -> None:
    names = [f"c{i}" for i in range(2000)]
    chain = [("Add", f"v{i} {name}", f"v{i + 1}") for i, name in enumerate(names)]
    chain += [("Mul", f"x v{len(names)}", f"y{i}") for i in range(100)]
    users = users_of(graph_of([("Neg", "c0", "v0"), *chain], *names))
    assert set(users.values()) == {tuple(f"Mul_{2001 + i}" for i in range(MAX_USERS))}
