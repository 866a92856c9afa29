"""The size ledger: what every byte of a packed file is for, by kind and by tensor.

Every number of bytes is counted, and they add up to the file. What is not counted but computed, the
zero-order entropy of a tensor's symbols, says so in its name.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from autocompress.compress.codes import (
    CodebookTensor,
    GridTensor,
    QuantizedTensor,
    StoredWeight,
)
from autocompress.errors import InputError
from autocompress.onnx_graph.users import users_of
from autocompress.packing.byte_stream import ByteReader
from autocompress.packing.coder import decode_symbols
from autocompress.packing.container import VERSION, Container, read_container
from autocompress.packing.packed import (
    MAX_DECODED_BYTES,
    PackedModel,
    decode_packed,
    naming,
    read_blob,
)
from autocompress.packing.row_bytes import RowBytes, bytes_of_rows, nominal_bits, stored_as
from autocompress.packing.section import Section, payload_lengths, read_section, split_payload
from autocompress.packing.skeleton import make_skeleton
from autocompress.packing.table import (
    DTYPES,
    PROTO,
    SHARED,
    SPARSE,
    SYMBOLS,
    TensorRow,
)
from autocompress.packing.tensor_reader import read_stored_tensors
from autocompress.plan import CompressionPlan


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """What one tensor takes.

    Attributes:
        users: Nodes that compute with it, such as `Conv_3`; see `users_of`.
        shape: Of the tensor.
        stored_as: Its codec in words.
        bits: Nominal bits per value; None where values have no fixed width.
        n_values: Number of values.
        n_bytes: Bytes of the file that are its own; float16 values that are coded together over
            all tensors are shared out by number.
        est_entropy_bytes: Zero-order entropy of the symbols behind `n_bytes.payload`: what an
            ideal coder would need that knows how often each symbol occurs, and nothing else. It is
            no bound for a coder that also looks at neighbours. None without symbols.
    """

    users: tuple[str, ...]
    shape: tuple[int, ...]
    stored_as: str
    bits: int | None
    n_values: int
    n_bytes: RowBytes
    est_entropy_bytes: float | None

    @property
    def bits_per_value(self) -> float | None:
        """Bits in the file per value; None without values."""
        return 8 * self.n_bytes.total / self.n_values if self.n_values else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What a packed file takes, and what it says of itself.

    Attributes:
        version: Of the format.
        n_bytes: By kind; the sum is the size of the file. `header`: magic, lengths, checksums.
            `graph`: compressed graph, tensor table, metadata. `payload`: coded integers. `scales`:
            step sizes, zero points, codebooks, hashed values. `floats`: all that is not quantized.
        rows: A row per tensor, in the order of the file. Their sums are `payload`, `scales` and
            `floats` of `n_bytes`.
        inputs: Name -> shape of the graph's inputs; an unknown dimension has a name or is None.
        outputs: The same of its outputs.
        plan_digest: Digest of the plan in the metadata; None if there is none that can be read.
        metadata_keys: Names of the metadata's entries.
    """

    version: int
    n_bytes: Mapping[str, int]
    rows: tuple[LedgerRow, ...]
    inputs: Mapping[str, tuple[int | str | None, ...]]
    outputs: Mapping[str, tuple[int | str | None, ...]]
    plan_digest: str | None
    metadata_keys: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return sum(self.n_bytes.values())

    @property
    def est_entropy_bytes(self) -> float:
        """Zero-order entropy of the symbols of all tensors, each tensor by itself."""
        return sum(row.est_entropy_bytes or 0.0 for row in self.rows)


def read_ledger(path: Path) -> Ledger:
    """Account for every byte of a packed file, which is decoded and checked on the way.

    Raises:
        InputError: As `read_packed`.
    """
    with naming(path):
        blob = read_blob(path)
        packed = decode_packed(blob)
        container = read_container(blob, MAX_DECODED_BYTES)
        section = read_section(container.section)
        graph = packed.graph.graph
        return Ledger(
            version=VERSION,
            n_bytes=_totals(len(blob), container, section),
            rows=_rows(packed, container, section),
            inputs={_text(value.name): _shape(value) for value in graph.input},
            outputs={_text(value.name): _shape(value) for value in graph.output},
            plan_digest=_plan_digest(packed.metadata),
            metadata_keys=tuple(packed.metadata),
        )


