import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autocompress.errors import InputError
from autocompress.tasks.base import Task, TensorData, top1
from autocompress.tasks.prepare import carve, prepare_task
from autocompress.tasks.splits import as_examples

INPUTS, TARGETS = torch.randn(20, 4), torch.arange(20) % 3


def _task(**changes):
    return Task(**{"model": nn.Linear(4, 3), "train": (INPUTS, TARGETS), **changes})


def _refusal(**changes):
    with pytest.raises(InputError) as caught:
        prepare_task(_task(**changes))
    return str(caught.value)


def test_top1_is_the_share_of_hits():
    outputs = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert top1(outputs, torch.tensor([1, 0, 0, 1])) == 0.75


def test_prepared_task_holds_everything_in_memory():
    prepared = prepare_task(_task(val=(INPUTS[:5], TARGETS[:5]), test=(INPUTS[5:8], TARGETS[5:8])))
    assert [len(d) for d in (prepared.train, prepared.val, prepared.test)] == [20, 5, 3]
    assert not prepared.is_val_carved
    assert [t.shape for t in prepared.example_inputs] == [(2, 4)]


def test_val_is_carved_from_train_when_there_is_none():
    prepared = prepare_task(_task())
    assert prepared.is_val_carved
    assert prepared.test is None
    assert (len(prepared.train), len(prepared.val)) == (18, 2)
    rows = torch.cat([prepared.train.inputs[0], prepared.val.inputs[0]])
    assert {tuple(r.tolist()) for r in rows} == {tuple(r.tolist()) for r in INPUTS}


def test_carve_is_always_the_same():
    data = TensorData((INPUTS,), TARGETS)
    first, again = carve(data, 0.3), carve(data, 0.3)
    assert [d.fingerprint() for d in first] == [d.fingerprint() for d in again]
    assert [len(d) for d in first] == [14, 6]


def test_carve_needs_two_examples():
    with pytest.raises(InputError, match="at least 2 examples to carve from, but got 1"):
        carve(TensorData((INPUTS[:1],), TARGETS[:1]), 0.1)
    assert [len(d) for d in carve(TensorData((INPUTS[:2],), TARGETS[:2]), 0.1)] == [1, 1]


def test_batch_augments_then_transforms():
    data = TensorData((torch.ones(3, 2),), torch.zeros(3), lambda inputs: (inputs[0] * 10,))
    inputs, targets = data.batch(torch.tensor([0, 2]), lambda inputs: (inputs[0] + 1,))
    assert inputs[0].tolist() == [[20.0, 20.0]] * 2
    assert targets.shape == (2,)


def test_batches_are_copies_that_a_transform_may_write_into():
    data = TensorData((INPUTS.clone(),), TARGETS.clone(), lambda inputs: (inputs[0].mul_(2),))
    for chosen in (slice(0, 5), slice(None), torch.tensor([0, 3])):
        inputs, targets = data.batch(chosen)
        assert torch.equal(inputs[0], INPUTS[chosen] * 2)
        targets.zero_()
    assert torch.equal(data.inputs[0], INPUTS)
    assert torch.equal(data.targets, TARGETS)


class _Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.act, self.fc = nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, x):
        x -= x.mean(1, keepdim=True)
        return self.fc(self.act(x))


def test_models_that_write_into_their_inputs_spare_the_data_and_each_other():
    own, x = _Centred(), INPUTS.clone()
    task = Task(model=own, train=(x, TARGETS), teacher=(_Centred(), nn.Linear(4, 3)))
    prepared = prepare_task(task)
    inputs, _ = prepared.train.batch(slice(None))
    before = inputs[0].clone()
    for model in (prepared.task.model, *prepared.teachers):
        assert torch.equal(model(*inputs), model(*inputs))
        assert torch.equal(inputs[0], before)
    assert torch.equal(x, INPUTS)
    assert not own._forward_pre_hooks
    assert prepared.teachers[1] is task.teacher[1]  # it needs no copies


