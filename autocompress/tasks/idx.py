"""Read IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped.

An IDX file is two zero bytes, a byte for the dtype, a byte for the number of dimensions, each
dimension as a big-endian uint32, then the values in C order, big-endian (LeCun, Cortes & Burges,
http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocompress.errors import InputError

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
# No deflate stream expands further (zlib manual, "Maximum compression factor").
_GZIP_MAX_EXPANSION = 1032
_N_CLASSES = 10


def read_idx(path: Path) -> NDArray[Any]:
    """Read one IDX file.

    The header is checked against the file's length before any value is read, so a hostile header
    costs no memory. Gzip is recognised by its first bytes, whatever the file is called.

    Returns:
        Array of the file's shape, in native byte order.

    Raises:
        InputError: If the file is missing, is no IDX file, or is shorter or longer than it says.
    """
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            n_bytes = path.stat().st_size
            if not is_gzip:
                return _read_stream(raw, path, max_bytes=n_bytes)
            with gzip.open(raw, "rb") as stream:
                return _read_stream(stream, path, max_bytes=n_bytes * _GZIP_MAX_EXPANSION)
    except FileNotFoundError as error:
        raise InputError(f"The IDX file must exist, but {path} does not.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"The IDX file {path} could not be read: {error}.") from error


def _read_stream(stream: BinaryIO | gzip.GzipFile, path: Path, max_bytes: int) -> NDArray[Any]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES or magic[3] == 0:
        raise InputError(
            "An IDX file must begin with two zero bytes, a known dtype and a number of dimensions, "
            f"but {path} begins with {magic.hex(' ') or 'nothing'}."
        )
    dtype, n_dims = np.dtype(_DTYPES[magic[2]]), magic[3]
    header = stream.read(4 * n_dims)
    if len(header) < 4 * n_dims:
        raise InputError(f"{path} ends within its header of {n_dims} dimensions.")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
    n_bytes = math.prod(shape) * dtype.itemsize
    # Compared before reading: math.prod is exact, and nothing has been allocated yet.
    if n_bytes > max_bytes:
        raise InputError(
            f"{path} announces {n_bytes} bytes of values (shape {shape}), "
            "but is too short to hold them.",
            "The file is damaged: fetch it again.",
        )
    values = stream.read(n_bytes)
    if len(values) != n_bytes or stream.read(1):
        came = f"only {len(values)}" if len(values) < n_bytes else "more"
        raise InputError(
            f"{path} must hold {n_bytes} bytes of values (shape {shape}), but holds {came}.",
            "The file is damaged: fetch it again.",
        )
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def read_mnist(folder: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Read the four files of MNIST or Fashion-MNIST.

    Args:
        folder: Holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`
            and `t10k-labels-idx1-ubyte`; `.idx` for `-idx` and a trailing `.gz` are fine.

    Returns:
        (train, test), each a pair of uint8 images (N, 1, 28, 28) and int64 labels (N,).

    Raises:
        InputError: If a file is missing, damaged, or holds something else.
    """
    return _read_split(folder, "train"), _read_split(folder, "t10k")


def _read_split(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    images_path = _find(folder, f"{split}-images", "idx3-ubyte")
    labels_path = _find(folder, f"{split}-labels", "idx1-ubyte")
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
        raise InputError(
            f"{images_path} must hold uint8 images of shape (N, 28, 28), "
            f"but holds {images.dtype} of shape {images.shape}."
        )
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise InputError(
            f"{labels_path} must hold one uint8 label for each of {len(images)} images, "
            f"but holds {labels.dtype} of shape {labels.shape}."
        )
    if labels.size and labels.max() >= _N_CLASSES:
        raise InputError(
            f"{labels_path} must hold labels in [0, {_N_CLASSES - 1}], but holds {labels.max()}."
        )
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))


def _find(folder: Path, stem: str, kind: str) -> Path:
    names = [f"{stem}{dot}{kind}{end}" for dot in ("-", ".") for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder} must hold one of {', '.join(names)}, but holds none of them.",
        "Give the folder with the four files of MNIST or Fashion-MNIST.",
    )
