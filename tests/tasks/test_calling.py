import copy

import pytest
import torch
from torch import nn

from autocompress.errors import InputError
from autocompress.tasks.base import Task, TensorData
from autocompress.tasks.calling import adapt_call, part_of
from autocompress.tasks.prepare import prepare_task


class Named(nn.Module):
    """Takes two named inputs and returns a mapping, as many models of libraries do."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, *, a, b, scale=1.0):
        return {"loss": None, "logits": self.left(a) + self.right(b) * scale, "hidden": a}


A, B, Y = torch.randn(20, 4), torch.randn(20, 2), torch.arange(20) % 3


def _task(**changes):
    data = TensorData({"a": A, "b": B}, Y)
    return Task(**{"model": Named(), "train": data, "output": "logits", **changes})


def test_inputs_with_names_reach_the_model_by_name():
    prepared = prepare_task(_task(val=TensorData({"b": B[:5], "a": A[:5]}, Y[:5])))
    inputs, _ = prepared.val.batch(slice(0, 2))
    assert [tuple(tensor.shape) for tensor in inputs] == [(2, 4), (2, 2)]
    model = prepared.task.model
    want = model.left(inputs[0]) + model.right(inputs[1])
    torch.testing.assert_close(model(*inputs), want)
    torch.testing.assert_close(copy.deepcopy(model)(*inputs), want)


def test_adapting_leaves_the_users_model_as_it_is():
    model = Named()
    prepare_task(_task(model=model))
    assert set(model(a=A, b=B)) == {"loss", "logits", "hidden"}
    assert adapt_call(model, None, None) is model


def test_rows_may_be_mappings():
    rows = [({"a": A[i].numpy(), "b": B[i].numpy()}, int(Y[i])) for i in range(20)]
    prepared = prepare_task(_task(train=rows, val=rows[:4]))
    assert [tuple(tensor.shape) for tensor in prepared.train.inputs] == [(20, 4), (20, 2)]


def test_a_teacher_is_called_as_the_model_is():
    prepared = prepare_task(_task(teacher=Named()))
    (teacher,) = prepared.teachers
    assert teacher(*prepared.example_inputs).shape == (2, 3)


@pytest.mark.parametrize(
    ("result", "output"),
    [
        ((torch.zeros(1), torch.ones(2)), 1),
        ({"x": torch.zeros(1), "y": torch.ones(2)}, "y"),
        ({"x": torch.zeros(1), "y": torch.ones(2)}, -1),
        ([torch.ones(1), torch.ones(1)], torch.cat),
    ],
)
def test_the_judged_part_is_found(result, output):
    assert part_of(result, output).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("result", "output", "message"),
    [
        ({"logits": A}, "logit", "Unknown Task.output 'logit'. Did you mean 'logits'?"),
        ((A, A), 2, "`Task.output` is 2, but the model returned tuple of 2."),
        (A, "logits", "`Task.output` is 'logits', but the model returned a tensor of shape"),
        ({"hidden": (A, A)}, "hidden", "must lead to one tensor, but leads to tuple of 2"),
    ],
)
def test_a_part_that_is_not_there_is_named(result, output, message):
    with pytest.raises(InputError) as caught:
        part_of(result, output)
    assert message in str(caught.value)


def test_a_model_with_several_outputs_asks_for_the_one_that_is_judged():
    with pytest.raises(InputError) as caught:
        prepare_task(_task(output=None))
    assert "but returned dict with 'loss', 'logits', 'hidden'" in caught.value.message
    assert "`Task.output`" in caught.value.hint


def test_other_splits_must_name_their_inputs_alike():
    with pytest.raises(InputError, match=r"named as those of train, \(a, b\), but are \(a, c\)"):
        prepare_task(_task(val=TensorData({"a": A, "c": B}, Y)))
    with pytest.raises(InputError, match=r"but are not named"):
        prepare_task(_task(val=TensorData((A, B), Y)))
