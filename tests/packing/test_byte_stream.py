import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.errors import InputError
from autocompress.packing.byte_stream import ByteReader, signed_varint, varint


@given(st.integers(0, 2**64 - 1))
def test_varint_round_trips_in_the_fewest_bytes(value: int) -> None:
    data = varint(value)
    assert ByteReader(data, "test").varint() == value
    assert len(data) == max(1, -(-value.bit_length() // 7))


@given(st.integers(-(2**63), 2**63 - 1))
def test_signed_varint_round_trips(value: int) -> None:
    reader = ByteReader(signed_varint(value), "test")
    assert reader.signed_varint() == value
    reader.finish()


@pytest.mark.parametrize("value", [-1, 2**64])
def test_varint_refuses_what_does_not_fit(value: int) -> None:
    with pytest.raises(ValueError, match=str(value)):
        varint(value)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff" * 11, b"\xff" * 9 + b"\x02"])
def test_reader_refuses_a_varint_that_is_cut_off_padded_or_too_long(data: bytes) -> None:
    with pytest.raises(InputError):
        ByteReader(data, "test").varint()


def test_reader_says_what_is_missing() -> None:
    reader = ByteReader(b"abc", "small part")
    assert bytes(reader.take(2)) == b"ab"
    with pytest.raises(
        InputError, match="small part must hold 5 more bytes at offset 2, but only 1"
    ):
        reader.take(5)
    with pytest.raises(InputError, match="must end at offset 2, but 1 bytes follow"):
        reader.finish()
