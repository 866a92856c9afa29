"""Scores of groups: which layers have a say, and how their channels are found."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autocompress.analysis.channel_group import ChannelGroup, GroupMember
from autocompress.compress.calibration import CalibrationStatistics
from autocompress.compress.compressed_layers import mask_of, restore_layer_
from autocompress.compress.importance.registry import CRITERIA
from autocompress.compress.importance.score import score_channels
from autocompress.compress.sparsity import sparsify_
from autocompress.errors import InputError
from tests.needs import need_extra


def _member(layer, side, local, root=None):
    local = np.asarray(local)
    return GroupMember(
        layer=layer, side=side, local=local, root=local if root is None else np.asarray(root)
    )


def _group(name, n_channels, *members, block=1):
    return ChannelGroup(name=name, n_channels=n_channels, members=members, block=block)


def _of(net, name):
    return next(group for group in net.profile.groups if group.name == name)


def _scaled(scores):
    scores = np.asarray(scores, dtype=np.float64)
    return scores / scores.mean()


@pytest.fixture
def two_layers():
    """Three channels between two linear layers, with a batch-norm, and both statistics."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([-3.0, 1.0, 2.0]))
    channels = np.arange(3)
    group = _group(
        "0", 3, _member("0", "out", channels), _member("1", "out", channels),
        _member("2", "in", channels),
    )  # fmt: skip
    gradients = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    squared = {name: torch.rand_like(p) for name, p in model.named_parameters()}
    return model, group, CalibrationStatistics(gradients=gradients, squared_gradients=squared)


def _closed_form(criterion, weight, gradient, fisher):
    """Loops over the channels (rows) of one layer."""
    scores = []
    for w, g, f in zip(weight, gradient, fisher, strict=True):
        scores.append(
            {
                "l1": sum(abs(x) for x in w),
                "l2": sum(x * x for x in w) ** 0.5,
                "taylor": abs(sum(x * y for x, y in zip(w, g, strict=True))),
                "obd": sum(0.5 * y * x * x for x, y in zip(w, f, strict=True)),
                "fpgm": sum(
                    sum((x - y) ** 2 for x, y in zip(w, v, strict=True)) ** 0.5 for v in weight
                ),
            }[criterion]
        )
    return scores


@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor", "obd", "fpgm"])
def test_score_is_the_closed_form_on_two_layers(two_layers, criterion):
    model, group, statistics = two_layers
    parts = []
    for name, transpose in (("0.weight", False), ("2.weight", True)):
        tensors = (
            model.get_parameter(name), statistics.gradients[name],
            statistics.squared_gradients[name]
        )  # fmt: skip
        rows = [(t.t() if transpose else t).tolist() for t in tensors]
        parts.append(_scaled(_closed_form(criterion, *rows)))
    scores = score_channels(model, group, criterion, statistics)
    np.testing.assert_allclose(scores, np.mean(parts, axis=0), rtol=1e-5)


def test_score_of_batchnorm_scale_is_the_scale_of_the_groups_own_norm(two_layers):
    model, group, _ = two_layers
    scores = score_channels(model, group, "batchnorm_scale")
    np.testing.assert_allclose(scores, [1.5, 0.5, 1.0])


def test_score_of_batchnorm_scale_falls_back_to_l2_when_the_group_has_no_norm(two_layers):
    model, group, _ = two_layers
    bare = _group("0", 3, *(m for m in group.members if m.layer != "1"))
    assert np.array_equal(
        score_channels(model, bare, "batchnorm_scale"), score_channels(model, bare, "l2")
    )
    model[1] = nn.BatchNorm1d(3, affine=False)
    assert np.array_equal(
        score_channels(model, group, "batchnorm_scale"), score_channels(model, group, "l2")
    )


def test_score_of_random_ignores_the_weights(two_layers):
    model, group, _ = two_layers
    scores = score_channels(model, group, "random")
    nn.init.zeros_(model[0].weight)
    assert np.array_equal(score_channels(model, group, "random"), scores)
    renamed = _group("another", 3, *group.members)
    assert not np.allclose(score_channels(model, renamed, "random"), scores)


