"""What a file takes on the disk, weights that lie beside it included."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def size_of(path: Path) -> int:
    """Bytes of a file, and of those that hold its weights: OpenVINO's, and external data of ONNX.

    What is no ONNX graph in spite of its name, and weights that are missing, count for nothing.
    """
    size = path.stat().st_size
    for weights in _weights(path):
        with contextlib.suppress(OSError):  # a name that no file can have
            size += weights.stat().st_size if weights.is_file() else 0
    return size


def _weights(path: Path) -> set[Path]:
    if path.suffix == ".xml":
        return {path.with_suffix(".bin")}
    if path.suffix != ".onnx":
        return set()
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        return set()
    nodes = (node for function in model.functions for node in function.node)
    tensors = (*_tensors(model.graph), *_tensors_of(nodes))
    return {path.parent / name for tensor in tensors for name in _locations(tensor)}


def _tensors(graph: "onnx.GraphProto") -> Iterator["onnx.TensorProto"]:
    """All tensors of a graph, those of its branches and loops included."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of(graph.node)


def _tensors_of(nodes: Iterable["onnx.NodeProto"]) -> Iterator["onnx.TensorProto"]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for graph in (attribute.g, *attribute.graphs):
                yield from _tensors(graph)


def _locations(tensor: "onnx.TensorProto") -> Iterator[str]:
    if tensor.data_location == tensor.EXTERNAL:
        yield from (entry.value for entry in tensor.external_data if entry.key == "location")
