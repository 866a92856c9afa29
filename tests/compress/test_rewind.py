import copy

import pytest
import torch
from torch import nn

from autocompress.analysis.cut import cut_channels_
from autocompress.compress.compressed_layers import mask_of
from autocompress.compress.magnitude_masks import unstructured_mask
from autocompress.compress.model_copy import early_model, rewind_
from autocompress.compress.prune import choose_channels
from autocompress.compress.sparsity import sparsify_


def _early_state(model):
    generator = torch.Generator().manual_seed(9)
    return {
        name: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }


def _kept(n_channels, removed):
    return [c for c in range(n_channels) if c not in set(removed.tolist())]


def test_survivors_equal_the_stored_weights_and_are_chosen_by_the_trained_ones(zoo):
    net = zoo("mlp")
    state = _early_state(net.model)
    ticket, early = copy.deepcopy(net.model), early_model(net.model, state)
    ratios = [(group, 0.5) for group in net.profile.groups]
    chosen = choose_channels(ticket, ratios, criterion="l2", round_to=1)
    assert chosen[0][1].tolist() != (
        choose_channels(early, ratios, criterion="l2", round_to=1)[0][1].tolist()
    )
    for model in (ticket, early):
        cut_channels_(model, chosen)
    rewind_(ticket, early)
    removed = {group.name: channels for group, channels in chosen}
    first, second = _kept(16, removed["fc1"]), _kept(10, removed["fc2"])
    assert torch.equal(ticket.fc1.weight, state["fc1.weight"][first])
    assert torch.equal(ticket.fc1.bias, state["fc1.bias"][first])
    assert torch.equal(ticket.norm.running_mean, state["norm.running_mean"][first])
    assert torch.equal(ticket.fc2.weight, state["fc2.weight"][second][:, first])
    assert torch.equal(ticket.head.weight, state["head.weight"][:, second])
    assert torch.equal(ticket.head.bias, state["head.bias"])


def test_masks_of_trained_weights_stay_when_the_weights_are_rewound(zoo):
    net = zoo("mlp")
    state = _early_state(net.model)
    ticket = copy.deepcopy(net.model)
    sparsify_(ticket, {"fc1": (0.7, "unstructured")})
    parameter = ticket.fc1.weight
    rewind_(ticket, early_model(net.model, state))
    mask = unstructured_mask(net.model.fc1.weight, 0.7)
    assert ticket.fc1.weight is parameter
    assert torch.equal(parameter, state["fc1.weight"])
    assert torch.equal(mask_of(ticket.fc1), mask)
    x = torch.randn(2, 12)
    expected = x @ (state["fc1.weight"] * mask).T + state["fc1.bias"]
    torch.testing.assert_close(ticket.fc1(x), expected)


def test_early_model_leaves_the_trained_one_alone(zoo, model_hash):
    net = zoo("residual")
    before = model_hash(net.model)
    early = early_model(net.model, _early_state(net.model))
    assert model_hash(net.model) == before
    assert model_hash(early) != before
    assert early_model(net.model, None) is None


def test_rewind_refuses_models_that_were_not_cut_alike():
    with pytest.raises(ValueError, match=r"'weight' of shape \(3, 4\) must be in both"):
        rewind_(nn.Linear(4, 2), nn.Linear(4, 3))


def _without(state, name):
    return {key: value for key, value in state.items() if key != name}
