"""Task: what a user brings. A trained model, its data, a loss and a metric."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from autocompress.errors import InputError, first_line, unknown_name

Inputs = tuple[Tensor, ...]
Transform = Callable[[Inputs], Inputs]
Augment = Callable[[Inputs, torch.Generator], Inputs]
Loss = Callable[[Any, Tensor], Tensor]
Metric = Callable[[Any, Tensor], float]
Distill = Literal["kl", "mse", "none"]

_VAL_SHARE = 0.1
_SPLIT_SEED = 20180607


def top1(outputs: Tensor, targets: Tensor) -> float:
    """Share of examples whose largest logit is the target's.

    Args:
        outputs: Logits of shape (N, classes).
        targets: Class indices of shape (N,).
    """
    return float((outputs.argmax(dim=1) == targets).double().mean())


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TensorData:
    """A data set held in memory, so that a batch is one indexing operation.

    Attributes:
        inputs: The model's inputs, each of shape (N, ...); a single tensor is taken as one input.
            Keep images in uint8 and turn them into floats in `transform`: four times less memory.
        targets: Shape (N, ...).
        transform: Applied to the inputs of a batch after augmentation; None means as they are.
    """

    inputs: Inputs
    targets: Tensor
    transform: Transform | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def batch(
        self, indices: Tensor | slice, augment: Callable[[Inputs], Inputs] | None = None
    ) -> tuple[Inputs, Tensor]:
        """The examples at `indices`: augmented, transformed inputs, and targets."""
        inputs = tuple(tensor[indices] for tensor in self.inputs)
        if augment is not None:
            inputs = augment(inputs)
        if self.transform is not None:
            inputs = self.transform(inputs)
        return inputs, self.targets[indices]

    def subset(self, indices: Tensor | slice) -> "TensorData":
        """The examples at `indices` as a data set of their own."""
        return TensorData(
            tuple(tensor[indices] for tensor in self.inputs), self.targets[indices], self.transform
        )

    def fingerprint(self) -> str:
        """sha256 over shapes, dtypes and bytes of all tensors, in hex."""
        digest = hashlib.sha256()
        for tensor in (*self.inputs, self.targets):
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()


Data = TensorData | Dataset[Any] | tuple[Tensor, Tensor]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """A trained model and everything needed to judge and tune compressed copies of it.

    The defaults are those of image classification. Give `model` and `train`; the rest is optional.

    Attributes:
        model: The trained model, called as `model(*inputs)`.
        train: Training data: `TensorData`, a pair of tensors, or any map-style torch data set.
        val: Data the search judges candidates on; carved from `train` (10 %) if None.
        test: Data no search ever sees; read once per exported point.
        name: Names the run folder.
        loss: `loss(outputs, targets)` -> scalar mean.
        metric: `metric(outputs, targets)` -> float in [0, 1], higher is better, over a whole split.
        metric_name: What the metric is called in tables and figures.
        augment: Random changes of a training batch, before `transform`.
        distill: How outputs are matched to the base model's while tuning: `kl` for logits over
            classes in dimension 1, `mse` for other outputs, `none` to switch it off.
        batch_size: Training batch.
        learning_rate: Peak learning rate of the fine-tune (SGD with Nesterov momentum).
        proxy_epochs: Passes over `train` of the brief fine-tune behind each trial.
    """

    model: nn.Module
    train: Data
    val: Data | None = None
    test: Data | None = None
    name: str = "task"
    loss: Loss = F.cross_entropy
    metric: Metric = top1
    metric_name: str = "top-1 accuracy"
    augment: Augment | None = None
    distill: Distill = "kl"
    batch_size: int = 128
    learning_rate: float = 0.01
    proxy_epochs: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedTask:
    """A task whose data is in memory, whose splits exist and whose contracts hold.

    Attributes:
        task: What the user gave.
        train: Training split.
        val: Validation split.
        test: Test split; None if the user gave none.
        is_val_carved: Whether `val` was taken from the user's training data.
    """

    task: Task
    train: TensorData
    val: TensorData
    test: TensorData | None
    is_val_carved: bool

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
    rows: Sequence[Any] = [data[i] for i in range(n_examples)]
    try:
        inputs = torch.stack([torch.as_tensor(row[0]) for row in rows])
        targets = torch.stack([torch.as_tensor(row[1]) for row in rows])
    except (TypeError, ValueError, IndexError, KeyError, RuntimeError) as error:
        raise InputError(
            f"The {split} split must yield (input, target) pairs of equal shapes, but: {error}."
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
    for field in ("batch_size", "learning_rate", "proxy_epochs"):
        if getattr(task, field) <= 0:
            raise InputError(f"`Task.{field}` must be positive, but got {getattr(task, field)}.")
    if task.distill not in get_args(Distill):
        raise unknown_name("Task.distill", str(task.distill), get_args(Distill))
    train = as_tensor_data(task.train, "train")
    is_val_carved = task.val is None
    if task.val is None:
        train, val = carve(train, _VAL_SHARE)
    else:
        val = as_tensor_data(task.val, "val")
    test = None if task.test is None else as_tensor_data(task.test, "test")
    prepared = PreparedTask(task=task, train=train, val=val, test=test, is_val_carved=is_val_carved)
    _check_runs(prepared)
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


def _check_runs(prepared: PreparedTask) -> None:
    task = prepared.task
    was_training = task.model.training
    task.model.eval()
    try:
        inputs, targets = prepared.train.batch(slice(0, 2))
        with torch.no_grad():
            outputs = task.model(*inputs)
    except Exception as error:
        shapes = [tuple(t.shape) for t in prepared.train.batch(slice(0, 2))[0]]
        raise InputError(
            f"The model must run on a batch of its training data (input shapes {shapes}), "
            f"but raised {type(error).__name__}: {first_line(error)}."
        ) from error
    finally:
        task.model.train(was_training)
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
    if not 0.0 <= metric <= 1.0:
        raise InputError(f"`Task.metric` must lie in [0, 1], but returned {metric}.")


def _check_labels(prepared: PreparedTask, outputs: object) -> None:
    if not isinstance(outputs, Tensor) or outputs.ndim < 2:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(
            f"With the default loss the model must return logits (N, classes), but got {got}.",
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
