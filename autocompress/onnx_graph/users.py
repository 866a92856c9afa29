"""Which operators compute with an initializer: files carry no layer names, but their nodes do."""

from typing import Final

import onnx

from autocompress.onnx_graph.constants import constant_names
from autocompress.onnx_graph.graph import names_read

MAX_USERS: Final = 16  # of one tensor: enough to tell it by, and a bound on what chains can cost


def users_of(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """Names of the nodes that use each initializer, in the order of the graph.

    A node that computes with constants alone (one that dequantizes or reshapes a weight) is looked
    through: what counts is who uses its result. A node whose inner graphs read a tensor uses it.

    Args:
        graph: With names, as `restore` gives it back.

    Returns:
        Initializer -> the first `MAX_USERS` of its users; none for one that only leaves the graph.
    """
    constants = constant_names(graph)
    positions: dict[str, list[int]] = {}  # of the users of each constant, the first ones
    for i, node in reversed(list(enumerate(graph.node))):
        behind = [user for name in node.output for user in positions.get(name, ())]
        users = behind or [i]
        for name in names_read(node):
            if name in constants:
                positions[name] = sorted({*users, *positions.get(name, ())})[:MAX_USERS]
    return {
        tensor.name: tuple(graph.node[i].name for i in positions.get(tensor.name, ()))
        for tensor in graph.initializer
    }
