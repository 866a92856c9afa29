"""The packed model: one file with a graph and all its tensors, entropy-coded; exact when read back.

The format is described byte by byte in `docs/packed-format.md`.
"""

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from autocompress.atomic_file import write_atomically
from autocompress.compress.codes import StoredWeight
from autocompress.errors import InputError, first_line, one_line
from autocompress.onnx_graph.messages import messages_in, tensors_in
from autocompress.packing.container import (
    MAX_HEAD_BYTES,
    claimed_bytes,
    digest,
    read_container,
    to_container,
)
from autocompress.packing.section import Section, join_pools, read_section, split_payload
from autocompress.packing.skeleton import (
    initializer_names,
    kept_initializers,
    make_skeleton,
    restore,
)
from autocompress.packing.tensor_reader import read_tensors, to_proto
from autocompress.packing.tensor_writer import TensorWriter

MAX_MESSAGES: Final = 1 << 19  # nodes, attributes, …: an empty one costs 2 bytes of a file


def check_size(model: onnx.ModelProto) -> None:
    """Refuse a graph of so many parts that looking at them takes long.

    Raises:
        InputError: If it has more than `MAX_MESSAGES` of them.
    """
    if next(itertools.islice(messages_in(model), MAX_MESSAGES, None), None) is not None:
        raise InputError(
            f"The graph must have at most {MAX_MESSAGES} nodes, attributes and other parts."
        )


def check_graph(model: onnx.ModelProto) -> None:
    """Refuse a graph that keeps weights in other files, or that ONNX's checker refuses.

    Among others the checker refuses nodes that are out of order or form a circle, names defined
    twice, and functions that call themselves.

    Raises:
        InputError: If it is such a graph.
    """
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


_CHUNK_BYTES = 1 << 20
_MAX_REASON_CHARS = 300


def read_blob(path: Path) -> bytes:
    """The whole file. No more is read than the file's own header claims, so that a file that is
    none of ours, a device or a pipe without an end takes neither time nor memory.

    Raises:
        InputError: If it cannot be read, is no packed file of this version, or has another size
            than its header says.
    """
    try:
        with path.open("rb") as stream:
            chunks = [stream.read(MAX_HEAD_BYTES)]
            n_claimed, n_read = claimed_bytes(chunks[0]), len(chunks[0])
            while n_read <= n_claimed and chunks[-1]:
                chunks.append(stream.read(min(_CHUNK_BYTES, n_claimed + 1 - n_read)))
                n_read += len(chunks[-1])
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}") from error
    if n_read != n_claimed:
        found = "more follow" if n_read > n_claimed else f"it has {n_read}: it is cut off"
        raise InputError(f"the file must have {n_claimed} bytes, as its header says, but {found}")
    return b"".join(chunks)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let errors say which file they are about, in one line of printable text.

    Raises:
        InputError: In place of one that was raised inside.
    """
    try:
        yield
    except InputError as error:
        # what a hostile file holds must not steer the terminal, nor fill it
        reason = one_line(error.message).rstrip(".")
        if len(reason) > _MAX_REASON_CHARS:
            reason = f"{reason[:_MAX_REASON_CHARS]} …"
        raise InputError(
            f"{str(path)!r} must be an undamaged packed model, but "
            f"{reason[:1].lower()}{reason[1:]}.",
            error.hint or "Pack the model again, or copy the file again.",
        ) from error


JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

MAX_DECODED_BYTES: Final = (1 << 31) - 1  # what an ONNX file can hold

# Equal values cost nothing, so that a file of 100 bytes can describe 2 GiB of them
_DECODED_BYTES_AT_LEAST, _DECODED_BYTES_PER_BYTE = 1 << 26, 1000


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
    check_size(graph)
    check_graph(graph)
    blob = _encode(graph, quantized, metadata)
    try:
        decode_packed(blob)
    except InputError as error:
        raise InputError(
            f"The model cannot be packed into {str(path)!r}: {error.message}."
        ) from error
    write_atomically(path, blob)
    return path.stat().st_size


def read_packed(path: Path, max_decoded_bytes: int | None = None) -> PackedModel:
    """Read what `write_packed` wrote: the same weights, bit for bit, in the same network.

    Args:
        path: The file.
        max_decoded_bytes: Files that would unpack to more are refused before memory is taken.
            None: 64 MiB and a thousand times the file, which no model of use reaches, and never
            2 GiB.

    Raises:
        InputError: If the file is missing, damaged, of another version, too large when unpacked, or
            not a packed model; never anything but the original model is returned.
    """
    with naming(path):
        return decode_packed(read_blob(path), max_decoded_bytes)


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


def decode_packed(blob: bytes, max_decoded_bytes: int | None = None) -> PackedModel:
    """Decode the bytes of a packed file.

    Args:
        blob: The whole file.
        max_decoded_bytes: As for `read_packed`.

    Raises:
        InputError: As `read_packed`, without the name of the file.
    """
    most = max_decoded_bytes
    if most is None:
        most = min(MAX_DECODED_BYTES, _DECODED_BYTES_AT_LEAST + _DECODED_BYTES_PER_BYTE * len(blob))
    container = read_container(blob, most)
    section = read_section(container.section)
    n_bytes = sum(row.n_decoded_bytes for row in section.rows)
    if n_bytes > most:
        raise InputError(f"the tensors must unpack to at most {most} bytes, but claim {n_bytes}")
    contents = read_tensors(section.rows, split_payload(container.payload, section))
    if digest(container.section, *contents) != container.content_digest:
        raise InputError("the decoded tensors are not those that were packed")
    model = _build_graph(section, contents)
    check_graph(model)
    return PackedModel(graph=model, metadata=_from_json(section.metadata))


def _build_graph(section: Section, contents: Sequence[bytes]) -> onnx.ModelProto:
    skeleton = onnx.ModelProto()
    try:
        skeleton.ParseFromString(section.skeleton)
        check_size(skeleton)
        names = initializer_names(skeleton, section.kept, len(section.rows))
        model = restore(skeleton, names)
        tensors = map(to_proto, section.rows, names, contents)
        model.graph.initializer.extend(tensors)
    except (DecodeError, UnicodeError, TypeError) as error:
        # TypeError: protobuf hands out text that is not UTF-8 as bytes
        raise InputError(f"the graph cannot be parsed: {error}") from error
    return model


def _to_json(metadata: Mapping[str, JSON]) -> bytes:
    try:
        text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"`metadata` must be JSON, but: {error}.") from error
    return text.encode()


def _from_json(text: bytes) -> dict[str, Any]:
    try:
        metadata = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the metadata must be JSON, but: {error}") from error
    if not isinstance(metadata, dict):
        raise InputError(f"the metadata must be an object, but is a {type(metadata).__name__}")
    return metadata


def _refuse_constant(word: str) -> None:
    msg = f"{word} is none"
    raise ValueError(msg)
