"""Bring an exported graph into its smallest plain form."""

from collections.abc import Mapping

import onnx

from autocompress.onnx_graph.constants import constants_to_initializers, fold_constants
from autocompress.onnx_graph.graph import (
    constants,
    drop_unread,
    rename_read,
    rename_values,
    replace_nodes,
)

_MAX_COMPUTED_ITEMS = 4096  # larger ones are cheaper to compute than to store


def clean(model: onnx.ModelProto) -> None:
    """Bring an exported graph into its smallest plain form, in place.

    Constant nodes become initializers, equal small constants one, Identity nodes vanish, what
    nothing reads is dropped, and so are doc strings, metadata and shape notes.
    """
    graph = model.graph
    constants_to_initializers(graph)
    _bypass_identities(graph)
    fold_constants(model, is_kept=lambda value: value.size <= _MAX_COMPUTED_ITEMS)
    _merge_equal_integers(graph)
    drop_unread(graph)
    del graph.value_info[:]
    del model.metadata_props[:]
    del model.functions[:]
    model.producer_name, model.producer_version = "autocompress", ""
    model.doc_string = graph.doc_string = ""
    graph.name = "model"
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


def _bypass_identities(graph: onnx.GraphProto) -> None:
    outputs = {value.name for value in graph.output}
    fixed = outputs | {value.name for value in (*graph.input, *graph.initializer)}
    names: dict[str, str] = {}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "Identity":
            kept.append(node)
            continue
        source, target = names.get(node.input[0], node.input[0]), node.output[0]
        if target not in outputs:
            names[target] = source
        elif source not in fixed and source not in names.values():
            names[source] = target
        else:
            kept.append(node)
    if len(kept) < len(graph.node):
        replace_nodes(graph, kept)
        rename_values(graph, {name: _follow(names, name) for name in names})


def _follow(names: Mapping[str, str], name: str) -> str:
    while name in names:
        name = names[name]
    return name


def _merge_equal_integers(graph: onnx.GraphProto) -> None:
    """Let equal integer constants (axes, shapes) share one initializer."""
    first: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    names: dict[str, str] = {}
    outputs = {value.name for value in graph.output}
    for name, value in constants(graph).items():
        if value.dtype.kind == "i" and value.size <= 16 and name not in outputs:
            kept = first.setdefault((value.dtype.str, value.shape, value.tobytes()), name)
            if kept != name:
                names[name] = kept
    if names:
        for node in graph.node:
            rename_read(node, names)
