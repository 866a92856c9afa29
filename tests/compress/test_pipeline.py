import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from autocompress.compress.codes import QuantizedTensor
from autocompress.compress.pipeline import PruningPolicy, apply_plan, make_deployable
from autocompress.compress.prune import kept_channels
from autocompress.compress.quantize import code_limits
from autocompress.errors import InputError, TrialError
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.space.build import build_space
from autocompress.space.rules import parse_rules
from autocompress.train.recalibrate import recalibrate_

RULES = parse_rules(
    """
    pruning: {round_to: 2}
    rules:
      - pruning_ratio: [0.25, 0.5, 0.9]
        rank_ratio: [0.5, 0.1]
        weight_bits: [8, 4, 2]
        activation_bits: [8]
    """,
    "test",
)
POLICY = PruningPolicy(criterion="l2", round_to=2)


def _apply(net, plan, policy=POLICY, **options):
    return apply_plan(net.model, plan, net.profile.groups, net.inputs, policy, **options)


@given(data=st.data())
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_plan_builds_a_model_that_runs_and_is_what_it_says(zoo_net, model_hash, data):
    space = build_space(zoo_net.profile, RULES).space
    levels = {k.name: data.draw(st.integers(0, len(k.levels) - 1)) for k in space.knobs}
    plan = space.decode(levels)
    before = model_hash(zoo_net.model)
    candidate = _apply(zoo_net, plan)
    recalibrate_(candidate.model, [zoo_net.inputs])
    deployed = make_deployable(candidate.model)
    with torch.no_grad():
        output, expected = deployed.model(*zoo_net.inputs), zoo_net.model(*zoo_net.inputs)
    assert output.shape == expected.shape
    assert output.isfinite().all()
    assert all(parameter.numel() for parameter in deployed.model.parameters())
    assert model_hash(zoo_net.model) == before
    _assert_realised(zoo_net, plan, candidate.skipped, deployed)


def _assert_realised(net, plan, skipped, deployed):
    modules = dict(deployed.model.named_modules())
    for group in net.profile.groups:
        ratio = plan.pruning_ratios.get(group.name, 0.0)
        kept = kept_channels(group.n_channels, ratio, POLICY.round_to)
        is_cut = not any(f"pruning_ratio={ratio:g} of '{group.name}'" in s for s in skipped)
        assert is_cut == (kept < group.n_channels or ratio == 0.0)
        original = net.model.get_submodule(group.name).weight
        module = modules[group.name]
        width = (
            module.last.weight.shape[0]
            if isinstance(module, nn.Sequential)
            else module.weight.shape[int(getattr(module, "transposed", False))]
        )
        n_all = original.shape[int(getattr(net.model.get_submodule(group.name), "transposed", 0))]
        assert width == n_all - (group.n_channels - kept)
    for name, layer in plan.layers.items():
        parts = [n for n in modules if n == name or n.startswith(f"{name}.")]
        codes = [deployed.weights[n] for n in parts if n in deployed.weights]
        assert bool(codes) == (layer.weight_bits < 32)
        for tensor in codes:
            low, high = code_limits(layer.weight_bits)
            assert tensor.bits == layer.weight_bits
            assert low <= tensor.codes.min() <= tensor.codes.max() <= high
        is_integer = layer.weight_bits < 32 and layer.activation_bits == 8
        assert is_integer == any(n in deployed.activations for n in parts)
        if layer.rank_ratio < 1.0:
            is_skipped = any(f"of '{name}' skipped: factors" in line for line in skipped)
            assert is_skipped != isinstance(modules[name], nn.Sequential)


def test_untouched_plan_is_bit_identical(zoo_net, model_hash):
    candidate = _apply(zoo_net, CompressionPlan())
    deployed = make_deployable(candidate.model)
    assert candidate.skipped == ()
    assert candidate.model is not zoo_net.model
    assert model_hash(deployed.model) == model_hash(zoo_net.model)
    assert deployed.weights == deployed.activations == {}
    with torch.no_grad():
        assert torch.equal(deployed.model(*zoo_net.inputs), zoo_net.model(*zoo_net.inputs))


def test_candidate_shares_no_tensor_with_the_base_model(zoo):
    net = zoo("plain")
    candidate = _apply(net, CompressionPlan(layers={"conv1": LayerPlan(weight_bits=4)}))
    own = {p.data_ptr() for p in net.model.parameters()}
    assert not own & {p.data_ptr() for p in candidate.model.parameters()}


def test_order_is_prune_then_factorize_then_quantize(zoo):
    net = zoo("plain")
    plan = CompressionPlan(
        pruning_ratios={"hidden": 0.5},
        layers={"hidden": LayerPlan(rank_ratio=0.25, weight_bits=4)},
    )
    candidate = _apply(net, plan)
    factors = candidate.model.hidden
    assert factors.last.weight.shape == (8, 2)  # a quarter of the rank after the cut
    assert factors.first.weight.shape == (2, 192)
    deployed = make_deployable(candidate.model)
    assert set(deployed.weights) == {"hidden.first", "hidden.last"}


def test_groups_that_meet_in_a_concatenation_are_cut_together(zoo):
    net = zoo("dense_concat")
    ratios = {group.name: 0.5 for group in net.profile.groups}
    candidate = _apply(net, CompressionPlan(pruning_ratios=ratios))
    assert candidate.model.conv3.weight.shape == (4, 8, 3, 3)
    assert candidate.model.head.weight.shape == (5, 12)


