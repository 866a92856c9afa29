import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autocompress.analysis.pass_through import PassThrough
from autocompress.analysis.residual_blocks import find_residual_blocks
from autocompress.tasks.digits import ResidualCnn


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("plain", ()),
        ("unet", ()),
        ("encoder", ("encoder.layers.0",)),
        ("explicit_encoder", ("encoder.layers.0",)),
        ("bert_like", ("layers.0", "layers.1")),
        ("vit_like", ("blocks.0", "blocks.1")),
        ("gpt_like", ("blocks.0", "blocks.1")),
        ("depthwise_separable", ("blocks.0", "blocks.1")),
    ],
)
def test_blocks_of_known_nets(zoo, name, blocks):
    assert zoo(name).profile.blocks == blocks
    assert zoo(name).profile.refused_blocks == {}


def test_blocks_that_change_the_shape_are_refused():
    model = ResidualCnn((4, 8, 8))
    blocks, refused = find_residual_blocks(model, (torch.randn(2, 1, 8, 8),))
    assert blocks == ("stage1",)
    assert refused == {
        "stage2": "it turns an input of shape (4, 8, 8) into one of shape (8, 4, 4)",
        "stage3": "it turns an input of shape (8, 4, 4) into one of shape (8, 2, 2)",
    }


class _Step(nn.Module):
    """Input plus something, in one of several ways."""

    def __init__(self, way):
        super().__init__()
        self.fc, self.other, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4)
        self.way = way

    def forward(self, x, *rest):
        y = F.relu(self.fc(x))
        return {
            "pre": lambda: x + self.fc(self.norm(x)),
            "post": lambda: self.norm(x + y),
            "relu": lambda: F.relu(y + x),
            "twice": lambda: x + y + self.other(x),
            "minus": lambda: x - y,
            "in_place": lambda: self.fc(x.clone()).add_(x),
            "projected": lambda: y + self.other(x),
            "plain": lambda: y,
            "gated": lambda: x * y,
            "pair": lambda: (x + y, y),
        }[self.way]()


class _Net(nn.Module):
    def __init__(self, *steps, n_rounds=1):
        super().__init__()
        self.stem, self.steps, self.head = nn.Linear(3, 4), nn.ModuleList(steps), nn.Linear(4, 2)
        self.n_rounds = n_rounds

    def forward(self, x):
        x = self.stem(x)
        for step in [*self.steps] * self.n_rounds:
            x = step(x, None)
            x = x[0] if isinstance(x, tuple) else x
        return self.head(x)


@pytest.mark.parametrize("way", ["pre", "post", "relu", "twice", "minus", "in_place"])
def test_block_is_found_however_it_adds(way):
    blocks, refused = find_residual_blocks(_Net(_Step(way)), (torch.randn(2, 3),))
    assert (blocks, refused) == (("steps.0",), {})


@pytest.mark.parametrize("way", ["plain", "gated", "pair"])
def test_module_that_does_not_add_its_input_is_not_mentioned(way):
    assert find_residual_blocks(_Net(_Step(way)), (torch.randn(2, 3),)) == ((), {})


def test_block_that_adds_to_something_else_is_refused():
    _, refused = find_residual_blocks(_Net(_Step("projected")), (torch.randn(2, 3),))
    assert refused == {"steps.0": "what it adds to is not its input itself"}


def test_block_that_is_called_twice_is_refused():
    _, refused = find_residual_blocks(_Net(_Step("pre"), n_rounds=2), (torch.randn(2, 3),))
    assert refused == {"steps.0": "it is called 2 times"}


class _Wrapped(nn.Module):
    def __init__(self, inner, adds):
        super().__init__()
        self.inner, self.adds = inner, adds

    def forward(self, x, *rest):
        return x + self.inner(x) if self.adds else self.inner(x)


def test_holder_of_blocks_is_not_one():
    inside = nn.Sequential(_Step("pre"), _Step("post"))
    blocks, refused = find_residual_blocks(_Net(_Wrapped(inside, False)), (torch.randn(2, 3),))
    assert (blocks, refused) == (("steps.0.inner.0", "steps.0.inner.1"), {})


def test_holder_of_refused_blocks_is_not_mentioned():
    inside = nn.Sequential(_Step("projected"))
    blocks, refused = find_residual_blocks(_Net(_Wrapped(inside, False)), (torch.randn(2, 3),))
    assert (blocks, list(refused)) == ((), ["steps.0.inner.0"])


def test_block_that_adds_by_itself_is_one_beside_the_blocks_inside():
    blocks, _ = find_residual_blocks(_Net(_Wrapped(_Step("pre"), True)), (torch.randn(2, 3),))
    assert blocks == ("steps.0", "steps.0.inner")


class _Peeking(_Net):
    def forward(self, x):
        return super().forward(x) * self.steps[0].fc.out_features


def test_block_that_the_model_looks_into_is_refused():
    _, refused = find_residual_blocks(_Peeking(_Step("pre")), (torch.randn(2, 3),))
    assert "the model does not run without it: 'PassThrough'" in refused["steps.0"]


def test_find_residual_blocks_changes_nothing(zoo, model_hash):
    net = zoo("bert_like")
    model = copy.deepcopy(net.model).requires_grad_(False).train()
    before = model_hash(model)
    assert find_residual_blocks(model, net.inputs)[0] == ("layers.0", "layers.1")
    assert model_hash(model) == before
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert not any(isinstance(module, PassThrough) for module in model.modules())
