import copy

import pytest
import torch
from torch import nn

from autocompress.compress.compressed_layers import set_mask_, weight_parameters
from autocompress.compress.quantize import freeze_, quantize_
from autocompress.plan import LayerPlan
from autocompress.train.hard_concrete import (
    gated_layers,
    gating,
    mean_gates,
    open_probability,
    sample_gates,
)

SPREAD = torch.linspace(-6, 6, 13)


def test_gates_by_hand():
    # at noise 1/2 the logistic term is 0: sigmoid(x / (2/3)) stretched over (-0.1, 1.1)
    gates = sample_gates(torch.tensor([0.0, 1.0, -4.0, 4.0]), torch.full((4,), 0.5))
    assert gates.tolist() == pytest.approx([0.5, 1.2 / (1 + 2.718281828**-1.5) - 0.1, 0.0, 1.0])
    assert mean_gates(torch.tensor([0.0, -4.0, 4.0])).tolist() == pytest.approx([0.5, 0.0, 1.0])


def test_open_probability_is_the_share_of_random_gates_that_are_not_zero():
    torch.manual_seed(0)
    noise = torch.rand(200_000, len(SPREAD)).clamp(1e-6, 1 - 1e-6)
    share = (sample_gates(SPREAD, noise) != 0).double().mean(0).float()
    torch.testing.assert_close(open_probability(SPREAD), share, rtol=0, atol=5e-3)


def test_gates_have_the_gradient_of_their_value():
    noise = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    log_alpha = torch.tensor([0.5, -0.5, 0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sample_gates(x, noise), log_alpha)
    assert torch.autograd.gradcheck(open_probability, log_alpha)


def test_gates_start_fully_open(zoo_net):
    model = copy.deepcopy(zoo_net.model)
    with gating(model, zoo_net.inputs), torch.no_grad():
        gated = model(*zoo_net.inputs)
    with torch.no_grad():
        torch.testing.assert_close(gated, zoo_net.model(*zoo_net.inputs))
        torch.testing.assert_close(model(*zoo_net.inputs), gated)


def test_baked_gates_are_the_gates_of_eval_mode(zoo_net):
    model = copy.deepcopy(zoo_net.model)
    with gating(model, zoo_net.inputs) as gates, torch.no_grad():
        for log_alpha in gates.parameters:
            log_alpha.copy_(torch.randn_like(log_alpha) * 3)
        gated = model(*zoo_net.inputs)
    with torch.no_grad():
        torch.testing.assert_close(model(*zoo_net.inputs), gated, rtol=1e-4, atol=1e-5)
    assert not any(module._forward_hooks for module in model.modules())


def test_closed_gates_leave_channels_of_exact_zeros(zoo):
    net = zoo("plain")
    model = copy.deepcopy(net.model)
    with gating(model, net.inputs) as gates, torch.no_grad():
        gates.parameters[0][:3] = -10.0
    assert bool((model.conv1.weight[:3] == 0).all())
    assert torch.equal(model.conv1.weight[3:], net.model.conv1.weight[3:])


def test_expected_number_of_weights_counts_each_channels(zoo):
    net = zoo("plain")
    model = copy.deepcopy(net.model)
    with gating(model, net.inputs) as gates:
        by_layer = [(27, 8), (72, 12), (192, 16)]  # conv1, conv2, hidden; not the head
        assert [len(p) for p in gates.parameters] == [n for _, n in by_layer]
        with torch.no_grad():
            for log_alpha in gates.parameters:
                log_alpha.fill_(40.0)
        assert gates.expected_n_weights().item() == pytest.approx(sum(w * n for w, n in by_layer))
        with torch.no_grad():
            gates.parameters[1][:5] = -40.0
        expected = sum(w * n for w, n in by_layer) - 5 * 72
        assert gates.expected_n_weights().item() == pytest.approx(expected)


def test_each_example_draws_its_own_gates():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)).train()
    x = torch.randn(1, 4).expand(50, 4)
    caught = []
    with gating(model, (x,)) as gates:
        model[1].register_forward_pre_hook(lambda module, args: caught.append(args[0]))
        with torch.no_grad():
            gates.parameters[0].zero_()
        model(x).sum().backward()
    ratio = caught[0] / (x[:1] @ model[0].weight.T + model[0].bias) * mean_gates(torch.zeros(6))
    assert ratio.std(dim=0).min() > 0.2
    assert ((ratio > -1e-4) & (ratio < 1 + 1e-4)).all()
    assert bool((gates.parameters[0].grad != 0).all())


