"""The size of a candidate: that of its packed file, in all and layer by layer."""

import itertools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import onnx

from autocompress.analysis.refusals import LayerKind
from autocompress.atomic_file import scratch_folder
from autocompress.onnx_graph.constants import constant_nodes
from autocompress.onnx_graph.exported_graph import ExportedGraph
from autocompress.packing.ledger import tensor_bytes
from autocompress.packing.packed import write_packed
from autocompress.plan import CompressionPlan

_RECURRENT: Final = ("GRU", "LSTM", "RNN")


def file_metadata(plan: CompressionPlan) -> dict[str, Any]:
    """What a packed file says of itself: its plan, without words that change nothing.

    Plans that make the same candidate make the same file, to the byte.
    """
    return {"plan": plan.effective.to_json()}


def packed_bytes(
    exported: ExportedGraph, plan: CompressionPlan, layers: Mapping[str, LayerKind]
) -> tuple[int, dict[str, int]]:
    """Bytes of the file that would ship, and how many of them each layer's tensors take.

    Args:
        exported: The candidate's graph.
        plan: What it was built from; stored in the file.
        layers: Names of the base model's layers and what they are. The parts a layer was split into
            belong to it.

    Returns:
        Size of the written file, and layer -> bytes of its weights, biases, scales and codebooks;
        0 for one that is gone. What several layers use belongs to the first of them. What is left
        is the graph, the metadata, and tensors that no layer owns.
    """
    with scratch_folder() as folder:
        path = Path(folder) / "model.acz"
        size_bytes = write_packed(path, exported.model, exported.quantized, file_metadata(plan))
        by_tensor = tensor_bytes(path, exported.model) if layers else {}
    by_layer = dict.fromkeys(layers, 0)
    owners = _owners(exported, layers)
    for name, n_bytes in by_tensor.items():
        owner = owners.get(name, _owner_by_name(name, by_layer))
        if owner is not None:
            by_layer[owner] += n_bytes
    return size_bytes, by_layer


def _owners(exported: ExportedGraph, layers: Mapping[str, LayerKind]) -> dict[str, str]:
    """Initializer -> the first layer that computes with it."""
    graph = exported.model.graph
    nodes = {node.name: node for node in graph.node if node.name}
    sources = _sources(graph)
    nodes_of: dict[str, list[onnx.NodeProto]] = {layer: [] for layer in layers}
    for key, names in exported.layer_nodes.items():
        owner = _owner_by_name(key, layers)
        if owner is not None:
            nodes_of[owner] += [nodes[name] for name in names if name in nodes]
    for owner, node in _recurrent_nodes(graph, layers):
        nodes_of[owner].append(node)
    owners: dict[str, str] = {}
    for layer in layers:
        for node in nodes_of[layer]:
            for tensor in itertools.chain.from_iterable(sources.get(v, ()) for v in node.input):
                owners.setdefault(tensor, layer)
    return owners


def _recurrent_nodes(
    graph: onnx.GraphProto, layers: Mapping[str, LayerKind]
) -> Iterator[tuple[str, onnx.NodeProto]]:
    """Recurrent layer -> its nodes, whose float weights the export gives no names.

    Told by their order, which holds if layers run in the order of their names and are equally deep.
    """
    names = [name for name, kind in layers.items() if kind == "recurrent"]
    nodes = [node for node in graph.node if node.op_type in _RECURRENT]
    if names and len(nodes) % len(names) == 0:
        depth = len(nodes) // len(names)
        for i, node in enumerate(nodes):
            yield names[i // depth], node


def _sources(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """Value that is computed from constants alone -> the initializers it is computed from."""
    sources: dict[str, tuple[str, ...]] = {t.name: (t.name,) for t in graph.initializer}
    for node in constant_nodes(graph):
        behind = itertools.chain.from_iterable(sources[name] for name in node.input if name)
        sources.update(dict.fromkeys(node.output, tuple(behind)))
    return sources


def _owner_by_name(name: str, layers: Collection[str]) -> str | None:
    """The innermost layer whose name begins that of a tensor or of a part it was split into."""
    parts = name.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    found = next((layer for layer in names if layer in layers), None)
    is_of_root = len(parts) == 1 and "" in layers
    return "" if found is None and is_of_root else found
