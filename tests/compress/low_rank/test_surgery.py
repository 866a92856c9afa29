import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from autocompress.analysis.profile import count_macs
from autocompress.compress.low_rank.registry import FACTORIZATIONS, shrinks, why_not_factorize
from autocompress.compress.low_rank.surgery import factorize_layers_
from autocompress.errors import InputError
from autocompress.plan import LayerPlan

LAYERS = {
    "linear": (nn.Linear(24, 20), (3, 24)),
    "linear_without_bias": (nn.Linear(24, 20, bias=False), (3, 5, 24)),
    "pointwise": (nn.Conv2d(24, 20, 1, stride=2, padding=1), (3, 24, 6, 6)),
    "conv": (nn.Conv2d(12, 16, 3, stride=2, padding=1), (3, 12, 7, 7)),
    "uneven": (nn.Conv2d(12, 16, (3, 5), (1, 2), (2, 1), (1, 2)), (3, 12, 9, 14)),
    "dilated": (nn.Conv2d(12, 16, 3, dilation=2, padding="same", bias=False), (3, 12, 7, 7)),
    "reflecting": (nn.Conv2d(12, 16, 3, padding=1, padding_mode="reflect"), (3, 12, 7, 7)),
    "circular": (nn.Conv2d(12, 16, 3, padding="same", padding_mode="circular"), (3, 12, 7, 7)),
    "replicating": (
        nn.Conv2d(12, 16, (3, 5), (1, 2), (2, 1), (1, 2), padding_mode="replicate"),
        (3, 12, 9, 14),
    ),
    "conv1d": (nn.Conv1d(12, 16, 5, stride=3, padding=2), (3, 12, 11)),
    "conv3d": (nn.Conv3d(12, 16, 3, padding=1), (2, 12, 4, 4, 4)),
    "circular3d": (nn.Conv3d(12, 16, 3, padding=1, padding_mode="circular"), (2, 12, 4, 4, 4)),
}
CASES = [
    (method, name)
    for method in sorted(FACTORIZATIONS)
    for name, (layer, _) in sorted(LAYERS.items())
    if not why_not_factorize(
        method,
        "linear" if layer.weight.ndim == 2 else "pointwise" if name == "pointwise" else "conv",
        tuple(layer.weight.shape),
    )
]


def _factorize_(model, name, rank_ratio, method="svd", batches=()):
    """Why a layer was left as it is, or "" if it was replaced."""
    wish = LayerPlan(rank_ratio=rank_ratio, factorization=method)
    return "".join(factorize_layers_(model, {name: wish}, batches))


def _split(method, name, ratio):
    layer, shape = LAYERS[name]
    x = torch.randn(shape)
    model = nn.Sequential(layer)
    moment = None
    if FACTORIZATIONS[method].needs_data:
        outputs = torch.randn(100, len(layer.weight), dtype=torch.float64)
        moment = outputs.T @ outputs
    return layer, FACTORIZATIONS[method].split(model[0], ratio, moment), x


@pytest.mark.parametrize(("method", "name"), CASES)
def test_factors_of_full_rank_compute_what_the_layer_does(method, name):
    layer, factors, x = _split(method, name, 1.0)
    torch.testing.assert_close(factors(x), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("method", "name"), CASES)
def test_factorized_layer_computes_with_one_low_rank_weight(method, name):
    """The factors are a layer of the same geometry whose weight is read off unit impulses."""
    layer, factors, x = _split(method, name, 0.25)
    dense = copy.deepcopy(layer)
    dense.weight = nn.Parameter(_dense_weight(factors, layer))
    torch.testing.assert_close(factors(x), dense(x), rtol=1e-4, atol=1e-5)
    assert (dense.weight - layer.weight).norm() < layer.weight.norm()


@pytest.mark.parametrize(("method", "name"), CASES)
def test_factors_tell_what_the_layer_tells(method, name):
    """Models read the dtype of a weight, and strides to pad by; the numbers must not be used."""
    layer, factors, _ = _split(method, name, 0.25)
    assert factors.weight.shape == layer.weight.shape
    assert factors.weight.dtype == layer.weight.dtype
    assert factors.weight.isnan().all()
    assert (factors.bias is None) == (layer.bias is None)
    for attribute in ("in_features", "out_channels", "stride", "kernel_size", "padding"):
        assert getattr(factors, attribute, None) == getattr(layer, attribute, None)


