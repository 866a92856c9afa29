import copy

import pytest
import torch
from torch import nn

from autocompress.errors import InputError
from autocompress.train.regularize import (
    PENALTIES,
    group_lasso,
    group_lasso_of,
    l1_penalty,
    penalizing,
    squared_l2_norm,
)

NORMS = {"l1": l1_penalty, "l2": squared_l2_norm, "group_lasso": group_lasso}


def _by_hand():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Conv1d(1, 1, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, -4.0], [0.0, 1.0]]))
        model[2].weight.copy_(torch.tensor([[[-5.0, 12.0]]]))
        model[0].bias.fill_(1e3)
    return model


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("l1", 3 + 4 + 1 + 5 + 12),
        ("l2", 9 + 16 + 1 + 25 + 144),
        ("group_lasso", 2**0.5 * (5 + 1 + 13)),
    ],
)
def test_penalties_by_hand(kind, value):
    assert NORMS[kind](_by_hand()).item() == pytest.approx(value)


@pytest.mark.parametrize("kind", NORMS)
def test_penalties_have_the_gradient_of_their_value(kind):
    model = nn.Sequential(nn.Linear(3, 4), nn.ConvTranspose2d(4, 6, 2, groups=2)).double()
    weights = [model[0].weight, model[1].weight]
    directions = [torch.randn_like(weight) for weight in weights]
    gradients = torch.autograd.grad(NORMS[kind](model), weights)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))

    def shifted(step):
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight.add_(step * direction)
            return NORMS[kind](model).item()

    step = 1e-7
    difference = (shifted(step) - shifted(-2 * step)) / (2 * step)
    assert slope.item() == pytest.approx(difference, rel=1e-5)


def test_group_lasso_has_no_gradient_at_a_channel_of_zeros():
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(group_lasso_of(rows), rows)
    expected = torch.tensor([[0.0, 0.0], [0.6, 0.8]]) * 2**0.5
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("kind", NORMS)
def test_penalty_of_a_model_without_weights_is_zero(kind):
    assert NORMS[kind](nn.BatchNorm1d(3)).item() == 0.0


@pytest.mark.parametrize("kind", [kind for kind in PENALTIES if kind != "none"])
def test_penalty_is_finite_and_trains_nets_of_all_kinds(zoo_net, kind):
    model = copy.deepcopy(zoo_net.model).train()
    with penalizing(kind, model, zoo_net.inputs) as penalty:
        outputs = model(*zoo_net.inputs)
        value = penalty.value()
        assert value.isfinite()
        (outputs.square().mean() + value).backward()
    parameters = (*model.parameters(), *penalty.parameters)
    assert all(bool(p.grad.isfinite().all()) for p in parameters if p.grad is not None)
    assert all(p.grad is not None for p in penalty.parameters)


def test_penalty_is_of_the_weights_as_they_are(zoo):
    model = copy.deepcopy(zoo("mlp").model)
    with penalizing("l1", model, ()) as penalty:
        before = penalty.value().item()
        with torch.no_grad():
            model.fc1.weight.mul_(2)
        assert penalty.value().item() - before == pytest.approx(
            model.fc1.weight.abs().sum().item() / 2, rel=1e-5
        )


def test_no_penalty_changes_nothing(zoo, model_hash):
    model = copy.deepcopy(zoo("mlp").model)
    before = model_hash(model)
    with penalizing("none", model, ()) as penalty:
        assert penalty is None
        assert not any(module._forward_hooks for module in model.modules())
    assert model_hash(model) == before


def test_penalty_is_looked_up_by_name(zoo):
    with pytest.raises(InputError, match=r"Unknown penalty 'lasso'\..* Choose from: group_lasso"):
        penalizing("lasso", zoo("mlp").model, ())
