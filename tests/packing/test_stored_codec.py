import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from autocompress.compress.codes import (
    CodebookTensor,
    GridTensor,
    HashedTensor,
    QuantizedTensor,
    StoredWeight,
)
from autocompress.errors import InputError
from autocompress.packing.byte_stream import ByteReader, PoolReader, Pools
from autocompress.packing.stored_codec import put_scales, read_stored, take_scales, write_stored
from autocompress.packing.table import (
    CODEBOOK,
    EACH_FLOAT,
    EACH_HALF,
    GRID,
    NO_SCALES,
    ONE_FLOAT,
    ONE_HALF,
    QUANTIZED,
    TensorRow,
    read_row,
)
from autocompress.packing.tensor_reader import read_tensors
from autocompress.packing.tensor_writer import TensorWriter

FLOAT = 1


def entropy_bytes(symbols: np.ndarray[Any, Any]) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def packed_and_read(weight: StoredWeight) -> tuple[TensorRow, bytes, bytes]:
    """Row, decoded bytes and wanted bytes of one tensor that went through the table's bytes."""
    writer = TensorWriter()
    wanted = writer.add(numpy_helper.from_array(weight.dequantize(), "x"), weight)
    rows = [read_row(ByteReader(row.to_bytes(), "table"), i) for i, row in enumerate(writer.rows)]
    assert rows == writer.rows
    (content,) = read_tensors(rows, writer.pools)
    return rows[0], content, wanted


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_stored_weights_come_back_bit_for_bit(
    seed: int, make_weight: Callable[..., StoredWeight], kind: str
) -> None:
    weight = make_weight(kind, seed)
    row, content, wanted = packed_and_read(weight)
    assert content == wanted == weight.dequantize().tobytes()
    assert row.bits == weight.bits


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_read_stored_inverts_write_stored(
    seed: int, make_weight: Callable[..., StoredWeight], kind: str
) -> None:
    weight, pools = make_weight(kind, seed), Pools()
    shape = weight.dequantize().shape
    row = TensorRow(data_type=FLOAT, dims=shape, **write_stored(weight, pools))
    read = read_stored(row, PoolReader(pools))
    assert type(read) is type(weight)
    for field in weight.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(read, field), getattr(weight, field))


@pytest.mark.parametrize(
    ("scale", "form", "n_bytes"),
    [
        ([1, 1, 1], NO_SCALES, 0),
        ([0.5, 0.5, 0.5], ONE_HALF, 2),
        ([0.1, 0.1, 0.1], ONE_FLOAT, 4),
        ([0.5, -0.5, 0.5], EACH_HALF, 6),
        ([0.1, 0.5, 0.5], EACH_FLOAT, 12),
    ],
)
def test_put_scales_takes_the_shortest_form(scale: list[float], form: int, n_bytes: int) -> None:
    values, pools = np.array(scale, np.float32), Pools()
    assert put_scales(values, pools) == form
    assert len(pools.scale_halves) + len(pools.scale_floats) == n_bytes
    row = TensorRow(data_type=FLOAT, dims=(3, 2), codec=QUANTIZED, scales=form)
    np.testing.assert_array_equal(take_scales(row, PoolReader(pools)), values)


def zeros_and_codes(n_weights: int, zeros_ratio: float, bits: int) -> np.ndarray[Any, Any]:
    """4-bit codes around 0 with a share of zeros."""
    rng = np.random.default_rng(0)
    high = 2 ** (bits - 1) - 1
    codes = np.clip(np.rint(rng.normal(size=n_weights) * high / 2), -high, high)
    return np.where(rng.random(n_weights) < zeros_ratio, 0, codes).astype(np.int8)


