import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from autocompress.compress.codes import QuantizedTensor, StoredWeight
from autocompress.errors import InputError
from autocompress.packing.shared_codes import as_weight, with_signs
from autocompress.packing.table import QUANTIZED, SHARED, SYMBOLS, TensorRow
from autocompress.packing.tensor_reader import read_tensors
from autocompress.packing.tensor_writer import TensorWriter

RNG = np.random.default_rng(0)
CODES = RNG.integers(-7, 8, size=(6, 30)).astype(np.int8)
SIGNS = np.array([1, -1, -1, 1, 1, -1], np.int8)
SCALE = np.linspace(0.5, 1, 6, dtype=np.float32)
WEIGHT = QuantizedTensor(codes=CODES, scale=SCALE, axis=0, bits=4)


def codecs_and_check(*tensors: tuple[np.ndarray[Any, Any], StoredWeight | None]) -> list[int]:
    writer = TensorWriter()
    contents = [
        writer.add(numpy_helper.from_array(v, f"x{i}"), w) for i, (v, w) in enumerate(tensors)
    ]
    assert read_tensors(writer.rows, writer.pools) == contents
    return [row.codec for row in writer.rows]


def stored(weight: StoredWeight) -> tuple[np.ndarray[Any, Any], StoredWeight]:
    return weight.dequantize(), weight


def test_writer_shares_codes_that_differ_in_signs_and_scales() -> None:
    other = dataclasses.replace(WEIGHT, codes=CODES * SIGNS[:, None], scale=SCALE[::-1].copy())
    assert codecs_and_check(stored(WEIGHT), stored(other)) == [QUANTIZED, SHARED]


def test_writer_shares_codes_between_floats_and_integers_transposed_or_not() -> None:
    flipped = CODES * SIGNS[:, None]
    assert codecs_and_check(stored(WEIGHT), (flipped, None), (CODES.T.copy(), None)) == [
        QUANTIZED,
        SHARED,
        SHARED,
    ]
    assert codecs_and_check((CODES, None), stored(WEIGHT), (flipped, None)) == [
        SYMBOLS,
        SHARED,
        SHARED,
    ]
    assert codecs_and_check((CODES, None), stored(WEIGHT.transposed())) == [SYMBOLS, SHARED]


def test_writer_shares_no_codes_that_differ_otherwise() -> None:
    codes = CODES.copy()
    codes[2, 3] += 1
    other = dataclasses.replace(WEIGHT, codes=codes)
    turned = dataclasses.replace(WEIGHT, codes=CODES.reshape(30, 6), scale=np.ones(30, np.float32))
    assert codecs_and_check(stored(WEIGHT), stored(other), stored(turned)) == [QUANTIZED] * 3


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_kind_shares_what_other_scales_leave(
    seed: int, make_weight: Callable[..., StoredWeight], kind: str
) -> None:
    weight = make_weight(kind, seed, (5, 7))
    scale = np.random.default_rng(seed).uniform(1, 2, weight.scale.shape).astype(np.float32)
    codecs = codecs_and_check(stored(weight), stored(dataclasses.replace(weight, scale=scale)))
    assert codecs[1] == SHARED
    other = dataclasses.replace(weight, scale=scale).transposed()
    assert codecs_and_check(stored(weight), stored(other))[1] == SHARED


def test_with_signs_refuses_a_code_that_has_no_negative() -> None:
    weight = as_weight(np.array([[-128, 1]], np.int8), 0)
    with pytest.raises(InputError, match=r"-\(-128\)"):
        with_signs(weight, np.array([-1], np.int8))


def rows_and_pools() -> tuple[list[TensorRow], Any]:
    writer = TensorWriter()
    other = dataclasses.replace(WEIGHT, codes=CODES * SIGNS[:, None])
    for weight in (WEIGHT, other):
        writer.add(numpy_helper.from_array(weight.dequantize(), "x"), weight)
    writer.add(numpy_helper.from_array(np.linspace(0, 1, 180, dtype=np.float32), "y"), None)
    return writer.rows, writer.pools


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"earlier": 2}, "has no codes"),
        ({"dims": (30, 6)}, "cannot have the codes of tensor 0"),
        ({"axis": 1}, "cannot have the codes of tensor 0"),
        ({"block_size": 3}, "cannot have the codes of tensor 0"),
    ],
)
def test_read_tensors_refuses_codes_that_do_not_fit(change: dict[str, Any], match: str) -> None:
    rows, pools = rows_and_pools()
    rows[1:] = [rows[2], dataclasses.replace(rows[1], **change)]
    if change.get("earlier") == 2:
        rows[2] = dataclasses.replace(rows[2], earlier=1)
        match = "has no codes"
    with pytest.raises(InputError, match=match):
        read_tensors(rows, pools)
