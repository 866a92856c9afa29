"""The packed model: one file with a graph and all its tensors, entropy-coded; exact when read back.

The format is described byte by byte in `docs/packed-format.md`.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from autocompress.atomic_file import write_atomically
from autocompress.compress.codes import StoredWeight
from autocompress.errors import InputError, first_line
from autocompress.packing.container import digest, read_container, to_container
from autocompress.packing.row_bytes import bytes_of_rows
from autocompress.packing.section import (
    Section,
    join_pools,
    payload_lengths,
    read_section,
    split_payload,
)
from autocompress.packing.skeleton import (
    initializer_names,
    kept_initializers,
    make_skeleton,
    restore,
    tensors_in,
)
from autocompress.packing.tensor_reader import read_tensors, to_proto
from autocompress.packing.tensor_writer import TensorWriter

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

MAX_DECODED_BYTES: Final = (1 << 31) - 1  # what an ONNX file can hold


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PackedModel:
    """What a packed file holds.

    Attributes:
        graph: Runnable ONNX model.
        metadata: What was given to `write_packed`.
    """

    graph: onnx.ModelProto
    metadata: dict[str, Any]


def write_packed(
    path: Path,
    graph: onnx.ModelProto,
    quantized: Mapping[str, StoredWeight],
    metadata: Mapping[str, JSON],
) -> int:
    """Write one file that holds everything needed to run a model.

    The file appears at once or not at all. It has been decoded and compared before it appears.
    Equal input gives equal bytes.

    Args:
        path: Where to; replaced if it exists.
        graph: Model with its weights inside; not modified.
        quantized: Initializer name -> what it is stored as; an initializer may be the transpose of
            a stored matrix.
        metadata: Anything JSON can hold.

    Returns:
        Size of the file on disk in bytes.

    Raises:
        InputError: If the graph is invalid or keeps weights in other files, `quantized` does not
            stand for the graph's weights bit for bit, `metadata` is not JSON, or `path` cannot be
            written.
    """
    _check_graph(graph)
    blob = _encode(graph, quantized, metadata)
    try:
        _decode(blob)
    except InputError as error:
        raise InputError(
            f"The model cannot be packed into {str(path)!r}: {error.message}."
        ) from error
    write_atomically(path, blob)
    return path.stat().st_size


def read_packed(path: Path, max_decoded_bytes: int = MAX_DECODED_BYTES) -> PackedModel:
    """Read what `write_packed` wrote: the same weights, bit for bit, in the same network.

    Args:
        path: The file.
        max_decoded_bytes: Files that would unpack to more are refused before memory is taken.

    Raises:
        InputError: If the file is missing, damaged, of another version, too large when unpacked, or
            not a packed model; never anything but the original model is returned.
    """
    try:
        return _decode(_read(path), max_decoded_bytes)
    except InputError as error:
        raise _named(path, error) from error


def size_ledger(path: Path) -> dict[str, int]:
    """Bytes of a packed file by what they hold; the sum is the size of the file.

    Returns:
        `header`: magic, lengths, checksums. `graph`: compressed graph, tensor table, metadata.
        `payload`: coded integers. `scales`: step sizes, zero points, codebooks, hashed values.
        `floats`: everything that is not quantized.

    Raises:
        InputError: As `read_packed`.
    """
    try:
        blob = _read(path)
        container = read_container(blob, MAX_DECODED_BYTES)
        lengths = payload_lengths(read_section(container.section))
    except InputError as error:
        raise _named(path, error) from error
    return {
        "header": len(blob) - container.n_packed_section - len(container.payload),
        "graph": container.n_packed_section,
        "payload": lengths.symbols,
        "scales": lengths.zero_points
        + (lengths.scale_stream + lengths.scale_lows + lengths.scale_floats),
        "floats": lengths.half_stream + lengths.half_lows + lengths.raw,
    }


def tensor_bytes(path: Path, graph: onnx.ModelProto) -> dict[str, int]:
    """Bytes of a packed file by tensor: its coded values, scales and codebooks.

    Float16 values of all tensors are coded together (scales in one stream, biases and the like in
    another); a stream is shared out by the number of values, all else is exact. A tensor whose
    values or codes occurred before takes next to nothing.

    Args:
        path: What `write_packed` wrote.
        graph: What it was given.

    Returns:
        Initializer name -> bytes; the sum is `payload`, `scales` and `floats` of `size_ledger`.

    Raises:
        InputError: As `read_packed`, or if the file holds another graph's tensors.
    """
    try:
        section = read_section(read_container(_read(path), MAX_DECODED_BYTES).section)
    except InputError as error:
        raise _named(path, error) from error
    order = make_skeleton(graph)[1]
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    wanted = [(tensors[name].data_type, tuple(tensors[name].dims)) for name in order]
    if wanted != [(row.data_type, row.dims) for row in section.rows]:
        raise InputError(f"{str(path)!r} must hold the given graph, but holds other tensors.")
    return dict(zip(order, bytes_of_rows(section), strict=True))


def _encode(
    graph: onnx.ModelProto, quantized: Mapping[str, StoredWeight], metadata: Mapping[str, JSON]
) -> bytes:
    skeleton, order = make_skeleton(graph)
    initializers = {tensor.name: tensor for tensor in graph.graph.initializer}
    unknown = sorted(set(quantized) - set(order))
    if unknown:
        raise InputError(
            f"`quantized` must name initializers of the graph, but {unknown[0]!r} is none."
        )
    writer = TensorWriter()
    contents = [writer.add(initializers[name], quantized.get(name)) for name in order]
    payload, n_scale_stream, n_half_stream = join_pools(writer.pools)
    section = Section(
        skeleton=skeleton.SerializeToString(deterministic=True),
        metadata=_to_json(metadata),
        kept=tuple(kept_initializers(graph, order)),
        rows=tuple(writer.rows),
        n_scale_stream=n_scale_stream,
        n_half_stream=n_half_stream,
    ).to_bytes()
    return to_container(section, payload, digest(section, *contents))


def _decode(blob: bytes, max_decoded_bytes: int = MAX_DECODED_BYTES) -> PackedModel:
    container = read_container(blob, max_decoded_bytes)
    section = read_section(container.section)
    n_bytes = sum(row.n_bytes for row in section.rows)
    if n_bytes > max_decoded_bytes:
        raise InputError(
            f"the tensors must unpack to at most {max_decoded_bytes} bytes, but claim {n_bytes}"
        )
    contents = read_tensors(section.rows, split_payload(container.payload, section))
    if digest(container.section, *contents) != container.content_digest:
        raise InputError("the decoded tensors are not those that were packed")
    model = _build_graph(section, contents)
    _check_graph(model)
    return PackedModel(graph=model, metadata=_from_json(section.metadata))


def _build_graph(section: Section, contents: Sequence[bytes]) -> onnx.ModelProto:
    skeleton = onnx.ModelProto()
    try:
        skeleton.ParseFromString(section.skeleton)
        names = initializer_names(skeleton, section.kept, len(section.rows))
        model = restore(skeleton, names)
        tensors = map(to_proto, section.rows, names, contents)
        model.graph.initializer.extend(tensors)
    except (DecodeError, UnicodeError, TypeError) as error:
        # TypeError: protobuf hands out text that is not UTF-8 as bytes
        raise InputError(f"the graph cannot be parsed: {error}") from error
    return model


def _check_graph(model: onnx.ModelProto) -> None:
    for tensor in tensors_in(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise InputError(
                f"The graph must hold its weights, but {tensor.name!r} lies in another file.",
                "Load the model together with its external data first.",
            )
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InputError(f"The graph must be valid ONNX, but: {first_line(error)}.") from error


def _to_json(metadata: Mapping[str, JSON]) -> bytes:
    try:
        text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"`metadata` must be JSON, but: {error}.") from error
    return text.encode()


def _from_json(text: bytes) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the metadata must be JSON, but: {error}") from error
    if not isinstance(metadata, dict):
        raise InputError(f"the metadata must be an object, but is a {type(metadata).__name__}")
    return metadata


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}") from error


def _named(path: Path, error: InputError) -> InputError:
    reason = error.message.rstrip(".")
    return InputError(
        f"{str(path)!r} must be an undamaged packed model, but {reason[:1].lower()}{reason[1:]}.",
        error.hint or "Pack the model again, or copy the file again.",
    )
