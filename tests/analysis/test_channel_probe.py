import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autocompress.analysis.channel_probe import probe_channels
from autocompress.analysis.probed_model import ProbedModel


def _reach(model, *inputs):
    """Producer -> reached layer -> channel -> input channels that see it."""
    probed = ProbedModel(model.eval(), inputs)
    producers = {
        name: np.arange(dict(model.named_modules())[name].weight.shape[0]) for name in probed.called
    }
    found = {}
    for name, reach in probe_channels(probed, producers).items():
        found[name] = {
            key: {
                int(channel): np.flatnonzero(row).tolist()
                for channel, row in zip(reach.channels, hit, strict=True)
                if row.any()
            }
            for key, hit in reach.hits.items()
            if hit.any()
        }
    return found


class _Two(nn.Module):
    """One convolution, any code, one linear layer."""

    def __init__(self, n_out, n_in, code):
        super().__init__()
        self.first, self.last, self.code = nn.Conv1d(2, n_out, 1), nn.Linear(n_in, 2), code

    def forward(self, x):
        return self.last(self.code(self.first(x)))


def _swap_halves(x):
    a, b = x.mean(2).chunk(2, 1)
    return torch.cat([b, a], 1)


def _gate(x):
    a, b = x.mean(2).chunk(2, 1)
    return F.relu(a) * F.relu(b)


@pytest.mark.parametrize(
    ("n_out", "n_in", "code", "expected"),
    [
        (4, 4, lambda x: F.relu(x).mean(2), lambda c: [c]),
        (4, 12, lambda x: x.flatten(1), lambda c: [3 * c, 3 * c + 1, 3 * c + 2]),
        (4, 4, _swap_halves, lambda c: [(c + 2) % 4]),
        (4, 2, _gate, lambda c: [c % 2]),
        (4, 4, lambda x: x.mean(2).flip(1), lambda c: [3 - c]),
        (4, 5, lambda x: F.pad(x.mean(2), (1, 0)), lambda c: [c + 1]),
        (4, 4, lambda x: x.mean(2).softmax(1), lambda c: [0, 1, 2, 3]),
        (4, 4, lambda x: x.abs().mean(2), lambda c: [c]),
        (4, 8, lambda x: torch.cat([x, x * 0.01], 1).mean(2), lambda c: [c, 4 + c]),
    ],
)
def test_probe_sees_through_any_code(n_out, n_in, code, expected):
    reach = _reach(_Two(n_out, n_in, code), torch.randn(2, 2, 3))
    assert reach["first"] == {("in", "last"): {c: expected(c) for c in range(n_out)}}
    assert reach["last"] == {("output", ""): {0: [0], 1: [0]}}


class _Normed(_Two):
    def __init__(self):
        super().__init__(4, 4, None)
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        return self.last(self.norm(self.first(x).mean(2)))


def test_probe_sees_a_norm_that_mixes():
    reach = _reach(_Normed(), torch.randn(2, 2, 3))
    assert reach["first"] == {("in", "last"): {0: [0, 1, 2, 3]}, ("mixer", "norm"): {0: [0]}}


def test_probe_takes_sequences_first_and_layers_without_examples(zoo):
    net = zoo("bert_like")
    reach = _reach(net.model, *net.inputs)
    assert reach["positions"].keys() == reach["words"].keys()
    assert reach["layers.0.attention.value"] == {
        ("in", "layers.0.output"): {channel: [channel] for channel in range(16)}
    }
    whole_head = {c: list(range(c // 4 * 4, c // 4 * 4 + 4)) for c in range(16)}
    assert reach["layers.0.attention.query"] == {("in", "layers.0.output"): whole_head}


class _Growing(nn.Module):
    """The number of calls is that of the examples."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return torch.stack([self.fc(row) for row in x])


def test_probe_refuses_calls_that_depend_on_the_number_of_examples():
    with pytest.raises(ValueError, match="number of calls"):
        ProbedModel(_Growing(), (torch.randn(4, 3),))


def test_probe_of_a_parameter_finds_what_reads_it(zoo):
    net = zoo("free_parameter")
    probed = ProbedModel(net.model, net.inputs)
    assert probed.free_parameters == ["gain"]
    hits = probed.probe_parameter("gain", 0)
    assert hits["in", "head"].all()
    assert not hits["in", "conv2"].any()
    assert torch.equal(dict(net.model.named_parameters())["gain"], net.model.gain)


def test_probe_is_the_same_twice(zoo):
    net = zoo("inverted_bottleneck")
    assert _reach(net.model, *net.inputs) == _reach(net.model, *net.inputs)
