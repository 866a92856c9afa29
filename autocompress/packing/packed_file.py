"""A packed file on disk: read as far as it claims to reach; errors are one line and name it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from autocompress.errors import InputError
from autocompress.packing.container import MAX_HEAD_BYTES, claimed_bytes

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
        reason = "".join(c if c.isprintable() else "?" for c in error.message).rstrip(".")
        if len(reason) > _MAX_REASON_CHARS:
            reason = f"{reason[:_MAX_REASON_CHARS]} …"
        raise InputError(
            f"{str(path)!r} must be an undamaged packed model, but "
            f"{reason[:1].lower()}{reason[1:]}.",
            error.hint or "Pack the model again, or copy the file again.",
        ) from error
