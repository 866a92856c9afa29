import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.errors import InputError
from autocompress.packing.byte_stream import varint
from autocompress.packing.container import (
    MAX_HEAD_BYTES,
    MAX_SECTION_BYTES,
    claimed_bytes,
    digest,
    read_container,
    to_container,
)

CONTENT = b"01234567"


def seal(rest: bytes, start: bytes = b"ACZ1\x01") -> bytes:
    return start + digest(start, rest) + rest


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=3000), st.binary(max_size=50))
def test_read_container_inverts_to_container(section: bytes, payload: bytes) -> None:
    container = read_container(to_container(section, payload, CONTENT), 1 << 20)
    assert container.section == section
    assert container.payload == payload
    assert container.content_digest == CONTENT


def test_digest_counts_the_borders_of_its_parts() -> None:
    assert digest(b"ab", b"c") != digest(b"a", b"bc")


def test_to_container_compresses_the_section_and_not_the_payload() -> None:
    assert len(to_container(b"a" * 10_000, b"b" * 10_000, CONTENT)) < 10_100


@pytest.mark.parametrize(
    ("blob", "match"),
    [
        (b"", "must begin with"),
        (b"PK\x03\x04", "must begin with"),
        (b"ACZ1", "more bytes"),
        (b"ACZ1\x02" + bytes(60), "version must be 1, but is 2"),
        (b"ACZ1\x01" + bytes(60), "checksum"),
        (seal(CONTENT + b"\x02\x01\x01\x00a"), "method must be 0 or 1, but is 2"),
        (seal(CONTENT + b"\x00\x01\x01\x00a"), "cannot be decompressed|expand to exactly"),
        (seal(CONTENT + b"\x01\x05\x02\x00\x03\x00"), "expand to exactly 5"),
        (seal(CONTENT + b"\x01\x00\x03\x00\x03\x00x"), "expand to exactly 0"),
        (seal(CONTENT + b"\x01\x00\x02\x00\x03\x00x"), "1 bytes follow"),
        (seal(CONTENT + b"\x01" + varint(MAX_SECTION_BYTES + 1) + b"\x00\x00"), "claims"),
        (seal(CONTENT + b"\x01\x00" + varint(2**60) + b"\x00"), "more bytes"),
    ],
)
def test_read_container_refuses_what_it_cannot_have_written(blob: bytes, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read_container(blob, 1 << 30)


def test_read_container_refuses_a_section_that_expands_too_far() -> None:
    bomb = to_container(bytes(1 << 20), b"", CONTENT)
    assert len(bomb) < 2000
    with pytest.raises(InputError, match="claims 1048576 bytes"):
        read_container(bomb, 1 << 16)


def test_sections_may_be_longer_in_larger_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autocompress.packing.container._SECTION_BYTES_AT_LEAST", 2000)
    section = bytes(3000)
    blob = to_container(section, bytes(250), CONTENT)
    assert read_container(blob, 1 << 30).section == section
    with pytest.raises(
        InputError, match=r"at most 20[0-9]{2} bytes in a file this large, but has "
    ):
        to_container(section, b"", CONTENT)


def test_read_container_refuses_a_section_that_is_long_for_its_file() -> None:
    blob = seal(CONTENT + b"\x01" + varint((1 << 22) + 50) + b"\x02\x03abcde")
    with pytest.raises(InputError, match="at most 4194324 bytes, but claims 4194354 bytes"):
        read_container(blob, 1 << 30)


@settings(deadline=None, max_examples=25)
@given(st.binary(max_size=3000), st.binary(max_size=300))
def test_claimed_bytes_is_the_size_of_the_file(section: bytes, payload: bytes) -> None:
    blob = to_container(section, payload, CONTENT)
    assert claimed_bytes(blob[:MAX_HEAD_BYTES]) == len(blob)
