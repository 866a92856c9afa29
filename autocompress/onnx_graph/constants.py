"""What of a graph depends on no input: initializers, and what is computed from them alone."""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from autocompress.onnx_graph.graph import Array, constants, replace_constants, replace_nodes
from autocompress.onnx_graph.messages import messages_in
from autocompress.onnx_graph.session import make_session

_RANDOM: Final = {
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"),
}


def constant_nodes(
    graph: onnx.GraphProto, operators: Container[str] | None = None
) -> list[onnx.NodeProto]:
    """Nodes that compute with initializers and with each other alone, in order.

    Nodes that draw random numbers are not among them. Neither are nodes with inner graphs: what
    those compute is not looked into. Constant nodes must be initializers before, see
    `constants_to_initializers`.

    Args:
        graph: Not changed.
        operators: Which nodes count; None for all.
    """
    known = {item.name for item in graph.initializer}
    found = list[onnx.NodeProto]()
    for node in graph.node:
        read = list(filter(None, node.input))
        if not read or not known.issuperset(read) or node.op_type in _RANDOM:
            continue
        if (operators is None or node.op_type in operators) and not _has_inner_graph(node):
            found.append(node)
            known.update(node.output)
    return found


def _has_inner_graph(node: onnx.NodeProto) -> bool:
    return any(isinstance(part, onnx.GraphProto) for part in messages_in(node))


def constant_names(graph: onnx.GraphProto) -> set[str]:
    """Names of initializers, and of what is computed from them alone."""
    computed = {name for node in constant_nodes(graph) for name in node.output if name}
    return {item.name for item in graph.initializer} | computed


def constant_values(model: onnx.ModelProto, names: Iterable[str]) -> dict[str, Array]:
    """Values of some of the constants that `constant_names` finds, as ONNX Runtime computes them.

    ONNX's reference could not: it knows DequantizeLinear only from opset 19.
    """
    names, found = set(names), constants(model.graph)
    computed = sorted(names - found.keys())
    if computed:
        session = make_session(_part_for(model, computed), threads=1)
        found.update(zip(computed, map(np.asarray, session.run(None, {})), strict=True))
    return {name: found[name] for name in names}


def fold_constants(
    model: onnx.ModelProto,
    is_kept: Callable[[Array], bool],
    operators: Container[str] | None = None,
) -> None:
    """Make initializers of what nodes compute from constants, in place.

    The values are those of ONNX's reference: ONNX Runtime has no kernels for some types, and its
    last bits depend on the machine.

    Args:
        model: Its graph is changed.
        is_kept: Whether a value is to be an initializer; where it is not, its node stays.
        operators: Which nodes are computed; None for all.
    """
    graph = model.graph
    nodes = constant_nodes(graph, operators)
    if not nodes:
        return
    names = [name for node in nodes for name in node.output if name]
    values = zip(names, ReferenceEvaluator(_part_for(model, names)).run(None, {}), strict=True)
    kept = {name: value for name, value in values if is_kept(value)}
    known = {*kept, ""}
    replace_nodes(graph, [node for node in graph.node if not known.issuperset(node.output)])
    replace_constants(graph, {**constants(graph), **kept})


def _part_for(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The part of a graph that computes some constants: without inputs, with them as outputs."""
    needed, nodes = set(names), list[onnx.NodeProto]()
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(filter(None, node.input))
    part = onnx.helper.make_graph(
        nodes[::-1],
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in names],
        [item for item in model.graph.initializer if item.name in needed],
    )
    return onnx.helper.make_model(
        part, opset_imports=model.opset_import, ir_version=model.ir_version
    )


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes of the main graph into initializers, in place."""
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        tensor = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and tensor is not None:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            kept.append(node)
    if len(kept) < len(graph.node):
        replace_nodes(graph, kept)
