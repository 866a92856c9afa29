import copy

import pytest
import torch
from torch import nn

from autocompress.errors import InputError
from autocompress.tasks.base import Task, TensorData
from autocompress.tasks.prepare import prepare_task

INPUTS, TARGETS = torch.randn(20, 4), torch.arange(20) % 3


def _prepare(**changes):
    return prepare_task(Task(**{"model": nn.Linear(4, 3), "train": (INPUTS, TARGETS), **changes}))


def _refusal(**changes):
    with pytest.raises(InputError) as caught:
        _prepare(**changes)
    return caught.value.message


def test_a_task_needs_none_of_them():
    prepared = _prepare()
    assert prepared.teachers == ()
    assert prepared.unlabelled is None
    assert prepared.task.initial_state is None


def test_teachers_are_a_tuple_however_they_are_given():
    first, second = nn.Linear(4, 3), nn.Linear(4, 3)
    assert _prepare(teacher=first).teachers == (first,)
    assert _prepare(teacher=(first, second)).teachers == (first, second)
    assert _prepare(teacher=[first]).teachers == (first,)


@pytest.mark.parametrize("teacher", ["large", (nn.Linear(4, 3), "large")])
def test_a_teacher_must_be_a_module(teacher):
    assert "must be a torch.nn.Module or a tuple of them, but got str." in _refusal(teacher=teacher)


def test_an_ensemble_must_have_members():
    assert "must hold at least one model" in _refusal(teacher=())


def test_a_teachers_outputs_must_have_the_models_shape():
    assert _refusal(teacher=nn.Linear(4, 5)) == (
        "`Task.teacher` must return outputs of the model's shape (2, 3), but returned (2, 5)."
    )
    assert _refusal(teacher=(nn.Linear(4, 3), nn.Linear(4, 5))).startswith("`Task.teacher[1]` must")


class _Pair(nn.Module):
    def forward(self, x):
        return x, x


def test_a_teacher_must_return_one_tensor():
    assert _refusal(teacher=_Pair()).endswith("shape (2, 3), but returned tuple.")


def test_a_teacher_must_run_on_the_models_inputs():
    message = _refusal(teacher=nn.Linear(5, 3))
    assert message.startswith("`Task.teacher` must run on a batch of the training data, but raised")
    assert "\n" not in message


def test_a_teacher_keeps_the_modes_of_its_modules():
    teacher = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    teacher[1].eval()
    before = copy.deepcopy(teacher.state_dict())
    _prepare(teacher=teacher)
    assert teacher.training
    assert not teacher[1].training
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_unlabelled_inputs_are_a_tuple_however_they_are_given():
    more = torch.randn(7, 4)
    assert _prepare(unlabelled=more).unlabelled == (more,)
    assert _prepare(unlabelled=(more,)).unlabelled == (more,)


@pytest.mark.parametrize(
    ("unlabelled", "message"),
    [
        (torch.randn(7, 5), "inputs of the train split, (N×4 float32), but got (N×5 float32)."),
        (
            torch.zeros(7, 4, dtype=torch.uint8),
            "inputs of the train split, (N×4 float32), but got (N×4 uint8).",
        ),
        (
            (torch.randn(7, 4), torch.randn(7, 4)),
            "inputs of the train split, (N×4 float32), but got (N×4 float32, N×4 float32).",
        ),
        ((), "inputs of the train split, (N×4 float32), but got ()."),
        (torch.randn(0, 4), "must be equally long and not empty, but got lengths [0]."),
        ([[1.0]], "must hold tensors of shape (N, ...), but got list."),
        (torch.tensor(1.0), "must hold tensors of shape (N, ...), but got a single number."),
    ],
)
def test_unlabelled_inputs_must_be_like_those_of_train(unlabelled, message):
    assert _refusal(unlabelled=unlabelled).endswith(message)


class _Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, a, b):
        return self.fc(a + b)


def test_unlabelled_inputs_must_be_equally_long():
    train = TensorData((INPUTS, INPUTS), TARGETS)
    unlabelled = (torch.randn(7, 4), torch.randn(6, 4))
    message = _refusal(model=_Sum(), train=train, unlabelled=unlabelled)
    assert message.endswith("must be equally long and not empty, but got lengths [7, 6].")


def test_unlabelled_inputs_need_distillation():
    message = _refusal(unlabelled=torch.randn(7, 4), distill="none")
    assert message.startswith("`Task.unlabelled` needs distillation")


def test_an_initial_state_is_taken_as_it_is():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    full = copy.deepcopy(model.state_dict())
    parameters_only = {name: p.detach().clone() for name, p in model.named_parameters()}
    for state in (full, parameters_only):
        taken = _prepare(model=model, initial_state=state).task.initial_state
        assert taken.keys() == full.keys()
        assert all(torch.equal(taken[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wieght": torch.zeros(3, 4)}, "a state of `Task.model`, which has no 'wieght'."),
        ({"weight": None}, "'weight' of `Task.initial_state` must be a tensor of shape (3, 4), "
         "but got NoneType."),
        ({"weight": torch.zeros(3, 5)}, "must be a tensor of shape (3, 4), but got (3, 5)."),
    ],
)  # fmt: skip
def test_an_initial_state_must_fit_the_model(change, message):
    state = {"weight": torch.zeros(3, 4), "bias": torch.zeros(3), **change}
    assert _refusal(initial_state=state).endswith(message)


def test_an_initial_state_must_hold_every_parameter():
    message = _refusal(initial_state={"weight": torch.zeros(3, 4)})
    assert message.endswith("every parameter of `Task.model`, but has no 'bias'.")


def test_an_initial_state_must_be_a_mapping():
    assert _refusal(initial_state=[1]).endswith("such as a state dict, but got list.")


class _Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x):
        x = x[:, None]
        return self.head(self.norm((x + self.attention(x, x, x)[0])[:, 0]))


@pytest.mark.parametrize("with_buffers", [True, False])
def test_an_initial_state_gets_the_names_of_explicit_attention(with_buffers):
    model, early = _Attentive().eval(), _Attentive().eval()
    state = early.state_dict() if with_buffers else dict(early.named_parameters())
    task = _prepare(model=model, initial_state=state).task
    assert task.initial_state.keys() == task.model.state_dict().keys()
    rewound = copy.deepcopy(task.model)
    rewound.load_state_dict(task.initial_state, strict=with_buffers)
    torch.testing.assert_close(rewound.eval()(INPUTS), early(INPUTS))
