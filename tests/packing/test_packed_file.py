"""Reading from disk: no more than the header claims; messages of one printable line."""

import os
import threading
from pathlib import Path

import pytest

from autocompress.errors import InputError
from autocompress.packing.byte_stream import varint
from autocompress.packing.container import MAX_FILE_BYTES, to_container
from autocompress.packing.packed import naming, read_blob

BLOB = to_container(b"section " * 99, b"payload " * 300_000, b"01234567")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.acz"


def test_read_blob_reads_the_whole_file(path: Path) -> None:
    path.write_bytes(BLOB)
    assert read_blob(path) == BLOB


def test_read_blob_reads_a_pipe_and_stops_at_the_claimed_end(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs named pipes")
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(BLOB,))
    writer.start()
    assert read_blob(path) == BLOB
    writer.join()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "must begin with b'ACZ1', but begins b''"),
        (b"PK\x03\x04" + BLOB[4:], "must begin with"),
        (BLOB[:4] + b"\x02" + BLOB[5:], "version must be 1, but is 2"),
        (BLOB[:20], "more bytes at offset"),
        (BLOB[:-7], f"must have {len(BLOB)} bytes, as its .* has {len(BLOB) - 7}: it is cut off"),
        (BLOB + b"\0", f"must have {len(BLOB)} bytes, as its header says, but more follow"),
        (BLOB[:22] + varint(9) + varint(MAX_FILE_BYTES) + varint(0), "at most 4294967296 bytes"),
        (BLOB[:22] + b"\xff" * 30, "must hold a valid varint"),
    ],
)
def test_read_blob_refuses_by_the_header(content: bytes, match: str, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=match):
        read_blob(path)


def test_read_blob_does_not_read_a_device_without_an_end() -> None:
    device = Path(os.devnull).with_name("zero")
    if not device.exists():
        pytest.skip("needs a device of zeros")
    with pytest.raises(InputError, match="must begin with"):
        read_blob(device)


def test_naming_makes_one_printable_line_that_ends(path: Path) -> None:
    with pytest.raises(InputError) as caught, naming(path):
        raise InputError(f"A name is \x1b[31mred\n{'x' * 10_000}.", "A hint.")
    assert caught.value.message.startswith(
        f"{str(path)!r} must be an undamaged packed model, but a name is \\x1b[31mred xxx"
    )
    assert len(caught.value.message) < 500
    assert caught.value.hint == "A hint."
