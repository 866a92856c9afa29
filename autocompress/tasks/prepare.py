"""From what a user brings to what the search works with: drawable, split, contracts checked."""

import dataclasses
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress.errors import InputError, first_line, one_line, unknown_name
from autocompress.tasks.base import Distill, Examples, Inputs, Task
from autocompress.tasks.calling import adapt_call, describe_result, spare_inputs
from autocompress.tasks.explicit_attention import make_attention_explicit
from autocompress.tasks.frozen import check_channels, declare_channels_, freeze
from autocompress.tasks.recipe_inputs import (
    check_initial_state,
    check_teachers,
    check_teachers_fit,
    check_unlabelled,
)
from autocompress.tasks.splits import Names, as_examples, in_order_of
from autocompress.tasks.streamed import StreamedData

_VAL_SHARE = 0.1
_N_LOOKED_AT = 64
_SPLIT_SEED = 20180607


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedTask:
    """A task whose data can be drawn, whose splits exist and whose contracts hold.

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
    train: Examples
    val: Examples
    test: Examples | None
    is_val_carved: bool
    teachers: tuple[nn.Module, ...] = ()
    unlabelled: Inputs | None = None

    @property
    def example_inputs(self) -> Inputs:
        """Inputs of two training examples: the batch dimension must be free."""
        return self.train.batch(slice(0, 2))[0]


def prepare_task(task: object) -> PreparedTask:
    """Check a task's contracts, bring its data into one form and carve `val` if there is none.

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
    for name, _ in task.model.named_modules():
        if one_line(name) != name:  # they are printed, and name nodes of graphs
            raise InputError(
                f"Names of layers must be free of control characters, but {name!a} has some."
            )
    task = dataclasses.replace(
        task,
        model=freeze(make_attention_explicit(task.model), task.frozen),
        initial_state=check_initial_state(task.initial_state, task.model),
    )
    _declare_channels_(task)
    for field in ("batch_size", "learning_rate", "proxy_epochs"):
        value = getattr(task, field)
        if not isinstance(value, int | float) or not value > 0:
            raise InputError(f"`Task.{field}` must be a positive number, but got {value!r}.")
    if task.distill not in get_args(Distill):
        raise unknown_name("Task.distill", str(task.distill), get_args(Distill))
    train, names = as_examples(task.train, "train", task.collate)
    is_val_carved = task.val is None
    if task.val is None:
        train, val = carve(train, _VAL_SHARE)
    else:
        val = _like_train(task.val, "val", task, names)
    test = None if task.test is None else _like_train(task.test, "test", task, names)
    task = dataclasses.replace(task, model=adapt_call(task.model, names, task.output))
    teachers = check_teachers(task.teacher)
    prepared = PreparedTask(
        task=task,
        train=train,
        val=val,
        test=test,
        is_val_carved=is_val_carved,
        teachers=tuple(adapt_call(teacher, names, task.output) for teacher in teachers),
        unlabelled=check_unlabelled(task.unlabelled, train, task.distill, names),
    )
    outputs = _check_runs(prepared)
    check_teachers_fit(prepared.teachers, prepared.example_inputs, outputs)
    model = spare_inputs(task.model, prepared.example_inputs)
    return dataclasses.replace(
        prepared,
        task=dataclasses.replace(task, model=model),
        teachers=tuple(spare_inputs(t, prepared.example_inputs) for t in prepared.teachers),
    )


def _like_train(data: object, split: str, task: Task, names: Names | None) -> Examples:
    """Another split, with its inputs in the order of those of train."""
    examples, own_names = as_examples(data, split, task.collate)
    return in_order_of(examples, own_names, names, split)


def _declare_channels_(task: Task) -> None:
    for layer_class, channels in task.channels.items():
        layers = [module for module in task.model.modules() if type(module) is layer_class]
        if not layers:
            raise InputError(
                f"`Task.channels` must name layer classes of the model, "
                f"but it has no {layer_class.__name__}."
            )
        for layer in layers:
            declare_channels_(layer, channels)
    for name, module in task.model.named_modules():
        check_channels(name, module)


def carve(data: Examples, share: float) -> tuple[Examples, Examples]:
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
    """Check model and loss on the first examples; returns the model's outputs.

    Not the metric: a good one may have no value on a few examples, which hold one class, say.
    """
    task = prepared.task
    was_training = task.model.training
    task.model.eval()
    inputs, targets = _first_batch(prepared.train)
    _check_dtypes(inputs, task.model)
    try:
        with torch.no_grad():
            outputs = task.model(*inputs)
    except InputError:
        raise
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
            f"The model must return one tensor, but returned {describe_result(outputs)}.",
            "Say which part is judged by `Task.output`: its name, its index, or a function that "
            "makes one tensor of them.",
        )
    if task.loss is F.cross_entropy:
        _check_labels(prepared, outputs)
    _check_distill(task, outputs)
    try:
        with torch.no_grad():
            loss = task.loss(outputs, targets)
    except Exception as error:
        raise InputError(
            "`Task.loss` must accept (outputs, targets), "
            f"but raised {type(error).__name__}: {first_line(error)}."
        ) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise InputError("`Task.loss` must return one number as a tensor.", "Take its mean.")
    return outputs


def _check_dtypes(inputs: Inputs, model: nn.Module) -> None:
    """Runtimes and files take NumPy's types, and NumPy has no bfloat16."""
    tensors = {f"input {i} of train": x for i, x in enumerate(inputs)}
    tensors |= model.state_dict()
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.dtype == torch.bfloat16:
            raise InputError(
                f"The model and its inputs must not be bfloat16, but {name!r} is.",
                "Give model.float(), and inputs in float32.",
            )


def _first_batch(train: Examples) -> tuple[Inputs, Tensor]:
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
        if _labels(data).dtype != torch.int64:
            raise InputError(
                f"Labels of the {split} split must be int64, but got {_labels(data).dtype}."
            )
        targets = _labels(data)
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= n_classes:
            raise InputError(
                f"Labels of the {split} split must lie in [0, {n_classes - 1}] "
                f"(the model has {n_classes} outputs), but range over [{low}, {high}]."
            )


def _check_distill(task: Task, outputs: Tensor) -> None:
    """A distribution over one class never changes: its divergence is 0 whatever is compressed."""
    if task.distill != "kl" or (outputs.ndim > 1 and outputs.shape[1] > 1):
        return
    shape = ", ".join(map(str, ("N", *outputs.shape[1:])))
    raise InputError(
        "`Task.distill` 'kl' needs outputs of shape (N, classes, ...) with 2 classes or more, "
        f"but got ({shape}).",
        "Give distill='mse', which fits single logits and regressions.",
    )


def _labels(data: Examples) -> Tensor:
    """All labels that are at hand: of streamed data those of its first examples."""
    if isinstance(data, StreamedData) and data.known_targets is None:
        return data.batch(slice(0, _N_LOOKED_AT))[1]
    return data.targets
