import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from autocompress.errors import InputError
from autocompress.tasks.cifar10 import read_cifar10
from tests.needs import need_data


@pytest.fixture
def binary_folder(tmp_path, cifar_arrays):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, (images, labels) in cifar_arrays.items():
        records = np.concatenate([labels[:, None].astype(np.uint8), images], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


@pytest.fixture
def python_folder(tmp_path, cifar_arrays):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, (images, labels) in cifar_arrays.items():
        batch = {b"data": images, b"labels": labels.tolist(), b"batch_label": b"one"}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return folder


@pytest.mark.parametrize("layout", ["binary_folder", "python_folder"])
@pytest.mark.parametrize("is_parent", [False, True])
def test_read_cifar10_returns_the_images_in_file_order(request, cifar_arrays, layout, is_parent):
    folder = request.getfixturevalue(layout)

    splits = read_cifar10(folder.parent if is_parent else folder)

    train = [f"data_batch_{i}" for i in range(1, 6)]
    for (images, labels), names in zip(splits, (train, ["test_batch"]), strict=True):
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        expected = np.concatenate([cifar_arrays[n][0] for n in names]).reshape(-1, 3, 32, 32)
        np.testing.assert_array_equal(images.numpy(), expected)
        expected_labels = np.concatenate([cifar_arrays[n][1] for n in names])
        np.testing.assert_array_equal(labels.numpy(), expected_labels)


def test_read_cifar10_keeps_colour_planes_apart(binary_folder):
    record = bytes([7]) + bytes([10] * 1024 + [20] * 1024 + [30] * 1024)
    (binary_folder / "test_batch.bin").write_bytes(record)

    _, (images, labels) = read_cifar10(binary_folder)

    assert labels.tolist() == [7]
    assert images[0].flatten(1).unique(dim=1).flatten().tolist() == [10, 20, 30]


def test_read_cifar10_says_what_folder_it_wants(tmp_path):
    with pytest.raises(InputError, match=r"cifar-10-batches-bin.*has no batches of it"):
        read_cifar10(tmp_path)
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_cifar10(tmp_path / "nowhere")


def test_read_cifar10_names_a_missing_batch(binary_folder):
    (binary_folder / "data_batch_3.bin").unlink()

    with pytest.raises(InputError, match=r"data_batch_3\.bin could not be read: No such file"):
        read_cifar10(binary_folder)


@pytest.mark.parametrize("n_bytes", [0, 3072, 3 * 3073 - 1])
def test_read_cifar10_refuses_a_cut_batch(binary_folder, n_bytes):
    path = binary_folder / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:n_bytes])

    with pytest.raises(InputError, match=rf"data_batch_2\.bin has {n_bytes} bytes"):
        read_cifar10(binary_folder)


def test_read_cifar10_refuses_labels_out_of_range(binary_folder):
    (binary_folder / "test_batch.bin").write_bytes(bytes([10]) + bytes(3072))

    with pytest.raises(InputError, match=r"test_batch\.bin range over \[10, 10\]"):
        read_cifar10(binary_folder)


def test_read_cifar10_refuses_a_pickle_whose_lengths_differ(python_folder):
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}
    (python_folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))

    with pytest.raises(
        InputError, match=r"test_batch holds 1 labels and images of shape \(2, 3072"
    ):
        read_cifar10(python_folder)


@pytest.mark.realdata
def test_read_cifar10_reads_the_real_data():
    folder = need_data("cifar-10-batches-bin")

    (train_images, train_labels), (test_images, test_labels) = read_cifar10(Path(folder))

    assert train_images.shape == (50_000, 3, 32, 32)
    assert test_images.shape == (10_000, 3, 32, 32)
    assert train_labels.bincount().tolist() == [5000] * 10
    assert test_labels.bincount().tolist() == [1000] * 10
    # The published channel means of the training images.
    means = train_images.float().mean((0, 2, 3)) / 255
    torch.testing.assert_close(means, torch.tensor([0.4914, 0.4822, 0.4465]), rtol=0, atol=2e-4)