def test_weights_of_a_deployable_are_codes_times_scale(zoo):
    net = zoo("residual")
    plan = CompressionPlan(
        layers={name: LayerPlan(weight_bits=b) for name, b in (("stem", 8), ("conv1", 3))}
    )
    deployed = make_deployable(_apply(net, plan).model)
    assert {name: tensor.bits for name, tensor in deployed.weights.items()} == {
        "stem": 8,
        "conv1": 3,
    }
    for name, tensor in deployed.weights.items():
        assert isinstance(tensor, QuantizedTensor)
        weight = deployed.model.get_submodule(name).weight.detach().numpy()
        assert np.array_equal(weight, tensor.dequantize())


def test_make_deployable_leaves_the_candidate_as_it_is(zoo, model_hash):
    net = zoo("plain")
    candidate = _apply(net, CompressionPlan(layers={"conv1": LayerPlan(weight_bits=4)})).model
    candidate.train()
    before = model_hash(candidate)
    deployed = make_deployable(candidate)
    assert model_hash(candidate) == before
    assert candidate.training
    assert not deployed.model.training


def test_skipped_requests_are_recorded(zoo):
    plan = CompressionPlan(
        pruning_ratios={"hidden": 0.1},
        layers={"head": LayerPlan(rank_ratio=0.9), "conv1": LayerPlan(activation_bits=8)},
    )
    candidate = _apply(zoo("plain"), plan, PruningPolicy(round_to=8))
    assert candidate.skipped == (
        "pruning_ratio=0.1 of 'hidden' skipped: 16 channels stay when rounded to multiples of 8",
        "rank_ratio=0.9 of 'head' skipped: "
        "factors of its weight (5, 16) would not be smaller than it",
        "activation_bits=8 of 'conv1' skipped: "
        "its weights stay float, and integer kernels need both operands",
    )


def test_taylor_asks_the_gradients(zoo):
    net = zoo("plain")
    gradients = {name: torch.zeros_like(p) for name, p in net.model.named_parameters()}
    gradients["conv1.weight"][[0, 1, 2, 3]] = 1.0 / net.model.conv1.weight[[0, 1, 2, 3]].detach()
    plan = CompressionPlan(pruning_ratios={"conv1": 0.5})
    policy = PruningPolicy(criterion="taylor", round_to=2)
    candidate = _apply(net, plan, policy, gradients=gradients)
    assert torch.equal(candidate.model.conv1.weight, net.model.conv1.weight[:4])


@pytest.mark.parametrize(
    ("plan", "name"),
    [
        (CompressionPlan(pruning_ratios={"conv9": 0.5}), "conv9"),
        (CompressionPlan(pruning_ratios={"head": 0.5}), "head"),
        (CompressionPlan(layers={"conv9": LayerPlan(weight_bits=4)}), "conv9"),
    ],
)
def test_plan_for_another_model_is_refused(zoo, plan, name):
    with pytest.raises(InputError, match=f"The plan names {name!r}") as caught:
        _apply(zoo("plain"), plan)
    assert "another model" in caught.value.hint


@pytest.mark.parametrize(
    ("net", "layer", "kind"),
    [
        ("plain", "norm1", "BatchNorm2d"),
        ("unet", "up", "ConvTranspose2d"),
        ("encoder", "encoder", "TransformerEncoder"),
    ],
)
def test_plan_for_a_layer_that_no_technique_takes_is_refused(zoo, net, layer, kind):
    with pytest.raises(InputError, match=f"of '{layer}', .* and is a {kind}"):
        _apply(zoo(net), CompressionPlan(layers={layer: LayerPlan(weight_bits=4)}))


class _Fragile(nn.Module):
    """Runs only while its layer is what it was."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        if type(self.fc) is not nn.Linear:
            raise RuntimeError("not my layer.\nSecond line.")
        return self.fc(x)


def test_candidate_that_does_not_run_fails_with_a_reason():
    plan = CompressionPlan(layers={"fc": LayerPlan(weight_bits=4)})
    with pytest.raises(TrialError) as caught:
        apply_plan(_Fragile(), plan, (), (torch.randn(2, 8),), POLICY)
    assert caught.value.reason == "does_not_run"
    assert caught.value.message == "The candidate does not run: not my layer."


@pytest.mark.parametrize("is_training", [True, False])
def test_candidate_is_in_the_mode_of_the_base_model(zoo, is_training):
    net = zoo("plain")
    model = copy.deepcopy(net.model).train(is_training)
    plan = CompressionPlan(layers={"conv1": LayerPlan(weight_bits=4)})
    candidate = apply_plan(model, plan, net.profile.groups, net.inputs, POLICY)
    assert candidate.model.training is is_training


def test_quantized_layers_of_a_fused_encoder_are_really_used(zoo):
    net = zoo("encoder")
    plan = CompressionPlan(layers={"encoder.layers.0.linear1": LayerPlan(weight_bits=2)})
    candidate = _apply(net, plan).model.eval()
    with torch.no_grad():
        difference = (candidate(*net.inputs) - net.model(*net.inputs)).abs().max()
    assert difference > 1e-3
