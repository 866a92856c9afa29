import copy

import pytest
import torch
from torch import nn

from autocompress.train.activations import Tap, catching, trace_calls


def _calls(model, *inputs):
    return {call.name: call for call in trace_calls(model, inputs)}


def test_calls_come_in_the_order_they_finish():
    model = nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.ReLU(), nn.Linear(5, 3)))
    assert list(_calls(model, torch.randn(2, 4))) == ["0", "1.0", "1.1", "1"]


def test_calls_know_shapes_and_weights():
    calls = _calls(nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU()), torch.randn(2, 3, 8, 8))
    assert calls["0"].has_weight
    assert not calls["1"].has_weight
    assert calls["0"].input_shape == (2, 3, 8, 8)
    assert calls["1"].output_shape == (2, 5, 6, 6)
    assert calls["0"].n_positions == 36


def test_calls_know_where_channels_lie():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv1d(3, 5, 1), nn.ReLU()
            self.fc, self.act2 = nn.Linear(5, 7), nn.ReLU()

        def forward(self, x):
            return self.act2(self.fc(self.act(self.conv(x)).transpose(1, 2)))

    calls = _calls(Mixed(), torch.randn(2, 3, 8))
    assert [calls[name].channel_dim for name in ("conv", "act", "fc", "act2")] == [1, 1, -1, -1]
    assert [calls[name].n_positions for name in ("conv", "fc")] == [8, 8]


def test_a_second_call_counts_as_the_last():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.act = nn.Linear(4, 4), nn.ReLU()

        def forward(self, x):
            return self.fc(self.act(self.fc(x)))

    assert list(_calls(Twice(), torch.randn(2, 4))) == ["act", "fc"]


def test_calls_take_tuples_keywords_and_indices():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.rnn = nn.Embedding(7, 4), nn.GRU(4, 5, batch_first=True)
            self.head = nn.Linear(5, 3)

        def forward(self, tokens):
            return self.head(input=self.rnn(self.embed(tokens))[0])

    calls = _calls(Text(), torch.randint(0, 7, (2, 6)))
    assert calls["embed"].input_shape == ()
    assert calls["rnn"].output_shape == (2, 6, 5)
    assert calls["head"].input_shape == (2, 6, 5)


def test_tracing_sees_the_layers_of_an_encoder(zoo):
    net = zoo("encoder")
    names = {call.name for call in trace_calls(net.model, net.inputs)}
    assert {"encoder.layers.0.linear1", "encoder.layers.0.linear2"} <= names


def test_tracing_changes_nothing(zoo_net, model_hash):
    model = copy.deepcopy(zoo_net.model).train()
    next(model.children()).eval()
    modes = [module.training for module in model.modules()]
    before, state = model_hash(model), torch.get_rng_state()
    trace_calls(model, zoo_net.inputs)
    assert model_hash(model) == before
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())


def test_tracing_a_model_that_fails_leaves_no_hooks():
    model = nn.Sequential(nn.Linear(4, 3)).train()
    with pytest.raises(RuntimeError):
        trace_calls(model, (torch.randn(2, 5),))
    assert model.training
    assert not model[0]._forward_hooks


def test_catching_gives_the_latest_activations():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    taps = (
        Tap(name="2", side="input", channel_dim=-1),
        Tap(name="0", side="output", channel_dim=-1),
    )
    with catching(model, taps) as caught:
        for _ in range(2):
            x = torch.randn(2, 4)
            model(x)
            wanted = x @ model[0].weight.T + model[0].bias
            torch.testing.assert_close(caught[taps[0]], wanted.tanh())
            torch.testing.assert_close(caught[taps[1]], wanted)
            assert caught[taps[1]].requires_grad
    assert not caught
    assert not any(module._forward_hooks for module in model.modules())
