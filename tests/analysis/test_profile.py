import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

from autocompress.analysis.profile import layer_kind, profile_model


def _layers(profile):
    return {layer.name: layer for layer in profile.layers}


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.Conv2d(4, 4, 3), "conv"),
        (nn.Conv1d(4, 4, 3), "conv"),
        (nn.Conv2d(4, 4, 1), "pointwise"),
        (nn.Conv2d(4, 8, 3, groups=4), "depthwise"),
        (nn.Conv2d(4, 8, 3, groups=2), "grouped_conv"),
        (nn.ConvTranspose2d(4, 4, 3), "transposed_conv"),
        (nn.Linear(4, 4), "linear"),
        (nn.Embedding(4, 4), "embedding"),
        (nn.GRU(4, 4), "recurrent"),
        (nn.LSTMCell(4, 4), "recurrent"),
        (nn.MultiheadAttention(4, 2), "attention"),
        (nn.BatchNorm1d(4), "norm"),
        (nn.LayerNorm(4), "norm"),
        (nn.PReLU(), "other"),
    ],
)
def test_layer_kind_names_what_it_is(layer, kind):
    assert layer_kind(layer) == kind


def test_profile_counts_parameters_and_macs_of_every_layer(zoo):
    layers = _layers(zoo("plain").profile)
    assert list(layers) == ["conv1", "norm1", "conv2", "hidden", "head"]
    assert (layers["conv2"].weight_shape, layers["conv2"].n_params) == ((12, 8, 3, 3), 876)
    assert layers["conv2"].macs == 16 * 12 * 8 * 9
    assert layers["norm1"].n_params == 16


def test_profile_adds_up(zoo_net):
    profile = zoo_net.profile
    assert profile.n_params == sum(p.numel() for p in zoo_net.model.parameters())
    assert sum(layer.n_params for layer in profile.layers) >= profile.n_params
    assert profile.macs > 0


def test_profile_refuses_with_a_reason(zoo_net):
    for layer in zoo_net.profile.layers:
        assert all(layer.refusals.values())
        if layer.kind in ("norm", "attention", "other"):
            assert {"weight_bits", "activation_bits", "rank_ratio"} <= set(layer.refusals)


def test_profile_leaves_the_model_as_it_was(zoo_net, model_hash):
    model = copy.deepcopy(zoo_net.model).train()
    before = model_hash(model)
    profile_model(model, zoo_net.inputs)
    assert model_hash(model) == before
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert not any("forward" in vars(module) for module in model.modules())


def test_profile_counts_calls_of_a_shared_layer(zoo):
    layers = _layers(zoo("shared_layer").profile)
    assert layers["twice"].n_calls == 2
    assert "alias" not in layers


def test_profile_sees_the_layers_that_the_fused_encoder_kernel_reads_past(zoo):
    layer = _layers(zoo("encoder").profile)["encoder.layers.0.linear1"]
    assert layer.n_calls == 1
    assert layer.refusals == {}


def test_profile_names_the_layer_that_a_weight_is_tied_to(zoo):
    layers = _layers(zoo("tied_weights").profile)
    assert {name: layer.tied_to for name, layer in layers.items() if layer.tied_to} == {
        "head": "embed"
    }
    assert "tied to 'embed'" in layers["head"].refusals["weight_bits"]
    assert "weight_bits" not in layers["embed"].refusals
    assert "later layer" in layers["embed"].refusals["rank_ratio"]


def test_profile_refuses_layers_that_are_tied_in_another_way():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].bias = model[0].bias
    for layer in profile_model(model, (torch.randn(2, 4),)).layers:
        assert layer.tied_to == ""
        assert layer.refusals["weight_bits"] == "its parameters are tied to another layer's"


def test_profile_lists_blocks_that_can_be_left_out(zoo):
    profile = zoo("depthwise_separable").profile
    assert profile.blocks == ("blocks.0", "blocks.1")
    assert profile.refused_blocks == {}


class _OwnLinear(nn.Linear):
    def forward(self, input):
        return super().forward(input) * 2


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (_OwnLinear(4, 4), "_OwnLinear is a subclass of its own"),
        (parametrizations.weight_norm(nn.Linear(4, 4)), "its weight is parametrized"),
        (spectral_norm(nn.Linear(4, 4)), "its weight is computed from other parameters"),
    ],
)
def test_profile_refuses_weights_it_does_not_own(layer, reason):
    profile = profile_model(nn.Sequential(nn.Linear(4, 4), layer), (torch.randn(2, 4),))
    assert not profile.layers[0].refusals
    refused = next(info for info in profile.layers[1:] if info.name == "1")
    assert reason in refused.refusals["weight_bits"]
    assert reason in refused.refusals["rank_ratio"]


def test_profile_refuses_low_rank_but_not_bits():
    layer = nn.Conv2d(4, 4, 3, groups=2)
    profile = profile_model(nn.Sequential(layer), (torch.randn(2, 4, 5, 5),))
    assert list(profile.layers[0].refusals) == ["rank_ratio"]
    assert "no low-rank form" in profile.layers[0].refusals["rank_ratio"]


def test_profile_takes_kernels_with_three_dimensions():
    profile = profile_model(nn.Sequential(nn.Conv3d(2, 4, 3)), (torch.randn(2, 2, 4, 4, 4),))
    assert profile.layers[0].weight_shape == (4, 2, 3, 3, 3)
    assert "weight_bits" not in profile.layers[0].refusals