@pytest.mark.parametrize("criterion", ["taylor", "obd"])
def test_score_without_evidence_names_the_first_parameter_that_lacks_it(two_layers, criterion):
    model, group, statistics = two_layers
    kind = CRITERIA[criterion].needs.replace("_", " ")
    with pytest.raises(InputError, match=f"{criterion!r} needs the {kind} of '0.weight'"):
        score_channels(model, group, criterion)
    del statistics.gradients["2.weight"], statistics.squared_gradients["2.weight"]
    with pytest.raises(InputError, match=r"'2.weight', but the statistics hold those of 5 other"):
        score_channels(model, group, criterion, statistics)


def test_score_refuses_evidence_of_another_width(two_layers):
    model, group, statistics = two_layers
    statistics.gradients["2.weight"] = torch.rand(2, 4)
    with pytest.raises(InputError, match=r"'2.weight' must have its shape \(2, 3\), but have") as e:
        score_channels(model, group, "taylor", statistics)
    assert "anew" in e.value.hint


def test_score_counts_masked_weights_as_zeros(two_layers):
    model, group, _ = two_layers
    sparsify_(model, {"0": (0.5, "unstructured"), "2": (0.5, "unstructured")})
    scores = score_channels(model, group, "l1")
    plain = copy.deepcopy(model)
    for index in (0, 2):
        plain[index].weight.data *= mask_of(model[index])
        restore_layer_(plain[index])
    assert np.array_equal(scores, score_channels(plain, group, "l1"))


def test_score_of_a_unit_with_several_rows_is_their_sum_unless_the_criterion_joins_them():
    model = nn.Sequential(nn.Linear(3, 4))
    heads = _group("0", 2, _member("0", "out", [0, 1, 2, 3], root=[0, 0, 1, 1]), block=2)
    rows = model[0].weight.detach().abs().sum(1).double().reshape(2, 2).sum(1)
    np.testing.assert_allclose(score_channels(model, heads, "l1"), _scaled(rows), rtol=1e-6)
    distance = (model[0].weight[:2] - model[0].weight[2:]).norm().item()
    np.testing.assert_allclose(
        score_channels(model, heads, "fpgm"), _scaled([distance, distance]), rtol=1e-6
    )


def test_score_of_rows_in_any_order_is_the_same():
    model = nn.Sequential(nn.Linear(3, 6))
    ordered = _group("0", 3, _member("0", "out", [0, 1, 2, 3, 4, 5], root=[0, 0, 1, 1, 2, 2]))
    mixed = _group("0", 3, _member("0", "out", [4, 0, 2, 1, 5, 3], root=[2, 0, 1, 0, 2, 1]))
    for criterion in ("l2", "fpgm", "random"):
        np.testing.assert_allclose(
            score_channels(model, ordered, criterion), score_channels(model, mixed, criterion)
        )


def test_score_of_a_tied_weight_finds_its_evidence_under_either_name():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    model[1].weight = model[0].weight
    group = _group("0", 3, _member("0", "out", range(3)), _member("1", "in", range(3)))
    gradient = torch.rand(4, 3)
    expected = _scaled((model[0].weight.detach() * gradient).sum(dim=0).abs())
    for name in ("0.weight", "1.weight"):
        scores = score_channels(
            model, group, "taylor", CalibrationStatistics(gradients={name: gradient})
        )
        np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_score_of_an_embedding_reads_its_columns():
    model = nn.Sequential(nn.Embedding(7, 3))
    scores = score_channels(model, _group("0", 3, _member("0", "out", [0, 1, 2])), "l2")
    np.testing.assert_allclose(scores, _scaled(model[0].weight.detach().norm(dim=0)), rtol=1e-6)


