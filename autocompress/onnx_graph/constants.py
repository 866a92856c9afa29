"""What of a graph depends on no input: weights, and what is computed from them alone."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from autocompress.onnx_graph.graph import constants
from autocompress.onnx_graph.session import make_session


def constant_names(graph: onnx.GraphProto) -> set[str]:
    """Names of initializers, and of what is computed from them alone."""
    known = {item.name for item in graph.initializer}
    for node in graph.node:
        read = [name for name in node.input if name]
        if read and known.issuperset(read):
            known.update(name for name in node.output if name)
    return known


def constant_values(model: onnx.ModelProto, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Values of constants: of initializers, and of what is computed from them alone."""
    names, found = set(names), constants(model.graph)
    computed = sorted(names - found.keys())
    if computed:
        found.update(zip(computed, _compute(model, computed), strict=True))
    return {name: found[name] for name in names}


def _compute(model: onnx.ModelProto, names: list[str]) -> list[NDArray[Any]]:
    needed, nodes = set(names), list[onnx.NodeProto]()
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    part = onnx.helper.make_graph(
        nodes[::-1],
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in names],
        [item for item in model.graph.initializer if item.name in needed],
    )
    session = make_session(
        onnx.helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version),
        threads=1,
    )
    return [np.asarray(value) for value in session.run(None, {})]