@pytest.mark.parametrize("zeros_ratio", [0.5, 0.9, 0.99])
def test_zeros_cost_their_entropy_in_every_kind(zeros_ratio: float) -> None:
    codes = zeros_and_codes(40_000, zeros_ratio, 4).reshape(40, 1000)
    limit = entropy_bytes(codes) * 1.01 + 30
    one = np.ones(40, np.float32)
    weights = [
        QuantizedTensor(codes=codes, scale=one, axis=0, bits=4),
        CodebookTensor(
            codes=(codes + 7).astype(np.uint8),
            codebook=np.arange(-7, 8, dtype=np.float32) ** 3,
            scale=one,
            axis=0,
            bits=4,
        ),
        GridTensor(  # zero points that differ from block to block
            codes=(codes + 7 + np.arange(40)[:, None]).astype(np.uint8),
            scale=np.ones((40, 1), np.float32),
            zero_point=(7 + np.arange(40)[:, None]).astype(np.uint8),
            block_size=1000,
            axis=0,
            bits=6,
        ),
    ]
    for weight in weights:
        pools = Pools()
        write_stored(weight, pools)
        assert len(pools.symbols) < limit


def test_grids_of_small_blocks_cost_no_more_than_their_codes() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, size=(20, 200)).astype(np.uint8)
    zero_point = rng.integers(0, 16, size=(20, 40)).astype(np.uint8)
    weight = GridTensor(
        codes=codes,
        scale=np.ones((20, 40), np.float32),
        zero_point=zero_point,
        block_size=5,
        axis=0,
        bits=4,
    )
    pools = Pools()
    fields = write_stored(weight, pools)
    assert not fields["is_relative"]
    assert len(pools.symbols) <= codes.size * 4 / 8 + 10
    assert len(pools.zero_points) <= zero_point.size * 4 / 8 + 10


def test_hashed_weights_store_no_positions() -> None:
    weight = HashedTensor(
        shape=(100, 100),
        values=np.arange(50, dtype=np.float32),
        seed=7,
        scale=np.ones(100, np.float32),
        axis=0,
        bits=8,
    )
    pools = Pools()
    write_stored(weight, pools)
    assert len(pools.scale_halves) == 100
    assert not pools.symbols
    assert not pools.scale_floats


def test_writer_stores_a_codebook_once_for_tensors_in_a_row(
    make_weight: Callable[..., StoredWeight],
) -> None:
    writer = TensorWriter()
    weights = [make_weight("codebook", seed, (9, 9)) for seed in (1, 2, 3, 4)]
    assert isinstance(weights[0], CodebookTensor)
    book = {"codebook": weights[0].codebook, "bits": 8}
    n_entries = len(weights[0].codebook)
    weights[1:3] = [dataclasses.replace(w, codes=w.codes % n_entries, **book) for w in weights[1:3]]
    wanted = [
        writer.add(numpy_helper.from_array(weight.dequantize(), "x"), weight) for weight in weights
    ]
    assert [row.n_entries > 0 for row in writer.rows] == [True, False, False, True]
    assert read_tensors(writer.rows, writer.pools) == wanted
    with pytest.raises(InputError, match="codebook of its own"):
        read_tensors(writer.rows[1:], writer.pools)


def test_read_stored_refuses_indices_beyond_the_codebook() -> None:
    weight = CodebookTensor(
        codes=np.arange(20, dtype=np.uint8).reshape(4, 5),
        codebook=np.arange(20, dtype=np.float32),
        scale=np.ones(4, np.float32),
        axis=0,
        bits=5,
    )
    pools = Pools()
    fields = write_stored(weight, pools) | {"n_entries": 19}
    row = TensorRow(data_type=FLOAT, dims=(4, 5), **fields)
    assert row.codec == CODEBOOK
    with pytest.raises(InputError, match=r"must lie in \[0, 18\], but range over \[0, 19\]"):
        read_stored(row, PoolReader(pools))


def test_read_stored_refuses_grid_codes_that_are_no_bytes() -> None:
    weight = GridTensor(
        codes=np.array([[250, 3, 3, 3] * 9], np.uint8),
        scale=np.ones((1, 1), np.float32),
        zero_point=np.array([[3]], np.uint8),
        block_size=36,
        axis=0,
        bits=8,
    )
    pools = Pools()
    fields = write_stored(weight, pools) | {"is_relative": True}
    pools.zero_points = bytearray(pools.zero_points[:1]) + b"\xfe\x03"  # 255 instead of 3
    row = TensorRow(data_type=FLOAT, dims=(1, 36), **(fields | {"n_zero_stream": 3}))
    assert row.codec == GRID
    with pytest.raises(InputError, match=r"must lie in \[0, 255\]"):
        read_stored(row, PoolReader(pools))
