import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autocompress.compress import input_moments
from autocompress.compress.input_moments import (
    input_second_moments,
    moment_bytes,
    watch_layers,
    why_no_moment,
    windows,
)
from autocompress.errors import InputError

LAYERS = {
    "linear": (nn.Linear(6, 4), (5, 3, 6)),
    "conv1d": (nn.Conv1d(6, 4, 3, stride=2, padding=2, dilation=2), (5, 6, 9)),
    "conv2d": (nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2)), (5, 6, 8, 7)),
    "same": (nn.Conv2d(6, 4, (5, 3), padding="same"), (5, 6, 8, 7)),
    "reflecting": (nn.Conv2d(6, 4, 3, padding=2, padding_mode="reflect"), (5, 6, 8, 7)),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2), (5, 6, 8, 7)),
    "depthwise": (nn.Conv2d(6, 12, 3, groups=6), (5, 6, 8, 7)),
    "conv3d": (nn.Conv3d(6, 4, 2, padding=1), (2, 6, 3, 4, 3)),
    "unbatched": (nn.Conv2d(6, 4, 3), (6, 8, 7)),
}


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_weight_times_windows_is_what_the_layer_computes(name):
    layer, shape = LAYERS[name]
    x = torch.randn(shape)
    columns = windows(layer, x)  # (G, n, L)
    per_group = layer.weight.reshape(len(columns), -1, columns.shape[1])
    products = (per_group @ columns).flatten(0, 1)  # (O, L)
    bias = 0 if layer.bias is None else layer.bias[:, None]
    y = layer(x)
    expected = y.flatten(0, -2).T if name == "linear" else y.movedim(-layer.weight.ndim + 1, 0)
    torch.testing.assert_close(products + bias, expected.flatten(1), rtol=1e-4, atol=1e-5)


def test_windows_are_those_of_unfold():
    layer, x = nn.Conv2d(6, 4, 3, stride=2, padding=1), torch.randn(5, 6, 8, 7)
    expected = F.unfold(x, 3, stride=2, padding=1).movedim(1, 0).flatten(1)
    assert torch.equal(windows(layer, x)[0], expected)


@pytest.mark.parametrize(
    "name", ["conv1d", "conv2d", "reflecting", "grouped", "conv3d", "unbatched"]
)
def test_windows_at_chosen_positions_are_columns_of_all_of_them(name):
    layer, shape = LAYERS[name]
    x = torch.randn(shape)
    n_examples = shape[0] if len(shape) == layer.weight.ndim else 1
    every = windows(layer, x)
    by_example = every.reshape(*every.shape[:2], n_examples, -1)
    positions = torch.tensor([by_example.shape[-1] - 1, 0, 2])
    expected = by_example[..., positions].flatten(2)
    assert torch.equal(windows(layer, x, positions), expected)


def test_a_part_of_the_windows_tells_nearly_as_much_as_all(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 3, 3, padding=1))
    smooth = F.avg_pool2d(torch.randn(8, 4, 44, 44), 5, stride=1)
    batches = [(part,) for part in smooth.split(4)]
    looked_at = []
    monkeypatch.setattr(
        input_moments, "windows", lambda *args: looked_at.append(windows(*args)) or looked_at[-1]
    )
    part = input_second_moments(model, ["0"], batches)["0"]
    assert [columns.shape[-1] for columns in looked_at] == [4096, 4096]  # of 4 x 1600
    monkeypatch.setattr(input_moments, "_LEAST_WINDOWS", 10**9)
    whole = input_second_moments(model, ["0"], batches)["0"]
    assert 0.0 < float((part - whole).norm() / whole.norm()) < 0.05


def test_moments_average_over_positions_of_all_batches():
    model = nn.Sequential(nn.Linear(6, 4)).double()
    batches = [(torch.randn(n, 3, 6, dtype=torch.float64),) for n in (5, 2)]
    X = torch.cat([x.flatten(0, 1) for (x,) in batches])
    moments = input_second_moments(model, ["0"], iter(batches))
    torch.testing.assert_close(moments["0"], X.T @ X / 21)


@pytest.mark.parametrize(("groups", "shape"), [(1, (54, 54)), (2, (2, 27, 27)), (6, (6, 9, 9))])
def test_moments_have_one_matrix_per_group_in_float64(groups, shape):
    model = nn.Sequential(nn.Conv2d(6, 12, 3, groups=groups))
    moment = input_second_moments(model, ["0"], [(torch.randn(2, 6, 5, 5),)])["0"]
    assert moment.shape == shape
    assert moment.dtype == torch.float64


