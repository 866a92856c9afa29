import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autocompress.compress.codes import StoredWeight
from autocompress.errors import InputError
from autocompress.packing.tensor_writer import check_stored

ONES = np.ones(99, np.float32)


@pytest.mark.parametrize(
    ("kind", "change", "match"),
    [
        (
            "quantized",
            {"axis": 2},
            r"along a dimension of its shape \(4, 6\), but run along axis 2",
        ),
        ("quantized", {"axis": -1}, "along axis -1"),
        ("quantized", {"scale": ONES}, r"but have shape \(99,\)"),
        ("quantized", {"bits": 0}, "1 to 8 bits, but have 0"),
        ("codebook", {"bits": 9}, "1 to 8 bits, but have 9"),
        ("grid", {"block_size": 0}, "1 to 24 weights, but have 0"),
        ("grid", {"block_size": 25}, "1 to 24 weights, but have 25"),
        ("grid", {"zero_point": np.ones(3, np.uint8)}, r"Zero points .* have shape \(3,\)"),
        ("grid", {"scale": ONES}, r"but have shape \(99,\)"),
        ("codebook", {"codebook": np.ones(0, np.float32)}, "1 to 256 entries, but has 0"),
        ("codebook", {"codebook": np.ones(257, np.float32)}, "1 to 256 entries, but has 257"),
        ("codebook", {"codebook": np.ones(1, np.float32)}, "below the 1 entries"),
        ("hashed", {"values": ONES}, "1 to 24, one a weight at most, but are 99"),
        ("hashed", {"values": ONES[:0]}, "but are 0"),
        ("hashed", {"seed": 2**32}, "but is 4294967296"),
        ("hashed", {"shape": (4, 6, 1), "axis": 0, "is_transposed": True}, "Only a matrix"),
    ],
)
def test_check_stored_refuses_what_contradicts_itself(
    kind: str, change: dict[str, Any], match: str, make_weight: Callable[..., StoredWeight]
) -> None:
    weight = make_weight(kind, 4, (4, 6))
    check_stored(weight, "conv")
    if "is_transposed" in change:
        change = {**change, "scale": np.ones(4, np.float32)}
    with pytest.raises(InputError, match=match) as caught:
        check_stored(dataclasses.replace(weight, **change), "conv")
    assert "'conv'" in caught.value.message
