import copy

import pytest
import safetensors
import torch
from torch import nn

from autocompress.compress.compressed_layers import set_mask_
from autocompress.compress.quantize import quantize_
from autocompress.errors import InputError
from autocompress.evaluate.candidate_file import load_candidate_, save_candidate
from autocompress.plan import CompressionPlan, LayerPlan

PLAN = CompressionPlan(layers={"embed": LayerPlan(sparsity=0.5)})


class _Buffers(nn.Module):
    """One buffer of two names, one that is not saved, and none at all."""

    def __init__(self):
        super().__init__()
        self.register_buffer("first", torch.randn(3))
        self.register_buffer("second", self.first)
        self.register_buffer("idle", torch.randn(3), persistent=False)
        self.register_buffer("none", None)


def _tied(seed=0):
    torch.manual_seed(seed)
    embed, head = nn.Embedding(11, 8), nn.Linear(8, 11, bias=False)
    head.weight = embed.weight
    model = nn.ModuleDict({"embed": embed, "head": head, "alias": head, "other": _Buffers()})
    mask = torch.rand(11, 8) > 0.5
    for layer in (embed, head):
        set_mask_(layer, mask)
    return model


def _like_on_another_device(model):
    """What `to` does there: parameters keep their identity, each buffer becomes a new tensor."""
    return model._apply(lambda tensor: tensor.clone())


def _states_equal(model, other):
    state, wanted = model.state_dict(), other.state_dict()
    return state.keys() == wanted.keys() and all(torch.equal(state[n], wanted[n]) for n in state)


@pytest.mark.parametrize("saved_elsewhere", [False, True])
@pytest.mark.parametrize("loaded_elsewhere", [False, True])
def test_weights_come_back_whichever_device_they_were_on(
    tmp_path, saved_elsewhere, loaded_elsewhere
):
    path = tmp_path / "candidate.safetensors"
    model, rebuilt = _tied(seed=1), _tied(seed=2)
    rebuilt["other"].idle.copy_(model["other"].idle)
    if saved_elsewhere:
        _like_on_another_device(model)
    if loaded_elsewhere:
        _like_on_another_device(rebuilt)
        assert rebuilt["head"].weight_mask is not rebuilt["embed"].weight_mask
    save_candidate(path, model, PLAN)
    load_candidate_(path, rebuilt, PLAN)
    assert _states_equal(rebuilt, model)
    assert not rebuilt.training


def test_file_does_not_depend_on_the_device(tmp_path):
    model = _tied()
    save_candidate(tmp_path / "here", model, PLAN)
    elsewhere = _like_on_another_device(copy.deepcopy(model))
    save_candidate(tmp_path / "elsewhere", elsewhere, PLAN)
    assert (tmp_path / "elsewhere").read_bytes() == (tmp_path / "here").read_bytes()
    with safetensors.safe_open(tmp_path / "here", framework="pt") as file:
        names = set(file.keys())
    assert names == {"embed.weight", "embed.weight_mask", "other.first", "other.second"}


def test_quantizer_of_tied_layers_is_stored_once(tmp_path):
    models = [_tied(), _tied()]
    for model in models:
        quantize_(model, "embed", LayerPlan(weight_bits=3, quantizer="kmeans"))
    with torch.no_grad():
        models[0]["head"].weight_quantizer.codebook.mul_(1.5)
    save_candidate(tmp_path / "file", models[0], PLAN)
    load_candidate_(tmp_path / "file", models[1], PLAN)
    assert _states_equal(*models)


def test_weights_of_another_shape_are_refused(tmp_path):
    save_candidate(tmp_path / "file", nn.Linear(3, 2), PLAN)
    with pytest.raises(InputError, match="do not fit the model"):
        load_candidate_(tmp_path / "file", nn.Linear(2, 3), PLAN)


def test_weights_of_another_plan_are_refused(tmp_path):
    save_candidate(tmp_path / "file", nn.Linear(3, 2), PLAN)
    with pytest.raises(InputError, match=f"belong to plan {PLAN.digest}"):
        load_candidate_(tmp_path / "file", nn.Linear(3, 2), CompressionPlan())


def test_a_damaged_file_is_refused(tmp_path):
    save_candidate(tmp_path / "file", nn.Linear(3, 2), PLAN)
    content = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        load_candidate_(tmp_path / "file", nn.Linear(3, 2), PLAN)


def test_altered_weights_are_refused(tmp_path):
    save_candidate(tmp_path / "file", nn.Linear(3, 2), PLAN)
    content = bytearray((tmp_path / "file").read_bytes())
    content[-1] ^= 1
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match="are damaged"):
        load_candidate_(tmp_path / "file", nn.Linear(3, 2), PLAN)
