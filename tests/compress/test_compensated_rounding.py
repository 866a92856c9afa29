import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.compensated_rounding import compensate_rounding, curvature_of


def _inputs(n_inputs, seed=0, n_examples=200):
    """Correlated inputs: nothing can be made up for where they are not."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n_inputs, n_inputs, generator=generator)
    return torch.randn(n_examples, n_inputs, generator=generator) @ mixed


def _gptq_by_hand(weight, moment, levels, damping):
    """Algorithm 1 of the paper without blocks: the inverse Hessian is reduced column by column."""
    W, n = weight.double().clone(), weight.shape[1]
    H = moment.double() + damping * moment.diagonal().mean().double() * torch.eye(n).double()
    Q = torch.zeros_like(W)
    for j in range(n):
        inverse = torch.linalg.inv(H[j:, j:])
        for row in range(len(W)):
            Q[row, j] = levels[row][(levels[row] - W[row, j]).abs().argmin()]
        error = (W[:, j] - Q[:, j]) / inverse[0, 0]
        W[:, j:] -= error[:, None] * inverse[0]
    return Q


@given(st.integers(2, 9), st.integers(0, 100))
@settings(deadline=None, max_examples=15)
def test_rounding_follows_the_paper(n_inputs, seed):
    x = _inputs(n_inputs, seed)
    moment = x.T @ x / len(x)
    weight = torch.randn(4, n_inputs, generator=torch.Generator().manual_seed(seed))
    levels = torch.linspace(-2, 2, 9).repeat(4, 1) * torch.tensor([[1.0], [0.5], [0.7], [1.3]])
    expected = _gptq_by_hand(weight, moment, levels.double(), 0.01)
    got = compensate_rounding(
        weight[None], moment[None], levels[None, :, None], orders_columns=False
    )
    torch.testing.assert_close(got[0], expected)


def test_blocks_of_columns_change_nothing(monkeypatch):
    x = _inputs(30)
    moment, weight = (x.T @ x / len(x))[None], torch.randn(1, 4, 30)
    levels = torch.linspace(-2, 2, 9).expand(1, 4, 1, 9)
    whole = compensate_rounding(weight, moment, levels)
    monkeypatch.setattr("autocompress.compress.compensated_rounding._BLOCK", 7)
    torch.testing.assert_close(compensate_rounding(weight, moment, levels), whole)


def test_order_of_columns_is_that_of_their_power():
    """With the columns sorted by hand, ordering changes nothing; groups are ordered one by one."""
    x = torch.stack([_inputs(6, seed) for seed in (0, 1)])
    moment = x.mT @ x / x.shape[1]
    weight = torch.randn(2, 3, 6)
    levels = torch.linspace(-2, 2, 9).expand(2, 3, 1, 9)
    got = compensate_rounding(weight, moment, levels)
    for g in range(2):
        order = moment[g].diagonal().argsort(descending=True)
        sorted_moment = moment[g][order][:, order]
        expected = compensate_rounding(
            weight[g][:, order][None], sorted_moment[None], levels[:1], orders_columns=False
        )
        torch.testing.assert_close(got[g][:, order], expected[0])


def test_rounding_is_to_nearest_when_inputs_are_uncorrelated():
    weight, levels = torch.randn(1, 4, 10), torch.linspace(-2, 2, 9)
    got = compensate_rounding(weight, torch.eye(10)[None], levels.expand(1, 4, 1, 9))
    nearest = levels[(weight[..., None] - levels).abs().argmin(-1)]
    torch.testing.assert_close(got, nearest.double())


def test_rounding_survives_inputs_that_are_always_zero():
    moment = torch.zeros(1, 5, 5)
    weight, levels = torch.randn(1, 2, 5), torch.linspace(-2, 2, 9)
    got = compensate_rounding(weight, moment, levels.expand(1, 2, 1, 9))
    nearest = levels[(weight[..., None] - levels).abs().argmin(-1)]
    torch.testing.assert_close(got, nearest.double())


@pytest.mark.parametrize("n_groups", [1, 3])
def test_costs_of_nothing_change_nothing(n_groups):
    x = torch.stack([_inputs(20, seed) for seed in range(n_groups)])
    moment, weight = x.mT @ x / x.shape[1], torch.randn(n_groups, 4, 20)
    levels = torch.linspace(-2, 2, 9).expand(n_groups, 4, 1, 9)
    plain = compensate_rounding(weight, moment, levels)
    assert torch.equal(compensate_rounding(weight, moment, levels, costs=torch.zeros(9)), plain)


def _total(weight, rounded, moment, levels, costs):
    """Error of a row of weights and what its levels cost; the moment holds the ridge already."""
    change = weight - rounded
    index = (rounded[:, None] - levels).abs().argmin(-1)
    return change @ moment @ change + costs[index].sum()


@given(st.integers(0, 200))
@settings(deadline=None, max_examples=30)
def test_one_column_gets_the_level_of_least_error_and_cost(seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, 3, 1, generator=generator).double()
    power = torch.rand(1, generator=generator).double() + 0.1
    levels = torch.randn(5, generator=generator).double().sort().values
    costs = torch.rand(5, generator=generator).double()
    got = compensate_rounding(
        weight, power.reshape(1, 1, 1), levels.expand(1, 3, 1, 5), costs=costs, damping=0.0
    )
    for row in range(3):
        totals = power * (weight[0, row] - levels).square() + costs
        assert got[0, row, 0] == levels[totals.argmin()]


def test_two_columns_are_rounded_as_brute_force_says():
    """First the level whose error is least once the second column may be any number, then that."""
    moment = torch.tensor([[2.0, 1.2], [1.2, 1.0]]).double()
    levels, costs = torch.tensor([-1.0, 0.0, 1.0]).double(), torch.tensor([0.4, 0.0, 0.4]).double()
    for first, second in itertools.product(torch.linspace(-1.2, 1.2, 13).tolist(), repeat=2):
        weight = torch.tensor([first, second]).double()
        got = compensate_rounding(
            weight[None, None],
            moment[None],
            levels.expand(1, 1, 1, 3),
            costs=costs,
            damping=0.0,
            orders_columns=False,
        )[0, 0]
        free = torch.linspace(-4, 4, 4001).double()
        changes = torch.stack(
            [
                (weight[0] - levels)[:, None].expand(3, 4001),
                (weight[1] - free)[None].expand(3, 4001),
            ],
            dim=-1,
        )
        errors = torch.einsum("kfa,ab,kfb->kf", changes, moment, changes).amin(1)
        totals = errors + costs
        chosen = int((levels - got[0]).abs().argmin())
        assert totals[chosen] <= totals.min() + 1e-5
        seconds = [
            _total(weight, torch.stack([got[0], level]), moment, levels, costs) for level in levels
        ]
        chosen = int((levels - got[1]).abs().argmin())
        assert seconds[chosen] <= min(seconds) + 1e-9


def test_rows_compared_in_parts_give_the_same(monkeypatch):
    x = _inputs(12)
    moment, weight, costs = (x.T @ x / len(x))[None], torch.randn(1, 7, 12), torch.rand(9)
    levels = torch.linspace(-2, 2, 9).expand(1, 7, 1, 9)
    whole = compensate_rounding(weight, moment, levels, costs=costs)
    monkeypatch.setattr("autocompress.compress.compensated_rounding._MOST_CHOICES", 20)
    assert torch.equal(compensate_rounding(weight, moment, levels, costs=costs), whole)


def test_curvature_is_the_mean_of_what_each_column_adds():
    """A column's share is 1 over its entry in the inverse of the moment of itself and the rest."""
    x = _inputs(5)
    moment = (x.T @ x / len(x)).double()
    shares = [1 / torch.linalg.inv(moment[j:, j:])[0, 0] for j in range(5)]
    expected = torch.stack(shares).log().mean().exp()
    got = curvature_of(moment[None], damping=0.0)
    torch.testing.assert_close(got, expected[None])