class _LooksAtItsLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 16, 4, stride=4), nn.Linear(16, 12)

    def forward(self, x):
        x = F.pad(x.to(self.conv.weight.dtype), (0, self.conv.stride[0] - x.shape[3] % 4))
        x = self.conv(x).mean((2, 3))
        assert x.shape[1] == self.head.in_features
        return self.head(x.to(self.head.weight.dtype))


def test_factorized_model_runs_when_it_looks_at_its_layers_weights():
    model, x = _LooksAtItsLayers(), torch.randn(2, 3, 8, 8)
    for name in ("conv", "head"):
        assert _factorize_(model, name, 0.3) == ""
    assert model(x).isfinite().all()
    conv = count_macs(model.conv, (F.pad(x, (0, 4)),))[""]
    head = sum(part.weight.numel() for part in model.head)
    assert count_macs(model, (x,))[""] == conv + head  # looking costs nothing


def _dense_weight(factors, layer):
    parts = [part.weight.detach() for part in factors]
    if layer.weight.ndim == 2:
        return parts[1] @ parts[0]
    weight = parts[0]  # (R, I / groups, *kernel)
    if factors[0].groups > 1:
        weight = torch.zeros(len(weight), layer.in_channels, *weight.shape[2:])
        for r in range(len(weight)):
            weight[r, r // (len(weight) // layer.in_channels)] = parts[0][r, 0]
    for part, module in zip(parts[1:], list(factors)[1:], strict=True):
        if module.groups > 1:
            weight = part * weight  # a kernel per channel over a 1 x 1
        elif weight.shape[2:].numel() == 1 or part.shape[2:].numel() == 1:
            spread = [max(a, b) for a, b in zip(weight.shape[2:], part.shape[2:], strict=True)]
            left = part.expand(*part.shape[:2], *spread)
            weight = torch.einsum("or...,ri...->oi...", left, weight)
        else:
            weight = torch.einsum("orxw,rihx->oihw", part, weight)
    return weight


@pytest.mark.parametrize(("method", "name"), CASES)
@pytest.mark.parametrize("ratio", [0.1, 0.7])
def test_shrinks_says_what_factorize_does(method, name, ratio):
    layer, shape = LAYERS[name]
    model = nn.Sequential(copy.deepcopy(layer))
    reason = _factorize_(model, "0", ratio, method, [(torch.randn(shape),)])
    assert (reason == "") == shrinks(method, tuple(layer.weight.shape), ratio)
    assert (_count(model) < _count(layer)) == (reason == "")
    plain = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    assert all(type(m) in plain for m in model.modules() if not isinstance(m, nn.Sequential))


def _count(module):
    return sum(p.numel() for p in module.parameters())


def test_layer_that_would_grow_stays_and_says_so():
    model = nn.Sequential(nn.Linear(24, 20))
    assert _factorize_(model, "0", 0.99) == (
        "rank_ratio=0.99 of '0' skipped: "
        "factors of its weight (20, 24) would not be smaller than it"
    )
    assert type(model[0]) is nn.Linear


class _Own(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("layer", "method", "reason"),
    [
        (_Own(24, 20), "svd", "it is a _Own, not a plain"),
        (nn.MultiheadAttention(24, 2).out_proj, "svd", "NonDynamicallyQuantizableLinear"),
        (parametrizations.weight_norm(nn.Linear(24, 20)), "svd", "ParametrizedLinear"),
        (nn.Embedding(24, 20, max_norm=1.0), "svd", "max_norm=1"),
        (nn.EmbeddingBag(24, 20), "svd", "it is a EmbeddingBag"),
        (nn.Conv2d(24, 24, 3, groups=2), "svd", "grouped and depthwise"),
        (nn.Linear(24, 20), "cp", "it splits kernels"),
        (
            nn.Linear(2, 8193, device="meta"),
            "data_svd",
            "statistics of its 8193 outputs would take",
        ),
    ],
)
def test_layer_that_cannot_be_split_stays_and_says_why(layer, method, reason):
    model = nn.Sequential(layer)
    assert reason in _factorize_(model, "0", 0.25, method)
    assert model[0] is layer


def test_tied_layer_stays_and_says_why(zoo):
    model = copy.deepcopy(zoo("tied_weights").model)
    assert "its weight is tied to 'head'" in _factorize_(model, "embed", 0.25)
    assert "its weight is tied to 'embed'" in _factorize_(model, "head", 0.25)


def test_model_that_is_one_layer_stays_and_says_why():
    assert "the model is this layer alone" in _factorize_(nn.Linear(24, 20), "", 0.25)


def test_unknown_method_lists_the_choices():
    with pytest.raises(InputError, match="Choose from: channel_svd, cp"):
        _factorize_(nn.Sequential(nn.Linear(24, 20)), "0", 0.25, "sdv")


def test_shared_layer_is_replaced_under_all_its_names(zoo):
    model = copy.deepcopy(zoo("shared_layer").model)
    wishes = {name: LayerPlan(rank_ratio=0.25) for name in ("twice", "alias")}
    assert factorize_layers_(model, wishes) == (
        "rank_ratio=0.25 of 'alias' skipped: it was split already, under another name",
    )
    assert isinstance(model.twice, nn.Sequential)
    assert model.alias is model.twice


@pytest.mark.parametrize("is_training", [True, False])
def test_factors_are_in_the_mode_of_their_layer(is_training):
    model = nn.Sequential(nn.Linear(24, 20)).train(is_training)
    _factorize_(model, "0", 0.2)
    assert all(module.training is is_training for module in model.modules())


def test_factors_of_a_frozen_layer_are_frozen():
    model = nn.Sequential(nn.Linear(24, 20), nn.Linear(20, 20))
    model[0].requires_grad_(False)
    factorize_layers_(model, {name: LayerPlan(rank_ratio=0.2) for name in "01"})
    assert [p.requires_grad for p in model.parameters()] == [False] * 3 + [True] * 3


def test_data_aware_factors_keep_the_outputs_better_than_plain_ones(zoo):
    net = zoo("residual")
    errors = {}
    for method in ("data_svd", "channel_svd"):
        model = copy.deepcopy(net.model)
        assert _factorize_(model, "conv2", 0.5, method, [net.inputs]) == ""
        inputs = {}
        hook = net.model.conv2.register_forward_hook(
            lambda _, args, output, seen=inputs: seen.update(x=args[0], y=output)
        )
        with torch.no_grad():
            net.model(*net.inputs)
            errors[method] = (model.conv2(inputs["x"]) - inputs["y"]).norm()
        hook.remove()
    assert errors["data_svd"] < 0.9 * errors["channel_svd"]


def test_all_layers_that_need_data_share_one_pass(zoo):
    net = zoo("residual")
    model = copy.deepcopy(net.model)
    n_passes = 0

    def batches():
        nonlocal n_passes
        n_passes += 1
        yield net.inputs

    wish = LayerPlan(rank_ratio=0.5, factorization="data_svd")
    wishes = {"conv1": wish, "conv2": wish, "conv3": LayerPlan(rank_ratio=0.5), "stem": LayerPlan()}
    assert factorize_layers_(model, wishes, _OnFirstUse(batches)) == ()
    assert n_passes == 1
    is_split = {name: isinstance(getattr(model, name), nn.Sequential) for name in wishes}
    assert is_split == {"conv1": True, "conv2": True, "conv3": True, "stem": False}


class _OnFirstUse:
    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return self.make()


def test_data_are_not_touched_where_no_method_needs_them():
    def batches():
        raise AssertionError
        yield

    assert _factorize_(nn.Sequential(nn.Linear(24, 20)), "0", 0.25, "svd", batches()) == ""


@pytest.mark.parametrize(
    ("batches", "reason"),
    [
        ([], "the method needs data, and no batch has reached the layer"),
        ([(torch.full((3, 24), torch.nan),)], "its outputs are not all finite"),
    ],
)
def test_data_aware_method_without_usable_data_says_so(batches, reason):
    model = nn.Sequential(nn.Linear(24, 20))
    assert _factorize_(model, "0", 0.25, "data_svd", batches).endswith(reason)
    assert type(model[0]) is nn.Linear


@pytest.fixture
def unfused():
    """torch's fused encoder kernel reads weights past the forward; candidates run without it."""
    was_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(was_fused)


def test_every_layer_of_every_family_is_split_or_says_why(zoo_net, unfused):
    """What comes out runs, has the old shape, and fewer weights if any layer was split."""
    layers = [layer for layer in zoo_net.profile.layers if not layer.refusals.get("rank_ratio")]
    with torch.no_grad():
        expected = zoo_net.model(*zoo_net.inputs)
    for method in FACTORIZATIONS:
        model = copy.deepcopy(zoo_net.model)
        wishes = {la.name: LayerPlan(rank_ratio=0.2, factorization=method) for la in layers}
        reasons = factorize_layers_(model, wishes, [zoo_net.inputs])
        with torch.no_grad():
            outputs = model(*zoo_net.inputs)
        assert outputs.shape == expected.shape
        assert outputs.isfinite().all()
        assert (_count(model) < _count(zoo_net.model)) == (len(reasons) < len(wishes))