def test_fingerprint_follows_bytes_shapes_and_dtypes():
    base = TensorData((INPUTS,), TARGETS)
    changed = INPUTS.clone()
    changed[3, 2] += 1e-3
    others = [
        TensorData((changed,), TARGETS),
        TensorData((INPUTS.reshape(20, 2, 2),), TARGETS),
        TensorData((INPUTS,), TARGETS.int()),
        TensorData((INPUTS, INPUTS), TARGETS),
    ]
    assert len({data.fingerprint() for data in [base, *others]}) == 5
    assert TensorData((INPUTS.clone(),), TARGETS).fingerprint() == base.fingerprint()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.uint8, torch.float64])
def test_fingerprint_takes_any_dtype(dtype):
    data = TensorData((torch.ones(3, 2, dtype=dtype),), torch.zeros(3))
    assert len(data.fingerprint()) == 64


def test_fingerprint_does_not_depend_on_memory_order():
    images = torch.randn(2, 3, 4, 4)
    ordered = images.contiguous(memory_format=torch.channels_last)
    targets = torch.zeros(2)
    assert (
        TensorData((images,), targets).fingerprint()
        == TensorData((ordered,), targets).fingerprint()
    )


class _MapStyle(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return np.full(2, index, dtype=np.float32), index


def test_map_style_data_set_is_stacked():
    data = as_examples(_MapStyle(), "train")[0]
    assert data.inputs[0].tolist() == [[float(i)] * 2 for i in range(4)]
    assert data.targets.tolist() == [0, 1, 2, 3]


def test_several_inputs_are_taken_as_a_tuple():
    data = as_examples(((INPUTS, INPUTS[:, :2]), TARGETS), "train")[0]
    assert [t.shape for t in data.inputs] == [(20, 4), (20, 2)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (5, "must be TensorData, a pair of tensors or a map-style data set, but got int"),
        ((INPUTS[:0], TARGETS[:0]), "must hold at least one example, but it is empty"),
        ([], "must hold at least one example, but it is empty"),
        ((INPUTS, TARGETS[:7]), "must be equally many, but got [20] inputs and 7 targets"),
        ((INPUTS, TARGETS.tolist()), "tensors of shape (N, ...), but got list"),
        ((INPUTS.numpy(), TARGETS), "tensors of shape (N, ...), but got ndarray"),
        ((None, TARGETS), "tensors of shape (N, ...), but got NoneType"),
        ((INPUTS, torch.tensor(1)), "tensors of shape (N, ...), but got a single number"),
        (((), TARGETS), "at least one input tensor, but has none"),
        ([(torch.zeros(2), 0), (torch.zeros(3), 1)], "(input, target) pairs of equal shapes"),
        ([3, 4], "(input, target) pairs of equal shapes"),
    ],
)
def test_data_that_is_not_data_is_refused(data, message):
    with pytest.raises(InputError) as caught:
        as_examples(data, "val")
    assert caught.value.message.startswith("The val split must ") or "of the val split" in (
        caught.value.message
    )
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_task_must_be_a_task():
    with pytest.raises(InputError, match=r"must return an autocompress\.Task, but got dict"):
        prepare_task({})


def test_model_must_be_a_module():
    assert "must be a torch.nn.Module, but got str" in _refusal(model="model")


@pytest.mark.parametrize("field", ["batch_size", "learning_rate", "proxy_epochs"])
def test_training_settings_must_be_positive(field):
    assert f"`Task.{field}` must be a positive number, but got 0." in _refusal(**{field: 0})


def test_distillation_must_be_known():
    assert "Unknown Task.distill 'mae'. Did you mean 'mse'?" in _refusal(distill="mae")


