import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autocompress.analysis.channel_groups import cut_channels_, find_channel_groups
from autocompress.errors import InputError
from autocompress.tasks.base import Task
from autocompress.tasks.frozen import LayerChannels, check_channels
from autocompress.tasks.prepare import prepare_task

CHANNELS = LayerChannels(
    out={"weight": 0, "gain": 1},
    into={"weight": 1},
    attributes={"n_out": "out", "n_in": "into"},
)


class GainedConv(nn.Module):
    """A convolution that no library knows: each output channel has a gain of its own."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.n_in, self.n_out = n_in, n_out
        self.weight = nn.Parameter(torch.randn(n_out, n_in, 3, 3) / 5)
        self.gain = nn.Parameter(torch.rand(1, n_out, 1, 1) + 0.5)

    def forward(self, x):
        assert x.shape[1] == self.n_in
        return F.conv2d(x, self.weight, padding=1) * self.gain


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = GainedConv(3, 8), nn.BatchNorm2d(8)
        self.second, self.fc = GainedConv(8, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = F.relu(self.second(F.relu(self.norm(self.first(x)))))
        return self.fc(x.mean((2, 3)))


def _task(**changes):
    images, labels = torch.randn(20, 3, 8, 8), torch.arange(20) % 2
    return Task(model=Net(), train=(images, labels), **changes)


def test_layers_of_ones_own_are_pruned_where_the_task_declares_their_channels():
    prepared = prepare_task(_task(channels={GainedConv: CHANNELS}))
    model, inputs = prepared.task.model.eval(), prepared.example_inputs
    groups, refused = find_channel_groups(model, inputs)
    assert [(g.name, g.n_channels) for g in groups] == [("first", 8), ("second", 6)]
    assert set(refused) == {"fc"}  # the outputs
    cut = Net()
    cut.load_state_dict(model.state_dict())
    for module in cut.modules():
        if isinstance(module, GainedConv):
            module.autocompress_channels = CHANNELS
    cut_channels_(cut.eval(), [(groups[0], torch.tensor([1, 4]).numpy())])
    assert (cut.first.n_out, cut.second.n_in, cut.norm.num_features) == (6, 6, 6)
    assert cut.first.gain.shape == (1, 6, 1, 1)
    model.second.weight.data[:, [1, 4]] = 0.0
    torch.testing.assert_close(cut(*inputs), model(*inputs))


def test_without_a_declaration_such_layers_have_no_groups():
    prepared = prepare_task(_task())
    groups, _ = find_channel_groups(prepared.task.model, prepared.example_inputs)
    assert groups == ()


def test_a_class_may_declare_its_channels_itself(monkeypatch):
    monkeypatch.setattr(GainedConv, "autocompress_channels", CHANNELS, raising=False)
    prepared = prepare_task(_task())
    groups, _ = find_channel_groups(prepared.task.model, prepared.example_inputs)
    assert [g.name for g in groups] == ["first", "second"]


def test_a_declared_class_must_be_in_the_model():
    with pytest.raises(InputError, match="it has no Conv2d"):
        prepare_task(_task(channels={nn.Conv2d: CHANNELS}))


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (LayerChannels(out={"kernel": 0}, into={"weight": 1}), "it has no 'kernel'"),
        (LayerChannels(out={"weight": 4}, into={"weight": 1}), "in [0, 3], but gives 4"),
        (LayerChannels(out={"weight": 0}, into={}), "at least one tensor for 'into'"),
        (
            LayerChannels(out={"weight": 0, "gain": 0}, into={"weight": 1}),
            "equally many channels for 'out', but they hold {'weight': 4, 'gain': 1}",
        ),
        (
            LayerChannels(out={"weight": 0}, into={"weight": 1}, attributes={"n_out": "output"}),
            "maps 'n_out' to 'output'",
        ),
    ],
)
def test_a_declaration_must_fit_its_layer(channels, message):
    layer = GainedConv(3, 4)
    layer.autocompress_channels = channels
    with pytest.raises(InputError) as caught:
        check_channels("stem", layer)
    assert message in caught.value.message
    assert "GainedConv 'stem'" in caught.value.message
