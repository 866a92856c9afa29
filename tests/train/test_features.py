import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autocompress.errors import InputError, TrialError
from autocompress.train.features import (
    FEATURES,
    attention_loss,
    find_taps,
    matching,
    similarity_loss,
)

LOSSES = [similarity_loss, attention_loss]


def test_similarity_by_hand():
    # inner products ((1, 0), (0, 1)) against ((1, 1), (1, 2)); rows normalised
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    b = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    r, s = 2**-0.5, 5**-0.5
    expected = ((1 - r) ** 2 + r**2 + s**2 + (1 - 2 * s) ** 2) / 4
    assert similarity_loss(a, b).item() == pytest.approx(expected)


def test_attention_by_hand():
    # energies (1, 4) and (9 + 16, 0) at two positions
    a = torch.tensor([[[1.0, 2.0]]])
    b = torch.tensor([[[3.0, 0.0], [4.0, 0.0]]])
    p = (17**-0.5, 4 * 17**-0.5)
    assert attention_loss(a, b).item() == pytest.approx((p[0] - 1) ** 2 + p[1] ** 2)


def test_attention_averages_examples():
    a, b = torch.randn(5, 4, 3, 3), torch.randn(5, 7, 3, 3)
    each = [attention_loss(a[i : i + 1], b[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(attention_loss(a, b), torch.stack(each).mean())


def test_attention_of_sequences_maps_over_positions():
    a, b = torch.randn(5, 6, 4), torch.randn(5, 6, 7)
    torch.testing.assert_close(
        attention_loss(a, b, -1), attention_loss(a.transpose(1, 2), b.transpose(1, 2), 1)
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_features_of_equal_activations_cost_nothing(loss):
    a = torch.randn(5, 4, 3, 3)
    assert loss(a, a).item() == pytest.approx(0.0, abs=1e-9)
    assert loss(a, -3.0 * a).item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_features_do_not_depend_on_the_order_of_channels(loss):
    a, b = torch.randn(5, 8, 3, 3), torch.randn(5, 8, 3, 3)
    torch.testing.assert_close(loss(a[:, torch.randperm(8)], b), loss(a, b))


@pytest.mark.parametrize("loss", LOSSES)
def test_features_take_other_widths_layouts_and_formats(loss):
    a, b = torch.randn(5, 8, 3, 3), torch.randn(5, 3, 3, 3)
    wanted = loss(a, b)
    ordered = a.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(loss(ordered, b), wanted)
    half = loss(a.bfloat16(), b.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, wanted, rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_features_have_the_gradient_of_their_value(loss):
    b = torch.randn(4, 2, 2, 2, dtype=torch.float64)
    a = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    direction = torch.randn_like(a)
    a.requires_grad_()
    slope = (torch.autograd.grad(loss(a, b), a)[0] * direction).sum()
    step = 1e-2  # activations are compared in float32
    with torch.no_grad():
        difference = loss(a + step * direction, b) - loss(a - step * direction, b)
    assert slope.item() == pytest.approx(difference.item() / (2 * step), rel=0.02, abs=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_features_stand_activations_that_are_zero(loss):
    a = torch.zeros(3, 2, 2, 2, requires_grad=True)
    loss(a, torch.randn(3, 2, 2, 2)).backward()
    assert a.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "kind", "taps"),
    [
        ("plain", "similarity", [("head", "input", -1)]),
        ("plain", "attention", [("norm1", "output", 1), ("conv2", "output", 1)]),
        ("conv1d", "attention", [("norm", "output", 1), ("conv2", "output", 1)]),
        ("attention", "attention", [("fc2", "output", -1)]),
        ("lstm", "attention", [("rnn", "output", -1)]),
        ("lstm", "similarity", [("head", "input", -1)]),
    ],
)
def test_taps_are_the_last_before_the_last_layer(zoo, name, kind, taps):
    net = zoo(name)
    found = find_taps(kind, net.model, net.inputs)
    assert [(tap.name, tap.side, tap.channel_dim) for tap in found] == taps


def test_attention_needs_positions(zoo):
    net = zoo("mlp")
    with pytest.raises(InputError, match="model has no activations of 2 or more positions"):
        find_taps("attention", net.model, net.inputs)


def test_similarity_needs_a_layer_before_the_last():
    with pytest.raises(InputError, match="model has no layer with weights before its last one"):
        find_taps("similarity", nn.Sequential(nn.Linear(4, 3)), (torch.randn(2, 4),))


def test_features_are_looked_up_by_name(zoo):
    net = zoo("mlp")
    with pytest.raises(InputError, match=r"Unknown features 'similar'\. Did you mean"):
        find_taps("similar", net.model, net.inputs)
    assert find_taps("none", net.model, net.inputs) == ()


class _Narrow(nn.Module):
    """The zoo's plain net with fewer channels: as after pruning, and with one layer factorized."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.hidden = nn.Linear(6 * 4 * 4, 7)
        self.head = nn.Sequential(nn.Linear(7, 2, bias=False), nn.Linear(2, 5))

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return self.head(F.relu(self.hidden(x.flatten(1))))


def test_matching_compares_what_layers_of_one_name_see(zoo):
    net, narrow = zoo("plain"), _Narrow()
    with matching("similarity", net.model, narrow, net.inputs) as loss:
        net.model(*net.inputs)
        narrow(*net.inputs)
        got = loss()
    hidden = []
    for model in (narrow, net.model):
        y = F.relu(model.conv2(F.relu(model.norm1(model.conv1(*net.inputs)))))
        hidden.append(F.relu(model.hidden(y.flatten(1))))
    torch.testing.assert_close(got, similarity_loss(*hidden))


def test_matching_averages_maps_of_all_sizes(zoo):
    net, narrow = zoo("plain"), _Narrow()
    with matching("attention", net.model, narrow, net.inputs) as loss:
        net.model(*net.inputs)
        narrow(*net.inputs)
        got = loss()
    maps = []
    for model in (narrow, net.model):
        first = model.norm1(model.conv1(*net.inputs))
        maps.append((first, model.conv2(F.relu(first))))
    expected = [attention_loss(a, b) for a, b in zip(*maps, strict=True)]
    torch.testing.assert_close(got, torch.stack(expected).mean())


def _has_positions(net):
    return net.inputs[0].ndim > 2 or not net.inputs[0].is_floating_point()  # images, series, tokens


@pytest.mark.parametrize("kind", [kind for kind in FEATURES if kind != "none"])
def test_matching_reaches_a_candidate_of_any_net_and_leaves_it_clean(zoo_net, kind):
    base, model = zoo_net.model, copy.deepcopy(zoo_net.model)
    if kind == "attention" and not _has_positions(zoo_net):
        with pytest.raises(InputError, match="model has no activations of 2 or more positions"):
            find_taps(kind, base, zoo_net.inputs)
        return
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    with matching(kind, base, model, zoo_net.inputs) as loss:
        with torch.no_grad():
            base(*zoo_net.inputs)
        model.train()(*zoo_net.inputs)
        loss().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert any(bool((gradient != 0).any()) for gradient in gradients)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert not any(m._forward_hooks for net in (base, model) for m in net.modules())


def test_matching_none_hooks_nothing(zoo):
    net = zoo("plain")
    with matching("none", net.model, net.model, net.inputs) as loss:
        assert loss is None
        assert not any(module._forward_hooks for module in net.model.modules())


def test_matching_takes_its_hooks_off_when_training_fails(zoo):
    net, narrow = zoo("plain"), _Narrow()
    with (
        pytest.raises(ZeroDivisionError),
        matching("similarity", net.model, narrow, net.inputs),
    ):
        raise ZeroDivisionError
    assert not any(m._forward_hooks for model in (net.model, narrow) for m in model.modules())


def test_matching_fails_the_trial_where_no_layer_is_left(zoo):
    net, other = zoo("plain"), nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with (
        pytest.raises(TrialError, match="no features='similarity' left") as caught,
        matching("similarity", net.model, other, net.inputs),
    ):
        pass
    assert caught.value.reason == "no_features"
