"""A graph without weights in few bytes: noise dropped, names turned into references, and back.

Inside a skeleton, tensor names of the main graph are tokens, so that repeated blocks of a network
become repeated bytes, which a general compressor then folds:

=========  ===============================================================================
``""``     an optional input or output that is absent
``+``      input: the initializer after the last one that was used; output: a new tensor
``<n>``    input: the activation defined n places before the latest one (0 is the latest)
``#<n>``   input: initializer number n
``@name``  this very name: a graph output, or an initializer that is stored in the graph (sparse)
=========  ===============================================================================

Names of other tensors come back as `t0`, `t1`, …: initializers first, then the
outputs of the nodes. Nodes come back named by their operator and position.
"""

import itertools
from collections.abc import Iterator, Sequence

import onnx

from autocompress.errors import InputError
from autocompress.onnx_graph.messages import messages_in


def make_skeleton(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Strip a model of weights, documentation and names.

    Args:
        model: Not modified.

    Returns:
        The skeleton, and the names of `model`'s initializers in the order in which `restore`
        expects them: by first use.
    """
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    graph = skeleton.graph
    order = _by_first_use(graph)
    del graph.initializer[:]
    _drop_noise(skeleton)
    kept = _kept_names(graph)
    fresh = _fresh_names(kept)
    renamed = {name: name for name in kept}
    renamed |= {name: next(fresh) for name in order if name not in kept}
    for node in graph.node:
        for name in node.output:
            if name:
                renamed[name] = name if name in kept else next(fresh)
    for node in graph.node:
        _rename_inner_graphs(node, renamed, fresh)
    _to_tokens(graph, order, kept)
    return skeleton, order


def initializer_names(
    skeleton: onnx.ModelProto, kept: Sequence[tuple[int, str]], n: int
) -> list[str]:
    """Names of `n` initializers as the restored graph uses them.

    Args:
        skeleton: What `make_skeleton` returned.
        kept: (index, name) of initializers that are graph inputs or outputs.
        n: Number of initializers.

    Raises:
        InputError: If `kept` has other names than those of graph inputs or outputs, or one twice.
    """
    fixed, taken = dict(kept), _kept_names(skeleton.graph)
    if len(set(fixed.values()) & taken) < len(kept):
        raise InputError("kept names must be those of inputs and outputs of the graph, each once")
    fresh = _fresh_names(taken)
    return [fixed[i] if i in fixed else next(fresh) for i in range(n)]


def kept_initializers(model: onnx.ModelProto, order: Sequence[str]) -> list[tuple[int, str]]:
    """(index, name) of the initializers that keep their names, for `initializer_names`."""
    kept = _kept_names(model.graph)
    return [(i, name) for i, name in enumerate(order) if name in kept]


def restore(skeleton: onnx.ModelProto, initializers: Sequence[str]) -> onnx.ModelProto:
    """Turn tokens back into names; weights are still missing.

    Args:
        skeleton: What `make_skeleton` returned; not modified.
        initializers: What `initializer_names` returned.

    Raises:
        InputError: If a token points nowhere.
    """
    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    graph = model.graph
    kept = _kept_names(graph)
    fresh = _fresh_names(kept)
    for name in initializers:
        if name not in kept:
            next(fresh)
    seen, cursor = [value.name for value in graph.input], 0
    for i, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{i}"
        for j, token in enumerate(node.input):
            node.input[j], cursor = _resolve(token, initializers, seen, cursor)
        for j, token in enumerate(node.output):
            node.output[j] = next(fresh) if token == "+" else token.removeprefix("@")
            if token:
                seen.append(node.output[j])
    return model


def _resolve(
    token: str, initializers: Sequence[str], seen: Sequence[str], cursor: int
) -> tuple[str, int]:
    if not token or token.startswith("@"):
        return token[1:], cursor
    is_initializer = token[0] in "+#"
    digits = str(cursor) if token == "+" else token.removeprefix("#")
    index = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else -1
    if is_initializer and 0 <= index < len(initializers):
        return initializers[index], max(cursor, index + 1)
    if not is_initializer and 0 <= index < len(seen):
        return seen[len(seen) - 1 - index], cursor
    raise InputError(f"a tensor reference of the graph points nowhere: {token[:20]!r}")


def _to_tokens(graph: onnx.GraphProto, order: Sequence[str], kept: frozenset[str]) -> None:
    index = {name: i for i, name in enumerate(order)}
    place = {value.name: i for i, value in enumerate(graph.input)}
    n_seen, cursor = len(graph.input), 0
    for node in graph.node:
        for j, name in enumerate(node.input):
            if name in index:
                node.input[j] = "+" if index[name] == cursor else f"#{index[name]}"
                cursor = max(cursor, index[name] + 1)
            elif name in place:
                node.input[j] = str(n_seen - 1 - place[name])
            elif name:
                node.input[j] = f"@{name}"
        for j, name in enumerate(node.output):
            if name:
                node.output[j] = f"@{name}" if name in kept else "+"
                place[name], n_seen = n_seen, n_seen + 1


def _by_first_use(graph: onnx.GraphProto) -> tuple[str, ...]:
    names = {tensor.name: None for tensor in graph.initializer}
    used = [name for node in graph.node for name in node.input if name in names]
    return tuple(dict.fromkeys(itertools.chain(used, names)))


def _kept_names(graph: onnx.GraphProto) -> frozenset[str]:
    sparse = (tensor.values for tensor in graph.sparse_initializer)
    return frozenset(v.name for v in itertools.chain(graph.input, graph.output, sparse))


def _fresh_names(taken: frozenset[str]) -> Iterator[str]:
    return (name for name in map("t{}".format, itertools.count()) if name not in taken)


def _rename_inner_graphs(
    node: onnx.NodeProto, renamed: dict[str, str], fresh: Iterator[str]
) -> None:
    """Rename everything in the inner graphs of a node; an old name has one new name in all."""

    def new(name: str) -> str:
        if name and name not in renamed:
            renamed[name] = next(fresh)
        return renamed.get(name, name)

    for part in messages_in(node):
        if isinstance(part, onnx.GraphProto):
            sparse = (tensor.values for tensor in part.sparse_initializer)
            for value in itertools.chain(part.input, part.output, part.initializer, sparse):
                value.name = new(value.name)
        elif isinstance(part, onnx.NodeProto) and part is not node:
            for names in (part.input, part.output):
                names[:] = [new(name) for name in names]


def _drop_noise(model: onnx.ModelProto) -> None:
    """Clear what no runtime executes: documentation, producer, metadata, inferred shapes."""
    for field in ("producer_name", "producer_version", "domain", "model_version"):
        model.ClearField(field)
    model.graph.name = "g"  # the checker wants one
    for message in messages_in(model):
        for field in ("doc_string", "metadata_props"):
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)
        if isinstance(message, onnx.GraphProto):
            message.ClearField("value_info")
            message.ClearField("quantization_annotation")
        if isinstance(message, onnx.NodeProto):
            message.ClearField("name")
