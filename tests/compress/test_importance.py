import copy

import numpy as np
import pytest
import torch

from autocompress.compress.importance import (
    find_criterion,
    l1_norm,
    l2_norm,
    score_channels,
    taylor,
)
from autocompress.errors import InputError

WEIGHT = torch.tensor([[3.0, -4.0], [0.0, 1.0]])
GRADIENT = torch.tensor([[1.0, 2.0], [5.0, -3.0]])


def _group(net, name):
    return next(group for group in net.profile.groups if group.name == name)


def test_l1_is_the_sum_of_absolute_weights():
    assert l1_norm(WEIGHT, None).tolist() == [7.0, 1.0]


def test_l2_is_the_euclidean_norm():
    assert l2_norm(WEIGHT, None).tolist() == [5.0, 1.0]


def test_taylor_is_the_first_order_change_of_the_loss():
    assert taylor(WEIGHT, GRADIENT).tolist() == [abs(3.0 - 8.0), 3.0]


def test_find_criterion_names_the_closest():
    with pytest.raises(InputError, match="Unknown importance criterion 'tailor'"):
        find_criterion("tailor")
    assert find_criterion("l1") is l1_norm


def test_score_is_the_mean_over_layers_scaled_to_mean_one(zoo):
    net = zoo("plain")
    rows_out = net.model.conv1.weight.detach().flatten(1).abs().sum(1).double()
    rows_in = net.model.conv2.weight.detach().movedim(1, 0).flatten(1).abs().sum(1).double()
    expected = (rows_out / rows_out.mean() + rows_in / rows_in.mean()) / 2
    scores = score_channels(net.model, _group(net, "conv1"), "l1")
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-6)


def test_score_of_a_transposed_convolution_reads_its_own_axes(zoo):
    net = zoo("unet")
    out = net.model.up.weight.detach().movedim(1, 0).flatten(1).norm(dim=1).double()
    into = net.model.merge.weight.detach()[:, 8:].movedim(1, 0).flatten(1).norm(dim=1).double()
    expected = (out / out.mean() + into / into.mean()) / 2
    scores = score_channels(net.model, _group(net, "up"), "l2")
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor"])
def test_scores_are_finite_and_average_to_one(zoo_net, criterion):
    gradients = {name: torch.rand_like(p) for name, p in zoo_net.model.named_parameters()}
    for group in zoo_net.profile.groups:
        scores = score_channels(zoo_net.model, group, criterion, gradients)
        assert scores.shape == (group.n_channels,)
        assert (scores >= 0).all()
        assert scores.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_channel_of_zeros_is_the_least_important(zoo, criterion):
    net = zoo("residual")
    model = copy.deepcopy(net.model)
    with torch.no_grad():
        model.conv1.weight[5] = 0.0
        model.conv2.weight[:, 5] = 0.0
    scores = score_channels(model, _group(net, "conv1"), criterion)
    assert scores[5] == 0.0
    assert scores.argmin() == 5


def test_scores_survive_weights_that_are_all_zero(zoo):
    net = zoo("plain")
    model = copy.deepcopy(net.model)
    torch.nn.init.zeros_(model.conv1.weight)
    torch.nn.init.zeros_(model.conv2.weight)
    assert score_channels(model, _group(net, "conv1"), "l2").tolist() == [0.0] * 8