def tensor_bytes(path: Path, graph: onnx.ModelProto) -> dict[str, int]:
    """Bytes of a packed file by tensor: its coded values, scales and codebooks.

    Float16 values of all tensors are coded together (scales in one stream, biases and the like in
    another); a stream is shared out by the number of values, all else is exact. A tensor whose
    values or codes occurred before takes next to nothing.

    Args:
        path: What `write_packed` wrote.
        graph: What it was given.

    Returns:
        Initializer name -> bytes; the sum is `payload`, `scales` and `floats` of `Ledger.n_bytes`.

    Raises:
        InputError: As `read_packed`, or if the file holds another graph's tensors.
    """
    with naming(path):
        section = read_section(read_container(read_blob(path), MAX_DECODED_BYTES).section)
    order = make_skeleton(graph)[1]
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    wanted = [(tensors[name].data_type, tuple(tensors[name].dims)) for name in order]
    if wanted != [(row.data_type, row.dims) for row in section.rows]:
        raise InputError(f"{str(path)!r} must hold the given graph, but holds other tensors.")
    return {name: found.total for name, found in zip(order, bytes_of_rows(section), strict=True)}


def est_entropy_bytes(symbols: NDArray[Any]) -> float:
    """Zero-order entropy of symbols in bytes (Shannon 1948): -sum of n log2(n / N), over 8.

    Args:
        symbols: Any shape; n is how often a symbol occurs, N how many there are.
    """
    counts = np.unique(symbols, return_counts=True)[1]
    return float((counts * np.log2(symbols.size / counts)).sum() / 8)


def _totals(size_bytes: int, container: Container, section: Section) -> dict[str, int]:
    lengths = payload_lengths(section)
    return {
        "header": size_bytes - container.n_packed_section - len(container.payload),
        "graph": container.n_packed_section,
        "payload": lengths.symbols,
        "scales": lengths.zero_points
        + (lengths.scale_stream + lengths.scale_lows + lengths.scale_floats),
        "floats": lengths.half_stream + lengths.half_lows + lengths.raw,
    }


def _rows(packed: PackedModel, container: Container, section: Section) -> tuple[LedgerRow, ...]:
    rows, pools = section.rows, split_payload(container.payload, section)
    streams = ByteReader(pools.symbols, "symbol pool")
    users = users_of(packed.graph.graph)
    names = [tensor.name for tensor in packed.graph.graph.initializer]
    found = []
    stored = zip(rows, bytes_of_rows(section), read_stored_tensors(rows, pools), strict=True)
    for i, (row, n_bytes, (weight, content)) in enumerate(stored):
        symbols = _symbols(row, weight, content, streams.take(n_bytes.payload))
        found.append(
            LedgerRow(
                users=tuple(map(_text, users[names[i]])),
                shape=row.dims,
                stored_as=stored_as(row),
                bits=nominal_bits(row, rows),
                n_values=row.n_values,
                n_bytes=n_bytes,
                est_entropy_bytes=None if symbols is None else est_entropy_bytes(symbols),
            )
        )
    return tuple(found)


def _symbols(
    row: TensorRow, weight: StoredWeight | None, content: bytes, stream: memoryview
) -> NDArray[Any] | None:
    """The integers that a row's stream codes, up to an offset; None if it has no stream."""
    if row.codec == PROTO or not len(stream):
        return None
    if row.codec == SHARED:
        return decode_symbols(stream, row.dims[row.axis], np.int8)
    if row.codec == SYMBOLS:
        return np.frombuffer(content, DTYPES[row.data_type])
    if row.codec == SPARSE:
        return np.frombuffer(content, "<u4") != 0
    assert isinstance(weight, QuantizedTensor | GridTensor | CodebookTensor)
    if isinstance(weight, GridTensor) and row.is_relative:
        # with steps of 1 its values are the distances from the zero points
        return dataclasses.replace(weight, scale=np.ones_like(weight.scale)).dequantize()
    return weight.codes


def _shape(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(
        d.dim_value if d.HasField("dim_value") else _text(d.dim_param) or None for d in dims
    )


def _text(name: str | bytes) -> str:
    """A name; protobuf hands out one that is not UTF-8 as bytes."""
    return name if isinstance(name, str) else name.decode(errors="replace")


def _plan_digest(metadata: Mapping[str, Any]) -> str | None:
    try:
        return CompressionPlan.from_json(metadata.get("plan")).digest
    except (InputError, OverflowError):  # another tool's metadata is none of our business
        return None
