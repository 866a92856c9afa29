"""Give the stored weights of recurrent layers back their own initializers.

Exporters compute what ONNX wants from PyTorch's weights once and for all: gates in another order,
both directions in one tensor. Stored weights are integers of the original. So the original is what
the graph keeps, and the rearrangement becomes nodes of constants, which runtimes compute once when
they load the graph. That serves every kind of stored weight and directions stored differently.

Dimension key: `D` directions, `H` hidden units, `X` inputs, `n` gates.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

import numpy as np
import onnx
from onnx import helper

from autocompress.onnx_graph.graph import Array, constants, replace_constants, replace_nodes
from autocompress.runtime.weight_match import Content, content_of

# Where ONNX's gates stand in PyTorch's order: (i, o, f, c) of (i, f, g, o), (z, r, h) of (r, z, n)
GATES: Final[Mapping[str, tuple[int, ...]]] = {
    "LSTM": (0, 3, 1, 2),
    "GRU": (1, 0, 2),
    "RNN": (0,),
}


def unstack_recurrent(graph: onnx.GraphProto, wanted: Collection[Content]) -> None:
    """Let LSTM, GRU and RNN nodes read PyTorch's own weights, in place, where these are wanted.

    Args:
        graph: The weights of its recurrent nodes are initializers of shape (D, n·H, X).
        wanted: Contents of weights of shape (n·H, X), in PyTorch's order of gates.
    """
    values = constants(graph)
    nodes: list[onnx.NodeProto] = []
    done: dict[str, str] = {}
    for node in graph.node:
        for index in (1, 2) if node.op_type in GATES else ():
            name = node.input[index]
            if name in values and name not in done:
                parts = _in_torch_order(values[name], GATES[node.op_type])
                if any(content_of(part) in wanted for part in parts):
                    done[name] = f"{name}_stacked"
                    nodes += _stack(values, name, parts, node.op_type)
            node.input[index] = done.get(name, name)
        nodes.append(node)
    if done:
        replace_nodes(graph, nodes)
        replace_constants(graph, values)


def recurrent_readers(
    name: str, read_by: Mapping[str, list[onnx.NodeProto]]
) -> Iterator[onnx.NodeProto]:
    """Recurrent nodes that `name` is a weight of, directly or rearranged by `unstack_recurrent`."""
    for node in read_by.get(name, []):
        if node.op_type in GATES and name in node.input[1:3]:
            yield node
        elif node.op_type in ("Concat", "Reshape", "Gather"):
            yield from recurrent_readers(node.output[0], read_by)


def _in_torch_order(weight: Array, gates: tuple[int, ...]) -> list[Array]:
    """(D, n·H, X) in ONNX's order -> D matrices (n·H, X) in PyTorch's."""
    n_directions, n_rows, n_inputs = weight.shape
    by_gate = weight.reshape(n_directions, len(gates), n_rows // len(gates), n_inputs)
    return [
        np.ascontiguousarray(direction[np.argsort(gates)].reshape(n_rows, n_inputs))
        for direction in by_gate
    ]


def _stack(
    values: dict[str, Array], name: str, parts: list[Array], op: str
) -> list[onnx.NodeProto]:
    """Nodes that compute `{name}_stacked` from the parts, which become initializers."""
    n_directions, n_gates, n_rows = len(parts), len(GATES[op]), len(parts[0])
    sources = [f"{name}_{i}" for i in range(n_directions)]
    values.update(zip(sources, parts, strict=True))

    def shape(*dims: int) -> str:
        constant = "shape_" + "_".join(map(str, dims))
        values[constant] = np.array(dims, np.int64)
        return constant

    nodes = []
    source = sources[0]
    if n_directions > 1:
        source = f"{name}_joined"
        nodes.append(helper.make_node("Concat", sources, [source], axis=0))
    if n_gates > 1:
        values[f"gates_{op}"] = np.array(GATES[op], np.int64)
        by_gate = [source, shape(n_directions, n_gates, -1)]
        nodes += [
            helper.make_node("Reshape", by_gate, [f"{name}_gates"]),
            helper.make_node("Gather", [f"{name}_gates", f"gates_{op}"], [f"{name}_order"], axis=1),
        ]
        source = f"{name}_order"
    last = [source, shape(n_directions, n_rows, -1)]
    return [*nodes, helper.make_node("Reshape", last, [f"{name}_stacked"])]
