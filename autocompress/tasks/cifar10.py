"""Read CIFAR-10 from its official folders (Krizhevsky 2009).

`cifar-10-batches-bin`: per image one label byte and 3,072 bytes, the R, G and B planes of 32×32.
`cifar-10-batches-py`: one pickled dict per batch, read by `cifar10_pickle.py`.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocompress.errors import InputError
from autocompress.tasks.cifar10_pickle import read_pickled_batch

_N_PIXEL_BYTES = 3 * 32 * 32
_N_CLASSES = 10
_FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
_TRAIN_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_TEST_BATCHES = ("test_batch",)


def read_cifar10(folder: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Read all batches of CIFAR-10.

    Args:
        folder: One of the official folders, binary or Python, or the folder that holds it.

    Returns:
        (train, test), each a pair of uint8 images (N, 3, 32, 32) and int64 labels (N,), in the
        order of the files: N is 50,000 and 10,000.

    Raises:
        InputError: If a batch is missing, has a wrong size, holds a label outside [0, 9], or is a
            pickle of anything but arrays and plain containers.
    """
    batches, ending = _find(folder)
    return _read_split(batches, _TRAIN_BATCHES, ending), _read_split(batches, _TEST_BATCHES, ending)


def _find(folder: Path) -> tuple[Path, str]:
    for candidate in (folder, *(folder / name for name in _FOLDERS)):
        for ending in (".bin", ""):
            if any((candidate / f"{b}{ending}").is_file() for b in _TRAIN_BATCHES + _TEST_BATCHES):
                return candidate, ending
    state = "has no batches of it" if folder.is_dir() else "does not exist"
    raise InputError(
        f"The data folder must be or hold {' or '.join(_FOLDERS)}, but {folder} {state}.",
        "Unpack CIFAR-10's official archive (binary or Python version) and give its folder.",
    )


def _read_split(folder: Path, names: tuple[str, ...], ending: str) -> tuple[Tensor, Tensor]:
    read = _read_binary_batch if ending == ".bin" else read_pickled_batch
    batches = [
        _checked(*read(folder / (name + ending)), folder / (name + ending)) for name in names
    ]
    images = np.concatenate([images for images, _ in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in batches])
    return torch.from_numpy(images), torch.from_numpy(labels)


def _read_binary_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise InputError(
            f"The CIFAR-10 batch {path} could not be read: {error.strerror}."
        ) from error
    if content.size == 0 or content.size % (1 + _N_PIXEL_BYTES) != 0:
        raise InputError(
            f"A binary CIFAR-10 batch must be a multiple of {1 + _N_PIXEL_BYTES} bytes long, "
            f"but {path} has {content.size} bytes.",
            "The file is damaged: unpack the archive again.",
        )
    records = content.reshape(-1, 1 + _N_PIXEL_BYTES)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _checked(
    images: NDArray[np.uint8], labels: NDArray[np.int64], path: Path
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if images.shape != (len(labels), _N_PIXEL_BYTES) or len(labels) == 0:
        raise InputError(
            f"A CIFAR-10 batch must hold one label for each image of {_N_PIXEL_BYTES} bytes, "
            f"but {path} holds {len(labels)} labels and images of shape {images.shape}."
        )
    if labels.min() < 0 or labels.max() >= _N_CLASSES:
        raise InputError(
            f"CIFAR-10 labels must lie in [0, {_N_CLASSES - 1}], "
            f"but those of {path} range over [{labels.min()}, {labels.max()}]."
        )
    return images, labels
