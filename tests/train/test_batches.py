import itertools

import pytest
import torch
from torch import nn

from autocompress.tasks.base import Task, TensorData
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.batches import Batches


def _double(inputs):
    return tuple(x * 2 for x in inputs)


def _jitter(inputs, generator):
    return tuple(x + torch.rand(len(x), 1, generator=generator) / 4 for x in inputs)


def _prepared(n_labelled=10, n_unlabelled=0, augment=None):
    """Example i is the number i, before the transform doubles it; its label is -i."""
    numbers = torch.arange(float(n_labelled))
    data = TensorData((numbers[:, None], numbers[:, None] + 100), -numbers, _double)
    further = torch.arange(float(n_labelled), float(n_labelled + n_unlabelled))[:, None]
    return PreparedTask(
        task=Task(model=nn.Linear(1, 1), train=data, augment=augment),
        train=data,
        val=data,
        test=None,
        is_val_carved=False,
        unlabelled=(further, further + 100) if n_unlabelled else None,
    )


def _draw(prepared, n, batch_size=4, seed=0):
    batches = Batches(prepared, batch_size, torch.Generator().manual_seed(seed))
    return [batches.draw() for _ in range(n)]


@pytest.mark.parametrize("augment", [None, _jitter])
def test_batches_without_unlabelled_examples_are_one_permutation_each_epoch(augment):
    drawn = _draw(_prepared(augment=augment), 4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        order = torch.randperm(10, generator=generator)
        for indices in (order[4:8], order[:4]):  # the queue is emptied from its end
            inputs, targets, got = drawn.pop(0)
            assert torch.equal(got, indices)
            assert torch.equal(targets, -indices.float())
            x = indices.float()[:, None]
            wanted = (x, x + 100) if augment is None else augment((x, x + 100), generator)
            assert all(torch.equal(a, b * 2) for a, b in zip(inputs, wanted, strict=True))


def test_mixed_batches_go_through_all_examples_once():
    drawn = _draw(_prepared(6, 14), 5)
    seen = sorted(itertools.chain.from_iterable(indices.tolist() for _, _, indices in drawn))
    assert seen == list(range(20))


def test_mixed_batches_keep_labels_with_their_examples():
    for inputs, targets, indices in _draw(_prepared(6, 14), 20):
        n_labelled = int((indices < 6).sum())
        assert (indices[:n_labelled] < 6).all()
        assert torch.equal(targets, -indices[:n_labelled].float())
        assert torch.equal(inputs[0], indices.float()[:, None] * 2)
        assert torch.equal(inputs[1], (indices.float()[:, None] + 100) * 2)


def test_mixed_batches_augment_all_examples_before_the_transform():
    for inputs, _, indices in _draw(_prepared(6, 14, _jitter), 5):
        extra = inputs[0][:, 0] / 2 - indices
        assert (extra > 0).all()
        assert (extra < 0.26).all()


def test_mixed_batches_are_the_same_for_a_seed():
    first, again, other = (
        [indices.tolist() for _, _, indices in _draw(_prepared(6, 14), 5, seed=seed)]
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_an_epoch_counts_unlabelled_examples():
    generator = torch.Generator()
    assert Batches(_prepared(6, 14), 4, generator).per_epoch == 5
    assert Batches(_prepared(6, 14), 7, generator).per_epoch == 2
    assert Batches(_prepared(6, 14), 1000, generator).batch_size == 20