def test_moments_do_not_depend_on_how_many_windows_fit_in_memory(monkeypatch):
    model = nn.Sequential(nn.Conv2d(6, 4, 3)).double()
    batches = [(torch.randn(5, 6, 8, 8, dtype=torch.float64),)]
    at_once = input_second_moments(model, ["0"], batches)["0"]
    monkeypatch.setattr(input_moments, "_WINDOW_BYTES", 1)
    torch.testing.assert_close(input_second_moments(model, ["0"], batches)["0"], at_once)


def test_half_precision_inputs_are_summed_in_single():
    model = nn.Sequential(nn.Linear(6, 4)).bfloat16()
    x = torch.randn(3000, 6).bfloat16()
    expected = x.double().T @ x.double() / 3000
    moment = input_second_moments(model, ["0"], [(x,)])["0"]
    torch.testing.assert_close(moment, expected, rtol=1e-4, atol=1e-5)


def test_layer_called_twice_under_two_names_counts_every_call(zoo):
    net = zoo("shared_layer")
    moments = input_second_moments(net.model, ["twice", "alias"], [net.inputs])
    seen = []
    watch_layers(net.model, {net.model.twice: lambda *call: seen.append(call[1])}, [net.inputs])
    columns = torch.cat([windows(net.model.twice, x) for x in seen], dim=2).double()
    assert len(seen) == 2
    torch.testing.assert_close(moments["twice"], (columns @ columns.mT)[0] / columns.shape[2])
    assert torch.equal(moments["twice"], moments["alias"])


def test_layer_that_is_not_called_is_missing():
    assert input_second_moments(nn.Sequential(nn.Linear(6, 4)), ["0"], []) == {}


@pytest.mark.parametrize("layer", [nn.LSTM(6, 4), nn.MultiheadAttention(4, 2).out_proj])
def test_other_layers_are_refused(layer):
    with pytest.raises(InputError, match=f"but '0' is a {type(layer).__name__}"):
        input_second_moments(nn.Sequential(layer), ["0"], [])


def test_watching_leaves_the_model_as_it_was(zoo, model_hash):
    model = copy.deepcopy(zoo("encoder").model).train()
    model.head.eval()
    before = model_hash(model), [module.training for module in model.modules()]
    seen = []

    def watcher(layer, x, output):
        assert not model.training
        seen.append((layer, x.shape, output.shape))

    linear = model.encoder.layers[0].linear1
    watch_layers(model, {linear: watcher}, [zoo("encoder").inputs])
    assert seen == [(linear, (4, 6, 12), (4, 6, 24))]
    assert before == (model_hash(model), [module.training for module in model.modules()])
    assert not any(module._forward_hooks for module in model.modules())


def test_watching_runs_a_model_that_torch_could_not_fuse(zoo):
    """The fused kernel wants `linear1.weight`, which factors in its place do not have."""
    model = copy.deepcopy(zoo("encoder").model)
    layer = model.encoder.layers[0]
    layer.linear1 = nn.Sequential(nn.Linear(12, 2), nn.Linear(2, 24))
    assert input_second_moments(model, ["head"], [zoo("encoder").inputs]).keys() == {"head"}


def test_watching_cleans_up_when_the_model_fails():
    model = nn.Sequential(nn.Linear(6, 4)).train()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        input_second_moments(model, ["0"], [(torch.randn(3, 5),)])
    assert model.training
    assert not model[0]._forward_hooks


class _ByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x):
        return self.linear(input=x)


def test_inputs_given_by_keyword_are_seen():
    assert input_second_moments(_ByKeyword(), ["linear"], [(torch.randn(3, 6),)]).keys() == {
        "linear"
    }


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_moment_bytes_is_what_a_moment_takes(groups):
    model = nn.Sequential(nn.Conv2d(6, 12, 3, groups=groups))
    moment = input_second_moments(model, ["0"], [(torch.randn(2, 6, 5, 5),)])["0"]
    assert moment_bytes(model[0].weight[0].numel(), groups) == moment.nbytes


def test_moments_of_more_than_8192_values_are_not_gathered():
    assert why_no_moment(8192, "inputs") == ""
    assert why_no_moment(25088, "inputs") == (
        "statistics of its 25088 inputs would take 4.7 GiB of memory, and 0.5 is the most"
    )
    assert why_no_moment(4096, "inputs", n_groups=4) == ""
    assert "take 0.6 GiB" in why_no_moment(4096, "inputs", n_groups=5)
