import numpy as np
import pytest
import torch
from torch import nn

from autocompress.export.loading.marks import mark_


def values_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def test_every_element_of_a_model_gets_another_number():
    model = nn.Sequential(nn.Linear(70, 80), nn.BatchNorm1d(80), nn.LSTM(80, 20))
    marks = mark_(model)
    state = [v for v in model.state_dict().values() if v.is_floating_point()]
    numbers = np.concatenate([marks.elements(values_of(v)).reshape(-1) for v in state])
    assert len(numbers) == marks.n_elements > 4096
    assert len(np.unique(numbers)) == len(numbers)
    assert (numbers.min(), numbers.max()) == (0, len(numbers) - 1)


def test_marks_say_where_they_are_from_when_moved():
    model = nn.Sequential(nn.Linear(3, 4), nn.Conv2d(4, 5, 3))
    marks = mark_(model)
    moved = values_of(model[1].weight).transpose(3, 1, 0, 2)[:, ::-1]
    elements = marks.elements(moved)
    slot = marks.slot_of(int(elements.flat[0]))
    assert slot.path == "1.weight"
    places = np.arange(5 * 4 * 3 * 3).reshape(5, 4, 3, 3).transpose(3, 1, 0, 2)[:, ::-1]
    assert np.array_equal(elements, slot.start + places)


@pytest.mark.parametrize(
    "constant", [0.0, 1.0, -1.0, -1.25, -1.5, -2.0, -65504.0, float("-inf"), float("nan")]
)
def test_plain_constants_are_no_marks(constant):
    marks = mark_(nn.Linear(1000, 1000))
    assert marks.elements(np.array([constant], np.float32)) is None


def test_numbers_computed_from_marks_are_none():
    model = nn.Linear(3, 4)
    marks = mark_(model)
    assert marks.elements(values_of(model.weight)) is not None
    assert marks.elements(values_of(model.weight) * 0.5) is None
    assert marks.elements(np.arange(3)) is None
    assert marks.elements(np.empty(0, np.float32)) is None


def test_owners_of_a_shared_parameter_are_told_apart():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    marks = mark_(model)
    paths = [
        marks.slot_of(int(marks.elements(values_of(layer.weight)).flat[0])).path for layer in model
    ]
    assert paths == ["0.weight", "1.weight"]


def test_slots_without_elements_are_passed_over():
    model = nn.Sequential(nn.Linear(3, 2), nn.PReLU(), nn.Linear(2, 2))
    model[1].weight = nn.Parameter(torch.empty(0))
    marks = mark_(model)
    assert marks.slot_of(3 * 2 + 2).path == "2.weight"
