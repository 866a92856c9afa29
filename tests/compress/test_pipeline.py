import copy
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from autocompress.analysis.slots import width_of
from autocompress.compress.calibration import CalibrationStatistics
from autocompress.compress.codes import QuantizedTensor
from autocompress.compress.pipeline import Construction, apply_plan
from autocompress.compress.prune import PruningPolicy, kept_channels
from autocompress.compress.quantize import make_deployable
from autocompress.compress.quantizers.grid import code_limits
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
    gone = Counter()
    for group in net.profile.groups:
        ratio = plan.pruning_ratios.get(group.name, 0.0)
        kept = kept_channels(group.n_channels, ratio, POLICY.round_to, group.block)
        is_cut = not any(f"pruning_ratio={ratio:g} of '{group.name}'" in s for s in skipped)
        assert is_cut == (kept < group.n_channels or ratio == 0.0)
        for member in group.members:
            share = len(member.local) // group.n_channels
            gone[member.layer, member.side] += share * (group.n_channels - kept)
    for (layer, side), n_gone in gone.items():
        if not isinstance(modules[layer], nn.Sequential):  # factors
            before = width_of(net.model.get_submodule(layer), side)
            assert width_of(modules[layer], side) == before - n_gone
    for name, layer in plan.layers.items():
        parts = [n for n in modules if n == name or n.startswith(f"{name}.")]
        codes = [t for n, t in deployed.weights.items() if n in parts or n.startswith(f"{name}.")]
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
    candidate = _apply(net, plan, policy, statistics=CalibrationStatistics(gradients=gradients))
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
        ("encoder", "encoder", "TransformerEncoder"),
    ],
)
def test_plan_for_a_layer_that_no_technique_takes_is_refused(zoo, net, layer, kind):
    with pytest.raises(InputError, match=f"compresses '{layer}', .* and is a {kind}"):
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


STEPS = CompressionPlan(
    pruning_ratios={"conv1": 0.5, "hidden": 0.75},
    layers={"conv2": LayerPlan(sparsity=0.8), "head": LayerPlan(sparsity=0.5, weight_bits=4)},
)


def _construct(net, n_steps, plan=STEPS, statistics=None):
    return Construction(
        net.model, plan, net.profile.groups, net.inputs, POLICY, statistics, n_steps
    )


@pytest.mark.parametrize("n_steps", [1, 2, 3, 5])
def test_steps_reach_the_target_exactly(zoo, n_steps):
    net = zoo("plain")
    construction = _construct(net, n_steps)
    widths = []
    while not construction.is_pruned:
        construction.prune()
        widths.append(construction.model.hidden.out_features)
        with torch.no_grad():
            for parameter in construction.model.parameters():  # as if it were trained
                parameter.add_(0.01 * torch.randn_like(parameter))
    model = construction.shape().model
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == min(n_steps, 5)
    assert (model.conv1.out_channels, model.hidden.out_features) == (4, 4)
    mask = model.conv2.weight_mask
    assert int((~mask).sum()) == round(0.8 * mask.numel())
    with pytest.raises(AssertionError, match="all steps are done"):
        construction.prune()


def test_steps_without_training_in_between_end_like_one(zoo):
    net = zoo("plain")
    models = []
    for n_steps in (1, 3):
        construction = _construct(net, n_steps, CompressionPlan(pruning_ratios={"conv1": 0.75}))
        while not construction.is_pruned:
            construction.prune()
        models.append(construction.shape().model)
    assert torch.equal(models[0].conv1.weight, models[1].conv1.weight)
    assert torch.equal(models[0].conv2.weight, models[1].conv2.weight)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_lottery_ticket_keeps_early_weights_where_trained_ones_survive(zoo, n_steps):
    net = zoo("plain")
    early = {name: torch.randn_like(v) if v.is_floating_point() else v
             for name, v in net.model.state_dict().items()}  # fmt: skip
    early["norm1.running_var"] = net.model.state_dict()["norm1.running_var"]
    statistics = CalibrationStatistics(initial_state=early)
    construction = _construct(net, n_steps, statistics=statistics)
    while not construction.is_pruned:
        construction.prune()
    model = construction.shape().model
    kept = net.model.conv1.weight.flatten(1).norm(dim=1)
    rows = {tuple(row.flatten().tolist()) for row in early["conv1.weight"]}
    assert all(tuple(row.flatten().tolist()) in rows for row in model.conv1.weight)
    assert len(kept) == 8
    weight, mask = make_deployable(model).model.conv2.weight, model.conv2.weight_mask
    assert (weight[~mask] == 0).all()
    stored = set(early["conv2.weight"].flatten().tolist())
    assert set(weight[mask].flatten().tolist()) <= stored


def test_dropped_block_takes_its_layers_plans_with_it(zoo):
    net = zoo("depthwise_separable")
    block = net.profile.blocks[0]
    inner = next(la.name for la in net.profile.layers if la.name.startswith(f"{block}."))
    plan = CompressionPlan(dropped_blocks=(block,), layers={inner: LayerPlan(weight_bits=4)})
    candidate = _apply(net, plan)
    assert candidate.skipped == (f"'{inner}' is not compressed: its block is dropped",)
    assert not list(candidate.model.get_submodule(block).parameters())


def test_shared_layers_are_compressed_as_one(zoo):
    net = zoo("attention")
    plan = CompressionPlan(
        layers={
            "q": LayerPlan(weight_bits=4, sparsity=0.5),
            "k": LayerPlan(weight_bits=8, shared_with="q"),
        }
    )
    candidate = _apply(net, plan)
    assert candidate.model.q.weight is candidate.model.k.weight
    assert candidate.skipped == ("'k' is compressed as 'q': one weight",)
    deployed = make_deployable(candidate.model)
    assert deployed.weights["q"] is deployed.weights["k"]
    assert deployed.weights["q"].bits == 4


@pytest.mark.parametrize(
    ("layer", "plan", "reason"),
    [
        ("conv1", LayerPlan(weight_bits=1.58, quantizer="fixed_point"), "weight_bits=1.58"),
        ("fc", LayerPlan(rank_ratio=0.5, factorization="cp"), "rank_ratio=0.5"),
        ("conv1", LayerPlan(sparsity=0.5, sparsity_pattern="n:5"), "n:5"),
        ("conv1", LayerPlan(weight_bits=4, quantizer="kmean"), "kmean"),
    ],
)
def test_plan_asking_a_layer_for_what_it_cannot_take_is_refused(zoo, layer, plan, reason):
    name = "hidden" if layer == "fc" else layer
    with pytest.raises(InputError) as caught:
        _apply(zoo("plain"), CompressionPlan(layers={name: plan}))
    assert reason in caught.value.message
