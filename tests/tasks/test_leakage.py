import dataclasses

import pytest
import torch
from torch import nn

from autocompress.tasks.base import Task, TensorData
from autocompress.tasks.leakage import val_looks_seen
from autocompress.tasks.prepare import prepare_task

_N_FEATURES = 64


def _noise(n, seed):
    """Random features with random labels: whoever predicts them has memorised them."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, _N_FEATURES, generator=generator)
    return TensorData((features,), torch.randint(0, 2, (n,), generator=generator))


def _join(*parts):
    inputs = torch.cat([part.inputs[0] for part in parts])
    return TensorData((inputs,), torch.cat([part.targets for part in parts]))


class _Memory(nn.Module):
    """Knows the label of every example it has stored, and guesses at others."""

    def __init__(self, stored):
        super().__init__()
        self.keys = nn.Parameter(stored.inputs[0].clone())
        self.register_buffer("labels", stored.targets.clone())

    def forward(self, x):
        distances, nearest = torch.cdist(x, self.keys).min(dim=1)
        sureness = torch.where(distances < 0.5, 4.0, 0.3) + 0.2 * x[:, 0].tanh()
        signs = nn.functional.one_hot(self.labels[nearest], 2) * 2.0 - 1.0
        return signs * sureness[:, None]


def _prepare(stored, **splits):
    return prepare_task(Task(model=_Memory(stored), **splits))


def test_val_looks_seen_is_silent_on_a_clean_split():
    train, val = _noise(600, 0), _noise(300, 1)

    assert val_looks_seen(_prepare(train, train=train, val=val)) is None


def test_val_looks_seen_warns_of_a_carved_split_of_the_training_data():
    train = _noise(600, 0)

    warning = val_looks_seen(_prepare(train, train=train))

    assert "carved from the training data" in warning
    assert "scores 100.00% on train and 100.00% on val" in warning


def test_val_looks_seen_is_silent_on_a_carved_split_kept_from_training():
    data = _noise(900, 0)
    prepared = _prepare(data, train=data)
    model = _Memory(prepared.train)

    clean = dataclasses.replace(prepared, task=dataclasses.replace(prepared.task, model=model))

    assert val_looks_seen(clean) is None


def test_val_looks_seen_warns_of_a_given_split_that_was_trained_on():
    train, val = _noise(600, 0), _noise(300, 1)

    warning = val_looks_seen(_prepare(_join(train, val), train=train, val=val))

    assert warning.startswith("The base model may have been trained on the validation split")


def test_val_looks_seen_counts_examples_that_stand_in_both():
    train, val = _noise(600, 0), _noise(300, 1)
    mixed = _join(val, train.subset(slice(0, 30)))

    warning = val_looks_seen(_prepare(train, train=train, val=mixed))

    assert warning.startswith("30 of 330 validation examples also stand in the training data")


def test_val_looks_seen_forgives_data_that_repeats_itself():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 3, (900, 4), generator=generator).float()
    labels = torch.randint(0, 2, (900,), generator=generator)
    task = Task(
        model=nn.Linear(4, 2),
        train=(coarse[:600], labels[:600]),
        val=(coarse[600:], labels[600:]),
    )

    assert val_looks_seen(prepare_task(task)) is None


def test_val_looks_seen_claims_nothing_from_few_examples():
    train, val = _noise(600, 0), _noise(4, 1)

    assert val_looks_seen(_prepare(_join(train, val), train=train, val=val)) is None


def test_val_looks_seen_claims_nothing_for_a_model_that_has_not_fitted():
    task = Task(model=nn.Linear(_N_FEATURES, 2), train=_noise(600, 0), val=_noise(300, 1))

    assert val_looks_seen(prepare_task(task)) is None


@pytest.mark.parametrize("loss", [lambda o, t: o.mean() * 0 - 1.0, lambda o, t: o.mean() * 0])
def test_val_looks_seen_claims_nothing_from_losses_without_information(loss):
    train = _noise(600, 0)

    assert val_looks_seen(_prepare(train, train=train, loss=loss)) is None


def test_val_looks_seen_claims_nothing_where_the_users_code_raises():
    def of_pairs(outputs, targets):
        assert len(outputs) > 1, "needs two rows"
        return nn.functional.cross_entropy(outputs, targets)

    def metric(outputs, targets):
        raise KeyError("no such class")

    train = _noise(600, 0)
    for given in ({"loss": of_pairs}, {"metric": metric}):
        prepared = _prepare(train, train=train, **given)
        prepared.task.model.train()
        assert val_looks_seen(prepared) is None
        assert prepared.task.model.training


def test_val_looks_seen_leaves_the_model_as_it_was():
    train = _noise(200, 0)
    prepared = _prepare(train, train=train)
    model = prepared.task.model
    model.train()
    model.frozen = nn.BatchNorm1d(2).eval()

    val_looks_seen(prepared)

    assert model.training
    assert not model.frozen.training
    assert model.keys.grad is None
