import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from autocompress.errors import InputError
from autocompress.packing.byte_stream import PoolReader, Pools
from autocompress.packing.sparse import read_sparse, write_sparse
from autocompress.packing.table import RAW, SPARSE, TensorRow
from autocompress.packing.tensor_reader import read_tensors
from autocompress.packing.tensor_writer import TensorWriter


def sparse(n_values: int, zeros_ratio: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=n_values).astype(np.float32)
    return np.where(rng.random(n_values) < zeros_ratio, np.float32(0), values)


@settings(deadline=None, max_examples=60)
@given(
    n_values=st.integers(1, 300),
    zeros_ratio=st.floats(0, 1),
    seed=st.integers(0, 999),
    is_half=st.booleans(),
)
def test_floats_with_zeros_come_back_bit_for_bit(
    n_values: int, zeros_ratio: float, seed: int, is_half: bool
) -> None:
    values = sparse(n_values, zeros_ratio, seed)
    values = values.astype(np.float16).astype(np.float32) if is_half else values
    values[seed % n_values] = -0.0  # is a value, not a zero
    writer = TensorWriter()
    content = writer.add(numpy_helper.from_array(values, "x"), None)
    assert read_tensors(writer.rows, writer.pools) == [content]
    assert content == values.tobytes()


@pytest.mark.parametrize(
    ("zeros_ratio", "codec"),
    [(0.0, RAW), (0.001, RAW), (0.05, SPARSE), (0.9, SPARSE), (1.0, SPARSE)],
)
def test_writer_takes_sparse_where_it_is_smaller(zeros_ratio: float, codec: int) -> None:
    writer = TensorWriter()
    writer.add(numpy_helper.from_array(sparse(4000, zeros_ratio), "x"), None)
    assert writer.rows[0].codec == codec


def test_sparse_costs_the_mask_and_the_values() -> None:
    values, pools = sparse(10_000, 0.9), Pools()
    fields = write_sparse(values, pools)
    assert fields is not None
    kept = int((values != 0).sum())
    share = kept / values.size
    mask_bytes = -values.size * (share * np.log2(share) + (1 - share) * np.log2(1 - share)) / 8
    assert len(pools.raw) == 4 * kept
    assert len(pools.symbols) < mask_bytes * 1.01 + 10


@pytest.mark.parametrize("n_entries", [0, 1, 3])
def test_read_sparse_refuses_another_number_of_values(n_entries: int) -> None:
    values, pools = np.zeros(50, np.float32), Pools()
    values[[3, 30]] = 1.5
    fields = write_sparse(values, pools)
    assert fields is not None
    row = TensorRow(data_type=1, dims=(50,), **(fields | {"n_entries": n_entries}))
    with pytest.raises(InputError, match=f"must mark {n_entries} values"):
        read_sparse(row, PoolReader(pools))