@pytest.mark.parametrize(("kind", "n_gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_score_of_a_hidden_unit_reads_all_its_gates(kind, n_gates):
    torch.manual_seed(0)
    model = nn.ModuleDict({"rnn": kind(5, 3, num_layers=2)})
    expected = np.zeros(3)
    for name, weight in model["rnn"].named_parameters():
        if not name.startswith("weight"):
            continue
        for unit in range(3):
            own = [gate * 3 + unit for gate in range(n_gates)]
            expected[unit] += float(weight.detach()[own].abs().sum())  # what it reads
            if name != "weight_ih_l0":
                expected[unit] += float(weight.detach()[:, unit].abs().sum())  # what reads it
    scores = score_channels(model, _group("rnn", 3, _member("rnn", "out", [0, 1, 2])), "l1")
    np.testing.assert_allclose(scores, _scaled(expected), rtol=1e-5)


def test_score_of_the_input_of_a_recurrent_layer_reads_its_first_columns():
    model = nn.ModuleDict({"rnn": nn.LSTM(4, 3, num_layers=2)})
    columns = model["rnn"].weight_ih_l0.detach().norm(dim=0)
    scores = score_channels(model, _group("rnn", 4, _member("rnn", "in", range(4))), "l2")
    np.testing.assert_allclose(scores, _scaled(columns), rtol=1e-6)


def test_score_is_the_mean_over_layers_scaled_to_mean_one(zoo):
    net = zoo("plain")
    rows_out = net.model.conv1.weight.detach().flatten(1).abs().sum(1).double()
    rows_in = net.model.conv2.weight.detach().movedim(1, 0).flatten(1).abs().sum(1).double()
    expected = (rows_out / rows_out.mean() + rows_in / rows_in.mean()) / 2
    scores = score_channels(net.model, _of(net, "conv1"), "l1")
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-6)


def test_score_of_a_transposed_convolution_reads_its_own_axes(zoo):
    net = zoo("unet")
    out = net.model.up.weight.detach().movedim(1, 0).flatten(1).norm(dim=1).double()
    into = net.model.merge.weight.detach()[:, 8:].movedim(1, 0).flatten(1).norm(dim=1).double()
    expected = (out / out.mean() + into / into.mean()) / 2
    scores = score_channels(net.model, _of(net, "up"), "l2")
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_scores_are_finite_and_average_to_one(zoo_net, criterion):
    if criterion.startswith("nni_"):
        need_extra("nni")
    facts = {name: torch.rand_like(p) for name, p in zoo_net.model.named_parameters()}
    statistics = CalibrationStatistics(gradients=facts, squared_gradients=facts)
    for group in zoo_net.profile.groups:
        scores = score_channels(zoo_net.model, group, criterion, statistics)
        assert scores.shape == (group.n_channels,)
        assert (scores >= 0).all()
        assert scores.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor", "obd"])
def test_channel_of_zeros_is_the_least_important(zoo, criterion):
    net = zoo("residual")
    model = copy.deepcopy(net.model)
    group = next(g for g in net.profile.groups if g.name.endswith("conv1"))
    with torch.no_grad():
        for member in group.members:
            layer = model.get_submodule(member.layer)
            if layer.weight.ndim > 1:
                layer.weight.select(0 if member.side == "out" else 1, 5).zero_()
    facts = {name: torch.rand_like(p) for name, p in model.named_parameters()}
    scores = score_channels(
        model, group, criterion, CalibrationStatistics(gradients=facts, squared_gradients=facts)
    )
    assert scores[5] == 0.0
    assert scores.argmin() == 5


def test_scores_survive_weights_that_are_all_zero(zoo):
    net = zoo("plain")
    model = copy.deepcopy(net.model)
    torch.nn.init.zeros_(model.conv1.weight)
    torch.nn.init.zeros_(model.conv2.weight)
    assert score_channels(model, _of(net, "conv1"), "l2").tolist() == [0.0] * 8


def test_obd_finds_the_channel_that_the_loss_does_not_need():
    """A Fisher diagonal from data tells an idle channel from a small but needed one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].bias[1] = -100.0  # never fires, whatever its weights are
        model[0].weight[1] = 5.0
        model[0].weight[2] *= 0.1
    squared = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for _ in range(8):
        model.zero_grad()
        F.cross_entropy(model(torch.randn(16, 4)), torch.randint(0, 2, (16,))).backward()
        for name, parameter in model.named_parameters():
            squared[name] += parameter.grad.square() * 2.0
    channels = np.arange(3)
    group = _group("0", 3, _member("0", "out", channels), _member("2", "in", channels))
    statistics = CalibrationStatistics(squared_gradients=squared)
    assert score_channels(model, group, "obd", statistics).argmin() == 1
    assert score_channels(model, group, "l2").argmin() != 1
