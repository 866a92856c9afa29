"""The outside of a packed file: magic, version, checksums, a compressed section and a payload."""

import dataclasses
import hashlib
import lzma
import zlib
from typing import Any, Final

from autocompress.errors import InputError
from autocompress.packing.byte_stream import ByteReader, varint

MAGIC: Final = b"ACZ1"
VERSION: Final = 1
DIGEST_BYTES: Final = 8
MAX_SECTION_BYTES: Final = 1 << 28
MAX_FILE_BYTES: Final = 1 << 32
MAX_HEAD_BYTES: Final = 52  # everything before the section, its lengths as long as can be

_LZMA2, _DEFLATE = 0, 1
_DICTIONARY_BYTES = 1 << 20  # fixed, so that a file cannot ask for more memory
# literal context bits: graphs are short and mostly small numbers, so few contexts often win
_LITERAL_CONTEXTS = (0, 2, 3, 4)
# A section may be this long for a file of no bytes, and so much longer for each byte of the file.
# The graph of 60,000 repeated nodes keeps to the first; a parsed graph takes about 100 times the
# memory of its bytes, so that neither may be generous.
_SECTION_BYTES_AT_LEAST, _SECTION_BYTES_PER_BYTE = 1 << 22, 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A packed file, opened and checked but not decoded.

    Attributes:
        section: Uncompressed: graph, metadata, tensor table.
        payload: Pools of the tensors.
        content_digest: What `digest` of the decoded contents must be.
        n_packed_section: Bytes of the section in the file.
    """

    section: bytes
    payload: bytes
    content_digest: bytes
    n_packed_section: int


def digest(*parts: bytes) -> bytes:
    """BLAKE2b of parts, 8 bytes; each part's length counts, so that moving a border changes it."""
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        state.update(varint(len(part)))
        state.update(part)
    return state.digest()


def to_container(section: bytes, payload: bytes, content_digest: bytes) -> bytes:
    """Bytes of a whole file.

    Raises:
        InputError: If the section is larger than any reader accepts.
    """
    method, packed = _compress(section)
    most = _most_section_bytes(len(packed) + len(payload))
    if len(section) > most:
        raise InputError(
            f"a graph without its initializers must have at most {most} bytes in a file this "
            f"large, but has {len(section)}"
        )
    rest = content_digest + bytes([method])
    rest += b"".join(map(varint, (len(section), len(packed), len(payload)))) + packed + payload
    start = MAGIC + bytes([VERSION])
    return start + digest(start, rest) + rest


def claimed_bytes(start: bytes) -> int:
    """Size of a whole file, as its first bytes claim.

    Args:
        start: The first `MAX_HEAD_BYTES` bytes, or all if there are fewer.

    Raises:
        InputError: If they are not those of a file of this version, or the claim is absurd.
    """
    reader = ByteReader(start, "file")
    _take_start(reader)
    reader.take(2 * DIGEST_BYTES + 1)
    reader.varint()
    n_packed, n_payload = reader.varint(), reader.varint()
    n_bytes = reader.position + n_packed + n_payload
    if n_bytes > MAX_FILE_BYTES:
        raise InputError(f"the file must have at most {MAX_FILE_BYTES} bytes, but claims {n_bytes}")
    return n_bytes


def read_container(blob: bytes, max_section_bytes: int) -> Container:
    """Inverse of `to_container`.

    Raises:
        InputError: If `blob` is not a whole, undamaged file of this version.
    """
    reader = ByteReader(blob, "file")
    start = _take_start(reader)
    checksum = bytes(reader.take(DIGEST_BYTES))
    if digest(start, blob[reader.position :]) != checksum:
        raise InputError("the checksum does not match: the file is damaged or cut off")
    content_digest, method = bytes(reader.take(DIGEST_BYTES)), reader.byte()
    n_section, n_packed, n_payload = (reader.varint() for _ in range(3))
    most = min(max_section_bytes, _most_section_bytes(n_packed + n_payload))
    if n_section > most:
        raise InputError(
            f"the graph section must have at most {most} bytes, but claims {n_section} bytes"
        )
    packed, payload = bytes(reader.take(n_packed)), bytes(reader.take(n_payload))
    reader.finish()
    return Container(
        section=_decompress(method, packed, n_section),
        payload=payload,
        content_digest=content_digest,
        n_packed_section=n_packed,
    )


def _take_start(reader: ByteReader) -> bytes:
    """Magic and version."""
    magic = bytes(reader.take(min(len(MAGIC), reader.n_left)))
    if magic != MAGIC:
        raise InputError(f"the file must begin with {MAGIC!r}, but begins {magic!r}")
    version = reader.byte()
    if version != VERSION:
        raise InputError(
            f"the format's version must be {VERSION}, but is {version}",
            "A newer autocompress may read it.",
        )
    return magic + bytes([version])


def _most_section_bytes(n_bytes: int) -> int:
    """Bytes of the longest section that section and payload of so many bytes may have."""
    return min(MAX_SECTION_BYTES, _SECTION_BYTES_AT_LEAST + _SECTION_BYTES_PER_BYTE * n_bytes)


def _filters(literal_contexts: int) -> list[dict[str, Any]]:
    preset = {"preset": 9 | lzma.PRESET_EXTREME, "dict_size": _DICTIONARY_BYTES}
    return [{"id": lzma.FILTER_LZMA2, **preset, "lc": literal_contexts, "lp": 0, "pb": 0}]


def _compress(section: bytes) -> tuple[int, bytes]:
    choices = [
        (_LZMA2, lzma.compress(section, format=lzma.FORMAT_RAW, filters=_filters(contexts)))
        for contexts in _LITERAL_CONTEXTS
    ]
    choices.append((_DEFLATE, zlib.compress(section, 9, wbits=-zlib.MAX_WBITS)))
    return min(choices, key=lambda choice: len(choice[1]))


def _decompress(method: int, packed: bytes, n_bytes: int) -> bytes:
    """Expand to exactly `n_bytes`; never takes memory for more than one byte above that."""
    decoder: Any
    if method == _LZMA2:
        decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_filters(0))
    elif method == _DEFLATE:
        decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    else:
        raise InputError(f"the compression method must be 0 or 1, but is {method}")
    try:
        plain: bytes = decoder.decompress(packed, n_bytes + 1)
    except (lzma.LZMAError, zlib.error) as error:
        raise InputError(f"the graph section cannot be decompressed: {error}") from error
    if len(plain) != n_bytes or not decoder.eof or decoder.unused_data:
        raise InputError(f"the graph section must expand to exactly {n_bytes} bytes, but does not")
    return plain
