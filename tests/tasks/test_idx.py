import gzip
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from autocompress.errors import InputError
from autocompress.tasks.idx import read_idx, read_mnist

_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def _idx_bytes(array):
    code = _CODES[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def _write_mnist(folder, names=("{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"), sizes=(7, 4)):
    generator = np.random.default_rng(0)
    written = {}
    for split, size in zip(("train", "t10k"), sizes, strict=True):
        images = generator.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = generator.integers(0, 10, size, dtype=np.uint8)
        for name, array in zip(names, (images, labels), strict=True):
            content = _idx_bytes(array)
            path = folder / name.format(split)
            path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        written[split] = (images, labels)
    return written


@given(
    array=st.sampled_from(sorted(_CODES)).flatmap(
        lambda code: st_numpy.arrays(code, st_numpy.array_shapes(max_dims=4, max_side=4))
    ),
    is_gzip=st.booleans(),
)
def test_read_idx_inverts_writing(tmp_path_factory, array, is_gzip):
    path = tmp_path_factory.mktemp("idx") / "values"
    content = _idx_bytes(array)
    path.write_bytes(gzip.compress(content) if is_gzip else content)

    values = read_idx(path)

    assert values.dtype == array.dtype
    np.testing.assert_array_equal(values, array)


@pytest.mark.parametrize("is_gzip", [False, True])
def test_read_idx_refuses_a_hostile_size_before_it_allocates(tmp_path, is_gzip):
    content = struct.pack(">BBBB3I", 0, 0, 0x0E, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1) + b"few"
    path = tmp_path / "huge"
    path.write_bytes(gzip.compress(content) if is_gzip else content)

    with pytest.raises(InputError, match=r"announces .* too short to hold them"):
        read_idx(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing"),
        (b"\0\0\x07\x01", "begins with 00 00 07 01"),
        (b"\0\0\x08\0", "begins with 00 00 08 00"),
        (b"\x89PNG", "begins with 89 50 4e 47"),
        (b"\0\0\x08\x02\0\0\0\x01", "ends within its header of 2 dimensions"),
        (b"\0\0\x08\x01\0\0\0\x03ab", "must hold 3 bytes .* holds only 2"),
        (b"\0\0\x08\x01\0\0\0\x01ab", "must hold 1 bytes .* holds more"),
        (b"\x1f\x8b rubbish", "could not be read"),
    ],
)
def test_read_idx_names_the_damage(tmp_path, content, message):
    path = tmp_path / "damaged-idx"
    path.write_bytes(content)

    with pytest.raises(InputError, match=message) as caught:
        read_idx(path)
    assert "damaged-idx" in caught.value.message


def test_read_idx_refuses_a_truncated_gzip(tmp_path):
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(_idx_bytes(np.arange(5000, dtype=np.int32)))[:-40])

    with pytest.raises(InputError, match=r"cut\.gz could not be read"):
        read_idx(path)


def test_read_idx_says_when_the_file_is_absent(tmp_path):
    with pytest.raises(InputError, match="absent does not"):
        read_idx(tmp_path / "absent")


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_read_mnist_reads_all_four_spellings(tmp_path, dot, end):
    names = (f"{{}}-images{dot}idx3-ubyte{end}", f"{{}}-labels{dot}idx1-ubyte{end}")
    written = _write_mnist(tmp_path, names)

    for (images, labels), split in zip(read_mnist(tmp_path), ("train", "t10k"), strict=True):
        expected_images, expected_labels = written[split]
        assert images.shape == (len(expected_images), 1, 28, 28)
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        np.testing.assert_array_equal(images[:, 0].numpy(), expected_images)
        np.testing.assert_array_equal(labels.numpy(), expected_labels)


def test_read_mnist_names_the_missing_file(tmp_path):
    _write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()

    with pytest.raises(InputError, match=r"must hold one of t10k-labels-idx1-ubyte"):
        read_mnist(tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1-ubyte", np.full(7, 10, np.uint8), r"labels in \[0, 9\], but holds 10"),
        ("train-labels-idx1-ubyte", np.zeros(6, np.uint8), r"each of 7 images.*\(6,\)"),
        (
            "train-images-idx3-ubyte",
            np.zeros((7, 28, 27), np.uint8),
            r"holds uint8 .*\(7, 28, 27\)",
        ),
        ("train-images-idx3-ubyte", np.zeros((7, 28, 28), np.float32), "holds float32"),
    ],
)
def test_read_mnist_refuses_other_contents(tmp_path, name, array, message):
    _write_mnist(tmp_path)
    (tmp_path / name).write_bytes(_idx_bytes(array))

    with pytest.raises(InputError, match=message):
        read_mnist(tmp_path)
