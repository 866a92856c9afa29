import copy

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compress.input_quantizer import InputQuantizer
from autocompress.errors import InputError
from autocompress.export.loading.contents import Contents, LayerChange
from autocompress.export.loading.marks import Marks, mark_
from autocompress.export.loading.rebuild import refill_


def marked(model: nn.Module) -> Marks:
    return mark_(copy.deepcopy(model))


def contents(marks: Marks, **changes) -> Contents:
    """Element i has the value i."""
    defaults = {
        "values": np.arange(marks.n_elements, dtype=np.float32),
        "is_known": np.ones(marks.n_elements, np.bool_),
        "layers": {},
        "folded_norms": frozenset(),
    }
    return Contents(**{**defaults, **changes})


def test_refill_writes_every_element_in_place():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    parameters = list(model.parameters())
    refill_(model, marked(model), contents(marked(model)))
    flat = torch.cat([v.flatten() for v in model.state_dict().values() if v.is_floating_point()])
    assert flat.tolist() == list(range(6 + 3 + 4 * 3))
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))


def tied() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    return model


def test_refill_keeps_a_tie_where_values_agree_as_far_as_known():
    model = tied()
    values = np.array([1, 2, np.nan, 4, 1, 2, 3, 4], np.float32)
    refill_(
        model, marked(model), contents(marked(model), values=values, is_known=~np.isnan(values))
    )
    assert model[0].weight is model[1].weight
    assert model[0].weight.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_refill_parts_a_tie_where_values_differ():
    model = tied()
    refill_(model, marked(model), contents(marked(model)))
    assert [layer.weight.flatten().tolist() for layer in model] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_refill_folds_norms_and_sets_grids():
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2))
    change = LayerChange(bias=np.array([5.0, 6.0], np.float32), grid=(0.25, 7))
    changed = contents(marked(model), layers={"0": change}, folded_norms=frozenset({"1"}))
    refill_(model, marked(model), changed)
    assert isinstance(model[1], nn.Identity)
    assert not model[1].training
    assert model[0].bias.tolist() == [5.0, 6.0]
    grid = model[0].input_quantizer
    assert isinstance(grid, InputQuantizer)
    assert (grid.freeze().scale, grid.freeze().zero_point) == (0.25, 7)
    out = model(torch.full((1, 1, 1, 1), -1e9))  # saturates at -7 steps
    assert out.flatten().tolist() == [5.0, 6.0 - 7 * 0.25]


def test_refill_refuses_a_bias_for_a_layer_that_takes_none():
    model = nn.Sequential(nn.PReLU(2))
    change = LayerChange(bias=np.zeros(2, np.float32), grid=None)
    with pytest.raises(InputError, match=r"'0' has a bias .* but a PReLU cannot have one"):
        refill_(model, marked(model), contents(marked(model), layers={"0": change}))
