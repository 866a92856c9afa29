"""From what a user brings to what the search works with: in memory, split, contracts checked."""

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress.errors import InputError, first_line, unknown_name
from autocompress.tasks.base import Distill, Inputs, Task, TensorData
from autocompress.tasks.explicit_attention import make_attention_explicit
from autocompress.tasks.recipe_inputs import (
    check_initial_state,
    check_teachers,
    check_teachers_fit,
    check_unlabelled,
)

_VAL_SHARE = 0.1
_SPLIT_SEED = 20180607
METRIC_SLACK = 1e-6  # a mean in float32 may end a hair above 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedTask:
    """A task whose data is in memory, whose splits exist and whose contracts hold.

    Attributes:
        task: What the user gave.
        train: Training split.
        val: Validation split.
        test: Test split; None if the user gave none.
        is_val_carved: Whether `val` was taken from the user's training data.
        teachers: What to distill from, averaged; empty means the model itself.
        unlabelled: Further training inputs, each of shape (N, ...); None if the user gave none.
    """

    task: Task
    train: TensorData
    val: TensorData
    test: TensorData | None
    is_val_carved: bool
    teachers: tuple[nn.Module, ...] = ()
    unlabelled: Inputs | None = None

    @property
    def example_inputs(self) -> Inputs:
        """Inputs of two training examples: the batch dimension must be free."""
        return self.train.batch(slice(0, 2))[0]


def as_tensor_data(data: object, split: str) -> TensorData:
    """Bring a data set into memory.

    Args:
        data: `TensorData`, a pair (inputs, targets) of tensors, or a map-style data set of
            (input, target) pairs.
        split: Name of the split, for messages.

    Raises:
        InputError: If `data` is something else, empty, or its tensors differ in length.
    """
    if isinstance(data, tuple) and len(data) == 2:
        data = TensorData(*data)
    if not isinstance(data, TensorData):
        data = _stack(data, split)
    inputs = data.inputs if isinstance(data.inputs, tuple | list) else (data.inputs,)
    for part in (*inputs, data.targets):
        if not isinstance(part, Tensor) or part.ndim == 0:
            got = "a single number" if isinstance(part, Tensor) else type(part).__name__
            raise InputError(
                f"The {split} split must hold tensors of shape (N, ...), but got {got}."
            )
    if len(inputs) == 0:
        raise InputError(f"The {split} split must hold at least one input tensor, but has none.")
    data = dataclasses.replace(data, inputs=tuple(inputs))
    lengths = [len(tensor) for tensor in data.inputs]
    if any(length != len(data) for length in lengths):
        raise InputError(
            f"Inputs and targets of the {split} split must be equally many, "
            f"but got {lengths} inputs and {len(data)} targets."
        )
    if len(data) == 0:
        raise InputError(f"The {split} split must hold at least one example, but it is empty.")
    return data


def _stack(data: object, split: str) -> TensorData:
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise InputError(
            f"The {split} split must be TensorData, a pair of tensors or a map-style data set, "
            f"but got {type(data).__name__}."
        )
    n_examples = len(data)
    if n_examples == 0:
        raise InputError(f"The {split} split must hold at least one example, but it is empty.")
    try:
        rows: Sequence[Any] = [data[i] for i in range(n_examples)]
        inputs = torch.stack([torch.as_tensor(row[0]) for row in rows])
        targets = torch.stack([torch.as_tensor(row[1]) for row in rows])
    except Exception as error:  # a user's data set may raise anything
        raise InputError(
            f"The {split} split must yield (input, target) pairs of equal shapes, "
            f"but: {type(error).__name__}: {first_line(error)}."
        ) from error
    return TensorData((inputs,), targets)


