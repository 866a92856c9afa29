import numpy as np
import pytest
import torch

from autocompress.tasks.base import top1
from autocompress.tasks.digits import TrainingRecipe, digits, digits_splits, digits_task
from autocompress.tasks.prepare import prepare_task

_SHORT = TrainingRecipe(n_epochs=1)
_NARROW = (16, 16, 16)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path))


def _images(split):
    return {image.numpy().tobytes() for image in split.inputs[0]}


def test_digits_splits_are_stratified_and_apart():
    splits = digits_splits()

    assert [len(split) for split in splits] == [1077, 360, 360]
    for split in splits:
        shares = split.targets.bincount(minlength=10) / len(split)
        np.testing.assert_allclose(shares, 0.1, atol=0.01)
    train, val, test = (_images(split) for split in splits)
    assert len(train | val | test) == 1797
    assert [a.fingerprint() for a in digits_splits()] == [b.fingerprint() for b in splits]


def test_digits_splits_are_standardised():
    (images,), _ = digits_splits()[0].batch(slice(None))

    assert images.shape == (1077, 1, 8, 8)
    assert abs(float(images.mean())) < 0.01
    assert abs(float(images.std()) - 1) < 0.01


def test_digits_task_leaves_global_state_alone():
    torch.manual_seed(5)
    state, n_threads = torch.get_rng_state(), torch.get_num_threads()

    with torch.no_grad():
        task = digits_task(_SHORT, _NARROW)
        assert not torch.is_grad_enabled()

    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == n_threads
    assert all(p.requires_grad and p.grad is None for p in task.model.parameters())
    assert not task.model.training


def test_digits_task_is_the_same_whether_trained_or_cached(tmp_path, monkeypatch):
    trained = digits_task(_SHORT, _NARROW).model.state_dict()
    cached = digits_task(_SHORT, _NARROW).model.state_dict()
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "elsewhere"))
    trained_again = digits_task(_SHORT, _NARROW).model.state_dict()

    for name, tensor in trained.items():
        assert torch.equal(tensor, cached[name])
        assert torch.equal(tensor, trained_again[name])


def test_digits_task_is_cached_by_content(tmp_path):
    for recipe, widths in (
        (_SHORT, _NARROW),
        (_SHORT, (16, 16, 32)),
        (TrainingRecipe(n_epochs=1, seed=1), _NARROW),
    ):
        digits_task(recipe, widths)

    assert len(list(tmp_path.glob("digits-*.safetensors"))) == 3


def test_digits_task_holds_its_contracts():
    prepared = prepare_task(digits_task(_SHORT, _NARROW))

    assert not prepared.is_val_carved
    assert prepared.test is not None


@pytest.mark.slow
def test_digits_reaches_97_percent_on_test():
    task = digits()

    inputs, targets = task.test.batch(slice(None))
    with torch.no_grad():
        accuracy = top1(task.model(*inputs), targets)
    assert accuracy >= 0.97
    assert 150_000 <= sum(p.numel() for p in task.model.parameters()) <= 300_000
