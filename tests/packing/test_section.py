import dataclasses

import numpy as np
import pytest
from onnx import TensorProto

from autocompress.errors import InputError
from autocompress.packing.byte_stream import Pools
from autocompress.packing.section import (
    Section,
    join_pools,
    payload_lengths,
    read_section,
    split_payload,
)
from autocompress.packing.table import EACH_HALF, HALF, QUANTIZED, RAW, TensorRow

HALVES = np.linspace(-1, 1, 40).astype("<f2").tobytes()
POOLS = Pools(
    symbols=bytearray(b"12345"),
    scale_halves=bytearray(HALVES[:6]),
    halves=bytearray(HALVES),
    raw=bytearray(b"raw values, "),
)


def make_section(n_scale_stream: int, n_half_stream: int) -> Section:
    codes = TensorRow(
        data_type=TensorProto.FLOAT,
        dims=(7, 3),
        codec=QUANTIZED,
        n_stream=5,
        axis=1,
        bits=4,
        scales=EACH_HALF,
    )
    return Section(
        skeleton=b"graph",
        metadata=b"{}",
        kept=((1, "é"),),
        rows=(
            codes,
            TensorRow(data_type=TensorProto.FLOAT, dims=(40,), codec=HALF),
            TensorRow(data_type=TensorProto.INT32, dims=(3,), codec=RAW),
        ),
        n_scale_stream=n_scale_stream,
        n_half_stream=n_half_stream,
    )


def test_read_section_inverts_to_bytes() -> None:
    section = make_section(3, 200)
    assert read_section(section.to_bytes()) == section


def test_read_section_refuses_every_truncation_and_trailing_bytes() -> None:
    data = make_section(3, 200).to_bytes()
    for n_kept in range(len(data)):
        with pytest.raises(InputError):
            read_section(data[:n_kept])
    with pytest.raises(InputError, match="1 bytes follow"):
        read_section(data + b"\0")


def test_split_payload_inverts_join_pools() -> None:
    payload, n_scale_stream, n_half_stream = join_pools(POOLS)
    section = make_section(n_scale_stream, n_half_stream)
    assert split_payload(payload, section) == POOLS
    lengths = payload_lengths(section)
    assert (lengths.symbols, lengths.scale_lows, lengths.half_lows, lengths.raw) == (5, 3, 40, 12)


def test_split_payload_refuses_another_length() -> None:
    payload, n_scale_stream, n_half_stream = join_pools(POOLS)
    with pytest.raises(
        InputError, match=f"must have {len(payload)} bytes, .* has {len(payload) + 1}"
    ):
        split_payload(payload + b"\0", make_section(n_scale_stream, n_half_stream))


@pytest.mark.parametrize("kept", [((3, "a"),), ((1, "a"), (1, "b")), ((2, "a"), (1, "b"))])
def test_read_section_refuses_kept_names_out_of_order(kept: tuple[tuple[int, str], ...]) -> None:
    section = dataclasses.replace(make_section(3, 200), kept=kept)
    with pytest.raises(InputError, match="kept names must be those of 3 tensors, in their order"):
        read_section(section.to_bytes())
