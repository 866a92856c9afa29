import os
import sys

import pytest
import torch
from torch import nn

from autocompress.tasks.model_cache import cache_folder, load_or_train


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class _Training:
    """Sets all weights to a value and counts how often it was asked to."""

    def __init__(self, value=1.5, model=None):
        self.model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) if model is None else model
        self.value = value
        self.n_calls = 0

    def __call__(self):
        self.n_calls += 1
        for parameter in self.model.parameters():
            nn.init.constant_(parameter, self.value)

    def run(self, content="c0ffee"):
        load_or_train(self.model, name="toy", content=content, train=self)
        return self


def test_load_or_train_trains_once_and_loads_the_same_weights(folder):
    first = _Training().run()
    second = _Training().run()

    assert (first.n_calls, second.n_calls) == (1, 0)
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])
    assert not second.model.training
    assert [path.name for path in folder.iterdir()] == ["toy-c0ffee.safetensors"]


def test_load_or_train_trains_anew_for_other_content(folder):
    _Training().run("a")

    assert _Training().run("b").n_calls == 1
    assert len(list(folder.iterdir())) == 2


def _flip_a_bit_of_the_weights(content):
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-5], lambda _: b"", lambda _: b"x" * 99, _flip_a_bit_of_the_weights],
)
def test_load_or_train_replaces_a_damaged_file(folder, damage):
    _Training(value=1.5).run()
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))

    training = _Training(value=1.5).run()

    assert training.n_calls == 1
    assert path.read_bytes() == whole


def test_load_or_train_replaces_weights_of_another_model(folder):
    _Training(model=nn.Linear(4, 4)).run()

    assert _Training().run().n_calls == 1
    assert _Training().run().n_calls == 0


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="root may write into any folder"
)
def test_load_or_train_goes_on_when_the_folder_cannot_be_written(folder, caplog):
    folder.mkdir(mode=0o500)

    assert _Training().run().n_calls == 1
    assert "could not be kept" in caplog.text


def test_load_or_train_goes_on_when_the_folder_is_a_file(folder, caplog):
    folder.write_text("in the way")

    assert _Training().run().n_calls == 1
    assert "could not be kept" in caplog.text


def test_cache_folder_is_the_users_unless_the_variable_says_otherwise(folder, monkeypatch):
    assert cache_folder() == folder
    monkeypatch.delenv("AUTOCOMPRESS_CACHE")
    assert cache_folder().name == "autocompress"