@pytest.mark.parametrize(
    ("head", "shape"),
    [((), "(N, 1)"), ((nn.Flatten(0),), "(N)"), ((nn.Unflatten(1, (1, 1)),), "(N, 1, 1)")],
)
def test_distilling_by_kl_needs_two_classes(head, shape):
    binary = {
        "model": nn.Sequential(nn.Linear(4, 1), *head),
        "loss": lambda outputs, targets: outputs.mean(),
        "metric": lambda outputs, targets: 0.5,
    }
    assert _refusal(**binary) == (
        "`Task.distill` 'kl' needs outputs of shape (N, classes, ...) with 2 classes or more, "
        f"but got {shape}. Give distill='mse', which fits single logits and regressions."
    )
    for distill in ("mse", "none"):
        assert prepare_task(_task(**binary, distill=distill)).task.distill == distill


def test_model_must_run_on_its_data():
    message = _refusal(model=nn.Linear(5, 3))
    assert "(input shapes [(2, 4)]), but raised RuntimeError: mat1 and mat2" in message


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize(("labels", "span"), [([0, 3], "[0, 3]"), ([-1, 2], "[-1, 2]")])
def test_labels_must_fit_the_model(split, labels, span):
    data = (INPUTS[:2], torch.tensor(labels))
    message = _refusal(**{"val": (INPUTS, TARGETS), split: data})
    assert f"Labels of the {split} split must lie in [0, 2]" in message
    assert f"(the model has 3 outputs), but range over {span}." in message


def test_labels_must_be_integers():
    assert "train split must be int64, but got torch.float32" in _refusal(
        train=(INPUTS, TARGETS.float())
    )


def test_default_loss_needs_logits():
    assert "must return logits (N, classes), but got (2,)" in _refusal(
        model=nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    )


def test_metric_is_not_judged_on_the_first_examples():
    def of_classes(outputs, targets):
        if len(targets.unique()) < 3:
            raise ValueError("needs all classes")
        return 0.5

    for metric in (lambda outputs, targets: float("nan"), of_classes):
        assert prepare_task(_task(metric=metric)).task.metric is metric


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"train": (INPUTS.bfloat16(), TARGETS)}, "input 0 of train"),
        ({"model": nn.Sequential(nn.Linear(4, 3).bfloat16())}, "0.weight"),
    ],
)
def test_bfloat16_is_refused(given, name):
    assert _refusal(**given) == (
        f"The model and its inputs must not be bfloat16, but {name!r} is. "
        "Give model.float(), and inputs in float32."
    )


def test_loss_must_be_one_number():
    message = _refusal(loss=lambda o, t: F.cross_entropy(o, t, reduction="none"))
    assert message == "`Task.loss` must return one number as a tensor. Take its mean."


def test_loss_that_raises_is_reported_in_one_line():
    def loss(outputs, targets):
        raise ValueError("bad\nsecond line")

    assert _refusal(loss=loss).endswith("but raised ValueError: bad.")


@pytest.mark.parametrize("is_training", [True, False])
def test_prepare_leaves_the_model_in_its_mode(is_training):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train(is_training)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    prepare_task(_task(model=model))
    assert model.training is is_training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_task_and_data_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        _task().name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        TensorData((INPUTS,), TARGETS).targets = TARGETS


class _TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x), x


def test_a_model_must_return_one_tensor():
    assert "must return one tensor, but returned tuple" in _refusal(model=_TwoOutputs())


def test_a_transform_that_raises_is_named():
    def broken(inputs):
        raise ZeroDivisionError("no scale")

    data = TensorData((torch.zeros(4, 4),), torch.zeros(4, dtype=torch.long), broken)
    assert "`transform`" in _refusal(train=data)
    assert "no scale" in _refusal(train=data)


def test_a_data_set_that_raises_is_named():
    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            raise OSError("disk gone")

    assert "OSError: disk gone" in _refusal(train=Broken())


def test_task_and_data_are_short_to_look_at():
    data = TensorData((torch.zeros(1200, 1, 8, 8),), torch.zeros(1200))
    assert repr(data) == "TensorData(1,200 examples of (1, 8, 8))"
    pair = (torch.zeros(7, 4), torch.zeros(7))
    task = Task(model=nn.Linear(4, 3), train=data, val=pair, name="shapes")
    assert repr(task) == (
        "Task('shapes': Linear of 15 parameters, train: 1,200, val: 7; top-1 accuracy)"
    )
