from collections.abc import Callable
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from autocompress.errors import InputError
from autocompress.packing.skeleton import (
    initializer_names,
    kept_initializers,
    make_skeleton,
    restore,
)


def rebuild(model: onnx.ModelProto) -> onnx.ModelProto:
    skeleton, order = make_skeleton(model)
    names = initializer_names(skeleton, kept_initializers(model, order), len(order))
    restored = restore(skeleton, names)
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    for old, new in zip(order, names, strict=True):
        restored.graph.initializer.add().CopyFrom(values[old])
        restored.graph.initializer[-1].name = new
    return restored


def test_restore_inverts_make_skeleton(example: Any) -> None:
    restored = rebuild(example.model)
    onnx.checker.check_model(restored)
    assert example.run(restored)[0].tolist() == example.run(example.model)[0].tolist()
    assert [n.op_type for n in restored.graph.node] == [n.op_type for n in example.model.graph.node]


def test_make_skeleton_is_stable_under_restore(example: Any) -> None:
    first, _ = make_skeleton(example.model)
    again, _ = make_skeleton(rebuild(example.model))
    assert again.SerializeToString(deterministic=True) == first.SerializeToString(
        deterministic=True
    )


def test_make_skeleton_leaves_its_input_alone(example: Any) -> None:
    before = example.model.SerializeToString(deterministic=True)
    make_skeleton(example.model)
    assert example.model.SerializeToString(deterministic=True) == before


def test_make_skeleton_drops_noise_and_keeps_the_interface(example: Any) -> None:
    text = make_skeleton(example.model)[0].SerializeToString()
    for noise in (b"long", b"producer", b"inner", b"words, words", b"conv1", b"then/out"):
        assert noise not in text
    restored = rebuild(example.model)
    assert restored.graph.input == example.model.graph.input
    assert restored.graph.output == example.model.graph.output


def test_make_skeleton_turns_equal_blocks_into_equal_nodes() -> None:
    nodes, weights, last = [], [], "x"
    for i in range(4):
        nodes += [
            helper.make_node("MatMul", [last, f"block{i}.w"], [f"block{i}.m"]),
            helper.make_node("Add", [f"block{i}.m", last], [f"block{i}.out"]),
        ]
        weights.append(helper.make_tensor(f"block{i}.w", TensorProto.FLOAT, [2, 2], [1.0] * 4))
        last = f"block{i}.out"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [*nodes, helper.make_node("Relu", [last], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [1, 2])],
        [value("y", TensorProto.FLOAT, [1, 2])],
        initializer=weights[::-1],
    )
    skeleton, order = make_skeleton(helper.make_model(graph))
    assert order == tuple(f"block{i}.w" for i in range(4))
    blocks = [n.SerializeToString() for n in skeleton.graph.node[:-1]]
    assert blocks[:2] == blocks[2:4] == blocks[4:6] == blocks[6:8]


def test_restore_keeps_initializers_that_are_inputs_or_outputs(example: Any) -> None:
    model = example.model
    model.graph.input.append(helper.make_tensor_value_info("rows", TensorProto.INT64, [2]))
    names = [tensor.name for tensor in rebuild(model).graph.initializer]
    assert {"rows", "listed"} <= set(names)
    assert "t0" not in names  # the name of a graph output
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("token", ["9", "#99", "#", "x", "-1", "²", "+", "1" * 30])
def test_restore_refuses_references_that_point_nowhere(
    token: str, make_example: Callable[[int], Any]
) -> None:
    skeleton, _ = make_skeleton(make_example(1).model)
    skeleton.graph.node[0].input[0] = token
    with pytest.raises(InputError, match="points nowhere"):
        restore(skeleton, [])


@pytest.mark.parametrize("kept", [[(0, "nobody")], [(0, "listed"), (1, "listed")]])
def test_initializer_names_refuses_names_that_are_not_kept(
    kept: list[tuple[int, str]], example: Any
) -> None:
    skeleton, order = make_skeleton(example.model)
    with pytest.raises(InputError, match="inputs and outputs of the graph, each once"):
        initializer_names(skeleton, kept, len(order))
