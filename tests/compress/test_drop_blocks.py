import copy

import pytest
import torch
from torch import nn

from autocompress.analysis.pass_through import PassThrough
from autocompress.compress.drop_blocks import drop_block_
from autocompress.errors import InputError
from autocompress.tasks.digits import ResidualCnn


def test_pass_through_returns_its_first_argument():
    x = torch.randn(2, 3)
    assert PassThrough()(x, 1, mask=None) is x
    assert not list(PassThrough().parameters())


def test_drop_block_is_removing_it_by_hand(zoo):
    net = zoo("vit_like")
    dropped, by_hand = copy.deepcopy(net.model), copy.deepcopy(net.model)
    drop_block_(dropped, "blocks.1")
    by_hand.blocks = nn.Sequential(by_hand.blocks[0])
    with torch.no_grad():
        assert torch.equal(dropped(*net.inputs), by_hand(*net.inputs))
    n_block = sum(p.numel() for p in net.model.blocks[1].parameters())
    assert sum(p.numel() for p in dropped.parameters()) == net.profile.n_params - n_block


def test_drop_block_of_every_block_leaves_a_model_that_runs(zoo_net):
    dropped = copy.deepcopy(zoo_net.model)
    for name in zoo_net.profile.blocks:
        drop_block_(dropped, name)
    with torch.no_grad():
        expected, got = zoo_net.model(*zoo_net.inputs), dropped(*zoo_net.inputs)
    assert got.shape == expected.shape
    assert bool(got.isfinite().all())


def test_drop_block_is_exact_on_a_residual_cnn():
    model, x = ResidualCnn((4, 8, 8)).eval(), torch.randn(2, 1, 8, 8)
    dropped = copy.deepcopy(model)
    drop_block_(dropped, "stage1")
    with torch.no_grad():
        stem = torch.relu(model.bn(model.conv(x)))
        expected = model.linear(model.stage3(model.stage2(stem)).mean((2, 3)))
        assert torch.equal(dropped(x), expected)


def test_drop_block_replaces_every_name_and_keeps_the_mode():
    block = nn.Sequential(nn.Linear(2, 2))
    model = nn.ModuleDict({"a": block, "b": block}).train()
    drop_block_(model, "a")
    assert isinstance(model["a"], PassThrough)
    assert model["b"] is model["a"]
    assert model["a"].training


def test_drop_block_inside_of_a_dropped_one_does_nothing(zoo):
    model = copy.deepcopy(zoo("bert_like").model)
    drop_block_(model, "layers.0")
    drop_block_(model, "layers.0.attention")
    assert [name for name, m in model.named_modules() if isinstance(m, PassThrough)] == ["layers.0"]


@pytest.mark.parametrize("name", ["", "layers.7", "nowhere"])
def test_drop_block_refuses_what_the_model_does_not_have(zoo, name):
    with pytest.raises(InputError, match=f"it has no '{name}'"):
        drop_block_(copy.deepcopy(zoo("bert_like").model), name)


def test_drop_block_of_the_first_layer_satisfies_torchs_encoder(zoo):
    net = zoo("encoder")
    model = copy.deepcopy(net.model)
    drop_block_(model, "encoder.layers.0")
    assert model.encoder.layers[0].self_attn.batch_first
    with torch.no_grad():
        expected = model.head(torch.relu(model.hidden(net.inputs[0].mean(1))))
        torch.testing.assert_close(model(*net.inputs), expected)
