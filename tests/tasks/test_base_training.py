import logging
import sys

import pytest
import torch

from autocompress.tasks import digits as base_training
from autocompress.tasks.base import TensorData, top1
from autocompress.tasks.digits import ResidualCnn, TrainingRecipe, own_torch_state, train_classifier


@pytest.fixture
def bright_or_dark():
    """64 images of 4×4 in two classes that differ in brightness."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    images = torch.rand(64, 1, 4, 4, generator=generator) + labels.view(-1, 1, 1, 1)
    return TensorData((images,), labels)


def _keep(inputs, generator):
    return inputs


def test_train_classifier_learns_and_ends_in_eval_mode(bright_or_dark):
    model = ResidualCnn((8, 8, 8), n_classes=2)
    with own_torch_state(1):
        train_classifier(
            model, bright_or_dark, _keep, TrainingRecipe(n_epochs=6, batch_size=16), "toy"
        )

    assert not model.training
    assert top1(model(*bright_or_dark.inputs), bright_or_dark.targets) == 1.0


def test_train_classifier_does_not_depend_on_the_initial_weights(bright_or_dark):
    models = [ResidualCnn((8, 8, 8), n_classes=2) for _ in range(2)]
    with own_torch_state(1):
        for model in models:
            train_classifier(model, bright_or_dark, _keep, TrainingRecipe(n_epochs=1), "toy")

    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_train_classifier_shows_that_it_works(
    bright_or_dark, monkeypatch, capsys, caplog, is_terminal
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    caplog.set_level(logging.INFO, logger="autocompress")
    with own_torch_state(1):
        recipe = TrainingRecipe(n_epochs=2)
        train_classifier(ResidualCnn((8, 8, 8)), bright_or_dark, _keep, recipe, "toy")

    assert "Training the toy network, once: 2 epochs." in caplog.text
    captured = capsys.readouterr()
    assert captured.out == ""
    assert not is_terminal or "Training the toy network, once" in captured.err


def test_own_torch_state_comes_back_after_an_error():
    state, n_threads = torch.get_rng_state(), torch.get_num_threads()

    def fail():
        with torch.inference_mode(), own_torch_state(n_threads + 1):
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            torch.rand(3)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == n_threads


def test_schedule_warms_up_then_falls_to_zero():
    shares = [base_training._schedule(i / 100) for i in range(101)]

    assert shares[0] == 0.0
    assert max(shares) == shares[10] == 1.0
    assert shares[100] == pytest.approx(0.0, abs=1e-12)
    assert shares[:11] == sorted(shares[:11])
    assert shares[10:] == sorted(shares[10:], reverse=True)
