import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autocompress.compress.compressed_layers import mask_of, weight_parameters
from autocompress.compress.magnitude_masks import n_zeros
from autocompress.compress.sparsity import masks, sparsify_, stepped_sparsities
from autocompress.compress.sparsity_patterns import find_pattern
from autocompress.errors import InputError

SHARES = st.floats(0.0, 1.0, exclude_max=True)


def _zeros(mask):
    return int((~mask).sum())


def _patterns(names, pattern="unstructured"):
    return dict.fromkeys(names, find_pattern(pattern))


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8), SHARES), min_size=1, max_size=4))
@settings(deadline=None, max_examples=40)
def test_masks_of_global_scope_equal_one_sort_over_everything(layers):
    """Brute force: walk up all magnitudes, sparing the last weight of each layer."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        str(i): torch.randn(rows, columns, generator=generator)
        for i, (rows, columns, _) in enumerate(layers)
    }
    shares = {str(i): share for i, (_, _, share) in enumerate(layers)}
    left = sum(n_zeros(weights[name].numel(), shares[name]) for name in weights)
    expected = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    entries = [
        (abs(value), name, i)
        for name, weight in weights.items()
        for i, value in enumerate(weight.flatten().tolist())
    ]
    for _, name, i in sorted(entries):
        mask = expected[name].view(-1)
        if left and int(mask.sum()) > 1:
            mask[i] = False
            left -= 1
    found = masks(weights, shares, _patterns(weights), "global")
    assert all(torch.equal(found[name], expected[name]) for name in weights)


def test_masks_of_global_scope_take_from_the_layer_of_small_weights():
    weights = {"small": torch.rand(10, 10), "large": torch.rand(10, 10) + 2.0}
    found = masks(weights, {"small": 0.3, "large": 0.3}, _patterns(weights), "global")
    assert (_zeros(found["small"]), _zeros(found["large"])) == (60, 0)
    local = masks(weights, {"small": 0.3, "large": 0.3}, _patterns(weights), "local")
    assert (_zeros(local["small"]), _zeros(local["large"])) == (30, 30)


def test_masks_of_global_scope_leave_each_layer_one_weight():
    weights = {"tiny": torch.full((3, 3), 1e-6), "large": torch.rand(3, 4) + 1.0}
    found = masks(weights, {"tiny": 0.8, "large": 0.8}, _patterns(weights), "global")
    assert int(found["tiny"].sum()) == 1
    assert sum(map(_zeros, found.values())) == round(0.8 * 9) + round(0.8 * 12)


def test_masks_of_global_scope_compare_blocks_of_one_shape_only():
    weights = {name: torch.rand(8, 8) * scale for name, scale in (("a", 1.0), ("b", 9.0))}
    weights |= {"single": torch.rand(8, 8) * 1e-3, "groups": torch.rand(8, 8) * 1e-3}
    patterns = _patterns(("a", "b"), "block:2x2")
    patterns |= _patterns(["single"]) | _patterns(["groups"], "n:4")
    found = masks(weights, dict.fromkeys(weights, 0.5), patterns, "global")
    assert _zeros(found["a"]) + _zeros(found["b"]) == 64
    assert _zeros(found["a"]) > _zeros(found["b"])
    assert _zeros(found["single"]) == 32
    assert (found["groups"].unflatten(1, (-1, 4)).sum(-1) == 2).all()


def test_masks_of_global_scope_keep_earlier_zeros():
    weights = {"a": torch.rand(6, 6), "b": torch.rand(6, 6)}
    shares = dict.fromkeys(weights, 0.25)
    first = masks(weights, shares, _patterns(weights), "global")
    trained = {name: torch.rand(6, 6) for name in weights}
    second = masks(trained, dict.fromkeys(weights, 0.5), _patterns(weights), "global", first)
    assert sum(map(_zeros, second.values())) == 36
    assert not any((second[name] & ~first[name]).any() for name in weights)


@pytest.mark.parametrize("pattern", ["unstructured", "n:4", "block:2x2"])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_masks_forget_an_earlier_one_that_leaves_nothing(pattern, scope):
    weights = {"a": torch.rand(4, 8)}
    nothing = {"a": torch.zeros(4, 8, dtype=torch.bool)}
    found = masks(weights, {"a": 0.5}, _patterns(weights, pattern), scope, nothing)
    assert _zeros(found["a"]) == 16


def test_masks_come_in_the_order_of_the_weights():
    weights = {"b": torch.rand(4, 4), "a": torch.rand(4, 4)}
    patterns = _patterns("b", "n:4") | _patterns("a")
    assert list(masks(weights, {"a": 0.5, "b": 0.5}, patterns, "global")) == ["b", "a"]


def test_sparsify_zeroes_the_smallest_weights_and_nothing_else(zoo):
    net = zoo("plain")
    model = copy.deepcopy(net.model)
    assert sparsify_(model, {"hidden": (0.5, "unstructured"), "conv2": (0.5, "n:4")}) == ()
    by_hand = copy.deepcopy(net.model)
    with torch.no_grad():
        flat = by_hand.hidden.weight.flatten()
        flat[flat.abs().argsort(stable=True)[: flat.numel() // 2]] = 0.0
        by_hand.hidden.weight.copy_(flat.view_as(by_hand.hidden.weight))
        groups = by_hand.conv2.weight.reshape(-1, 4)
        small = groups.abs().argsort(dim=1, stable=True)[:, :2]
        by_hand.conv2.weight.copy_(groups.scatter(1, small, 0.0).view_as(by_hand.conv2.weight))
    torch.testing.assert_close(model(*net.inputs), by_hand(*net.inputs), rtol=0.0, atol=0.0)


def test_sparsify_masks_every_kind_of_layer(zoo_net):
    model = copy.deepcopy(zoo_net.model)
    names = [name for name, layer in model.named_modules() if weight_parameters(layer)]
    skipped = sparsify_(model, dict.fromkeys(names, (0.5, "unstructured")))
    assert skipped == ()
    for name in names:
        layer = model.get_submodule(name)
        for parameter in weight_parameters(layer):
            mask = mask_of(layer, parameter)
            assert _zeros(mask) == n_zeros(mask.numel(), 0.5)
    with torch.no_grad():
        output = model(*zoo_net.inputs)
        assert output.isfinite().all()
        assert not torch.equal(output, zoo_net.model(*zoo_net.inputs))


def test_sparsify_of_a_transposed_convolution_groups_its_inputs(zoo):
    model = copy.deepcopy(zoo("unet").model)
    sparsify_(model, {"up": (0.5, "n:4")})
    rows = mask_of(model.up).movedim(1, 0).flatten(1)  # (O, I·K·K)
    assert (rows.unflatten(1, (-1, 4)).sum(-1) == 2).all()


def test_sparsify_masks_each_factor_of_a_factorized_layer():
    factors = nn.Sequential(nn.Linear(12, 3, bias=False), nn.Linear(3, 10))
    model = nn.Sequential(factors, nn.ReLU())
    skipped = sparsify_(model, {"0": (0.5, "n:4")})
    assert skipped == (
        "sparsity=0.5 (n:4) of '0.1' skipped: each output reads 3 weights, fewer than a group of 4",
    )
    assert _zeros(mask_of(factors[0])) == 18
    assert mask_of(factors[1]) is None


def test_sparsify_reports_a_share_that_rounds_to_nothing():
    model = nn.Sequential(nn.Linear(4, 2))
    assert sparsify_(model, {"0": (0.05, "unstructured")}) == (
        "sparsity=0.05 (unstructured) of '0' skipped: it zeroes none of 8 weights",
    )
    assert type(model[0]) is nn.Linear


def test_sparsify_gives_tied_weights_one_mask(zoo):
    net = zoo("tied_weights")
    model = copy.deepcopy(net.model)
    sparsify_(model, {"embed": (0.5, "unstructured"), "head": (0.25, "unstructured")})
    assert torch.equal(mask_of(model.embed), mask_of(model.head))
    assert _zeros(mask_of(model.embed)) == 44


def test_sparsify_again_keeps_the_zeros_though_weights_were_trained(zoo):
    model = copy.deepcopy(zoo("residual").model)
    layers = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    earlier = None
    for sparsity in stepped_sparsities(0.8, 4):
        sparsify_(model, dict.fromkeys(layers, (sparsity, "unstructured")), "global")
        found = {name: mask_of(model.get_submodule(name)).clone() for name in layers}
        if earlier is not None:
            assert not any((found[name] & ~earlier[name]).any() for name in layers)
        earlier = found
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter))
    n_weights = sum(mask.numel() for mask in earlier.values())
    assert sum(map(_zeros, earlier.values())) == pytest.approx(0.8 * n_weights, abs=len(layers))


def test_sparsify_leaves_the_parameters_as_they_are(zoo):
    net = zoo("mlp")
    model = copy.deepcopy(net.model)
    parameter = model.fc1.weight
    sparsify_(model, {"fc1": (0.5, "unstructured")})
    assert model.fc1.weight is parameter
    assert torch.equal(parameter, net.model.fc1.weight)


def test_sparsify_refuses_an_unknown_pattern():
    with pytest.raises(InputError, match="Unknown sparsity pattern 'n:3'"):
        sparsify_(nn.Sequential(nn.Linear(4, 4)), {"0": (0.5, "n:3")})


@given(SHARES, st.integers(1, 12))
def test_stepped_sparsities_grow_and_end_exactly_at_the_target(sparsity, n_steps):
    steps = stepped_sparsities(sparsity, n_steps)
    assert len(steps) == n_steps
    assert steps[-1] == sparsity
    assert all(0.0 <= a <= b for a, b in zip((0.0, *steps), steps, strict=False))


def test_stepped_sparsities_are_those_of_zhu_and_gupta():
    t, n, final = 2, 5, 0.9
    assert stepped_sparsities(final, n)[t - 1] == pytest.approx(
        final + (0 - final) * (1 - t / n) ** 3
    )
