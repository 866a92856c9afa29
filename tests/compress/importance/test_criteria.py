"""Every criterion against its closed form."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.importance.criteria import (
    batchnorm_scale,
    fpgm,
    l1_norm,
    l2_norm,
    obd,
    random_scores,
    taylor,
)
from autocompress.compress.importance.registry import (
    CRITERIA,
    find_criterion,
)
from autocompress.errors import InputError

WEIGHT = torch.tensor([[3.0, -4.0], [0.0, 1.0]])
GRADIENT = torch.tensor([[1.0, 2.0], [5.0, -3.0]])


def test_l1_is_the_sum_of_absolute_weights():
    assert l1_norm(WEIGHT).tolist() == [7.0, 1.0]


def test_l2_is_the_euclidean_norm():
    assert l2_norm(WEIGHT).tolist() == [5.0, 1.0]


def test_taylor_is_the_first_order_change_of_the_loss():
    assert taylor(WEIGHT, GRADIENT).tolist() == [abs(3.0 - 8.0), 3.0]


def test_obd_is_half_the_curvature_times_the_squared_weight():
    assert obd(WEIGHT, GRADIENT.abs()).tolist() == [0.5 * (9.0 + 2 * 16.0), 0.5 * 3.0]


def test_obd_is_the_change_of_a_quadratic_loss_when_a_channel_is_removed():
    curvature = torch.tensor([[2.0, 0.5], [1.0, 4.0]])
    minimum = WEIGHT.clone()

    def loss(weight):
        return 0.5 * (curvature * (weight - minimum).square()).sum()

    changes = []
    for channel in range(2):
        removed = WEIGHT.clone()
        removed[channel] = 0.0
        changes.append(float(loss(removed) - loss(WEIGHT)))
    assert obd(WEIGHT, curvature).tolist() == changes


def test_batchnorm_scale_is_the_absolute_scale():
    assert batchnorm_scale(torch.tensor([[-2.0], [0.5]])).tolist() == [2.0, 0.5]


def test_fpgm_is_the_sum_of_distances_to_all_others():
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    torch.testing.assert_close(fpgm(corners), torch.tensor([7.0, 8.0, 9.0]))


@given(st.integers(2, 40), st.integers(1, 9), st.integers(0, 5))
@settings(deadline=None, max_examples=20)
def test_fpgm_equals_a_loop_over_pairs(n_channels, n_weights, seed):
    weight = torch.randn(n_channels, n_weights, generator=torch.Generator().manual_seed(seed))
    expected = [sum(float((a - b).norm()) for b in weight) for a in weight]
    np.testing.assert_allclose(fpgm(weight).numpy(), expected, rtol=1e-4)


def test_fpgm_ranks_a_duplicate_below_an_outlier():
    weight = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.1], [9.0, -9.0]])
    assert int(fpgm(weight).argmin()) in (0, 1)
    assert int(fpgm(weight).argmax()) == 3


def test_random_scores_are_the_same_for_the_same_group_and_leave_the_global_generator_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = random_scores(50, "layer1")
    assert torch.equal(first, random_scores(50, "layer1"))
    assert not torch.equal(first, random_scores(50, "layer2"))
    assert torch.equal(state, torch.get_rng_state())
    assert 0.0 <= float(first.min()) < 0.2 < 0.8 < float(first.max()) < 1.0


def test_find_criterion_names_the_closest():
    with pytest.raises(InputError, match="Unknown importance criterion 'tailor'") as caught:
        find_criterion("tailor")
    assert "Did you mean 'taylor'?" in caught.value.hint
    assert find_criterion("l1") is CRITERIA["l1"]


def test_needs_name_the_criteria_that_ask_for_evidence():
    needs = {name: spec.needs for name, spec in CRITERIA.items() if spec.needs != "nothing"}
    assert needs == {
        "taylor": "gradients",
        "obd": "squared_gradients",
        "nni_taylor": "squared_gradients",
    }