def test_gates_behind_batch_norm_still_learn():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    model.train()
    with gating(model, (torch.randn(2, 2, 2, 2),)) as gates:
        with torch.no_grad():
            gates.parameters[0].zero_()
        model(torch.randn(16, 2, 2, 2)).square().sum().backward()
    assert bool((gates.parameters[0].grad.abs() > 1e-4).all())


def test_gates_follow_the_format_of_the_output():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)).train()
    x = torch.randn(2, 4)
    seen = []
    with gating(model, (x,)), torch.autocast("cpu", dtype=torch.bfloat16):
        model[1].register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
        model(x)
    assert seen == [torch.bfloat16]


def test_a_failure_takes_the_gates_off_and_leaves_the_weights(zoo, model_hash):
    net = zoo("plain")
    model = copy.deepcopy(net.model)

    def fail_while_gated():
        with gating(model, net.inputs) as gates, torch.no_grad():
            gates.parameters[0].fill_(-10.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_gated()
    assert model_hash(model) == model_hash(net.model)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("plain", ["conv1", "conv2", "hidden"]),
        ("unet", ["down1", "down2", "up", "merge"]),
        ("mlp", ["fc1", "fc2"]),
        ("lstm", ["hidden"]),  # not the recurrent layer
        ("tied_weights", ["hidden", "back"]),  # not the table, which is the head's weight too
    ],
)
def test_gates_are_on_layers_before_the_last(zoo, name, layers):
    net = zoo(name)
    assert list(gated_layers(net.model, net.inputs)) == layers


def test_a_shared_layer_is_gated_once(zoo):
    net = zoo("shared_layer")
    assert sorted(gated_layers(net.model, net.inputs)) == ["last", "stem", "twice"]


def test_layers_that_are_not_called_or_not_plain_have_no_gates():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True, batch_first=True)
            self.quantized, self.frozen = nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False)
            self.plain, self.idle, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            x = self.attention(x, x, x, need_weights=False)[0]
            return self.head(self.plain(self.frozen(self.quantized(x))))

    model = Net()
    quantize_(model, "quantized", LayerPlan(weight_bits=4))
    assert list(gated_layers(model, (torch.randn(2, 3, 4),))) == ["plain"]


@pytest.fixture
def _no_fused_encoder():
    """In eval mode torch's fused kernel would read weights past their masks."""
    is_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(is_fused)


def test_masked_layers_are_gated_as_plain_ones_are(zoo_net):
    model = copy.deepcopy(zoo_net.model)
    plain = gated_layers(model, zoo_net.inputs)
    _mask_everything_(model)
    assert gated_layers(model, zoo_net.inputs).keys() == plain.keys()


@pytest.mark.usefixtures("_no_fused_encoder")
def test_baked_gates_keep_what_masks_make_zero(zoo_net):
    model = copy.deepcopy(zoo_net.model)
    _mask_everything_(model)
    with gating(model, zoo_net.inputs) as gates, torch.no_grad():
        for log_alpha in gates.parameters:
            log_alpha.copy_(torch.randn_like(log_alpha) * 3)
        gated = model(*zoo_net.inputs)
    with torch.no_grad():
        torch.testing.assert_close(model(*zoo_net.inputs), gated, rtol=1e-4, atol=1e-5)
        freeze_(model)
        torch.testing.assert_close(model(*zoo_net.inputs), gated, rtol=1e-4, atol=1e-5)


def _mask_everything_(model):
    masks = {}
    for layer in model.modules():
        for name in weight_parameters(layer):
            weight = layer.get_parameter(name)
            mask = masks.setdefault(id(weight), torch.rand(weight.shape) > 0.4)
            set_mask_(layer, mask, name)
