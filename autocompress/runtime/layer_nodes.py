"""Which nodes of an exported graph compute which layer, told by the names exporters give."""

import ast
import collections
from collections.abc import Mapping

import onnx
from torch import nn

from autocompress.onnx_graph.graph import readers

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_after_modules(graph: onnx.GraphProto) -> None:
    """Name every node after the module that made it, in place; the root's nodes get no name.

    The legacy exporter writes scopes into names (`/blocks.0/fc/MatMul`), the dynamo exporter into
    metadata (`['', 'blocks.0', 'blocks.0.fc', 'linear']`).
    """
    for node in graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == _SCOPES), None)
        if scopes is not None:
            node.name = str(["", *ast.literal_eval(scopes)][-2])
        else:
            node.name = _qualified(node.name.strip("/").split("/")[:-1])


def name_after_layers(
    graph: onnx.GraphProto, matched: Mapping[str, tuple[str, ...]], module: nn.Module
) -> dict[str, tuple[str, ...]]:
    """Name the nodes that read a weight after its layer, in place; all others get no name.

    A layer that runs more than once has the nodes `fc`, `fc#1`, `fc#2`, …

    Args:
        graph: Its nodes are named by `name_after_modules`.
        matched: Initializer -> keys of the weights it holds, see `weight_match`.
        module: What was exported.

    Returns:
        Key -> names of its nodes. Where several layers have one weight, each has its own nodes.
    """
    first_name: dict[int, str] = {}
    modules = {
        name: first_name.setdefault(id(part), name)
        for name, part in module.named_modules(remove_duplicate=False)
    }
    key_of: dict[tuple[str, ...], str] = {}  # by outputs, which no two nodes share
    for initializer, nodes in readers(graph).items():
        keys = matched.get(initializer, ())
        by_module = {modules.get(_module_of(key, modules)): key for key in reversed(keys)}
        for node in nodes if keys else ():
            key = by_module.get(modules.get(node.name, ""), keys[0])
            key_of.setdefault(tuple(node.output), key)
    found: dict[str, tuple[str, ...]] = {}
    for node in graph.node:
        node.name = ""
        if tuple(node.output) in key_of:
            key = key_of[tuple(node.output)]
            earlier = found.get(key, ())
            node.name = (key or "module") + (f"#{len(earlier)}" if earlier else "")
            found[key] = (*earlier, node.name)
    return found


def _module_of(key: str, modules: Mapping[str, str]) -> str:
    return key if key in modules else key.rpartition(".")[0]


def _qualified(scopes: list[str]) -> str:
    """Join scopes to a module's name; children of containers repeat it (`features/features.0`)."""
    parts = collections.deque[str]()
    for scope in scopes:
        while parts and scope.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(scope)
    return ".".join(parts)