def prepare_task(task: object) -> PreparedTask:
    """Check a task's contracts, bring its data into memory and carve `val` if there is none.

    Raises:
        InputError: If a contract does not hold; the message names it.
    """
    if not isinstance(task, Task):
        raise InputError(
            f"The task factory must return an autocompress.Task, but got {type(task).__name__}."
        )
    if not isinstance(task.model, nn.Module):
        raise InputError(
            f"`Task.model` must be a torch.nn.Module, but got {type(task.model).__name__}."
        )
    task = dataclasses.replace(
        task,
        model=make_attention_explicit(task.model),
        initial_state=check_initial_state(task.initial_state, task.model),
    )
    for field in ("batch_size", "learning_rate", "proxy_epochs"):
        value = getattr(task, field)
        if not isinstance(value, int | float) or not value > 0:
            raise InputError(f"`Task.{field}` must be a positive number, but got {value!r}.")
    if task.distill not in get_args(Distill):
        raise unknown_name("Task.distill", str(task.distill), get_args(Distill))
    train = as_tensor_data(task.train, "train")
    is_val_carved = task.val is None
    if task.val is None:
        train, val = carve(train, _VAL_SHARE)
    else:
        val = as_tensor_data(task.val, "val")
    test = None if task.test is None else as_tensor_data(task.test, "test")
    prepared = PreparedTask(
        task=task,
        train=train,
        val=val,
        test=test,
        is_val_carved=is_val_carved,
        teachers=check_teachers(task.teacher),
        unlabelled=check_unlabelled(task.unlabelled, train, task.distill),
    )
    outputs = _check_runs(prepared)
    check_teachers_fit(prepared.teachers, prepared.example_inputs, outputs)
    return prepared


def carve(data: TensorData, share: float) -> tuple[TensorData, TensorData]:
    """Split off a random `share` of `data`, always the same one. Returns (rest, carved).

    Raises:
        InputError: If `data` has fewer than two examples.
    """
    if len(data) < 2:
        raise InputError("A split needs at least 2 examples to carve from, but got 1.")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    n_carved = max(1, round(len(data) * share))
    return data.subset(order[n_carved:].sort().values), data.subset(order[:n_carved].sort().values)


def _check_runs(prepared: PreparedTask) -> Tensor:
    """Check model, loss and metric on the first examples; returns the model's outputs."""
    task = prepared.task
    was_training = task.model.training
    task.model.eval()
    inputs, targets = _first_batch(prepared.train)
    try:
        with torch.no_grad():
            outputs = task.model(*inputs)
    except Exception as error:
        shapes = [tuple(tensor.shape) for tensor in inputs]
        raise InputError(
            f"The model must run on a batch of its training data (input shapes {shapes}), "
            f"but raised {type(error).__name__}: {first_line(error)}."
        ) from error
    finally:
        task.model.train(was_training)
    if not isinstance(outputs, Tensor):
        raise InputError(
            f"The model must return one tensor, but returned {type(outputs).__name__}.",
            "Wrap it in a module that returns the tensor your loss and metric need.",
        )
    if task.loss is F.cross_entropy:
        _check_labels(prepared, outputs)
    try:
        with torch.no_grad():
            loss = task.loss(outputs, targets)
            metric = float(task.metric(outputs, targets))
    except Exception as error:
        raise InputError(
            "`Task.loss` and `Task.metric` must accept (outputs, targets), "
            f"but raised {type(error).__name__}: {first_line(error)}."
        ) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise InputError("`Task.loss` must return one number as a tensor.", "Take its mean.")
    if not -METRIC_SLACK <= metric <= 1.0 + METRIC_SLACK:
        raise InputError(f"`Task.metric` must lie in [0, 1], but returned {metric}.")
    return outputs


def _first_batch(train: TensorData) -> tuple[Inputs, Tensor]:
    try:
        return train.batch(slice(0, 2))
    except Exception as error:
        raise InputError(
            "The `transform` of the training data must accept a batch of inputs, "
            f"but raised {type(error).__name__}: {first_line(error)}."
        ) from error


def _check_labels(prepared: PreparedTask, outputs: Tensor) -> None:
    if outputs.ndim < 2:
        raise InputError(
            "With the default loss the model must return logits (N, classes), "
            f"but got {tuple(outputs.shape)}.",
            "Give the task its own `loss` and `metric`.",
        )
    n_classes = outputs.shape[1]
    for split in ("train", "val", "test"):
        data = getattr(prepared, split)
        if data is None:
            continue
        if data.targets.dtype != torch.int64:
            raise InputError(
                f"Labels of the {split} split must be int64, but got {data.targets.dtype}."
            )
        low, high = int(data.targets.min()), int(data.targets.max())
        if low < 0 or high >= n_classes:
            raise InputError(
                f"Labels of the {split} split must lie in [0, {n_classes - 1}] "
                f"(the model has {n_classes} outputs), but range over [{low}, {high}]."
            )
