"""Task: what a user brings. A trained model, its data, a loss and a metric."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from autocompress.tasks.frozen import LayerChannels

Inputs = tuple[Tensor, ...]
Transform = Callable[[Inputs], Inputs]
Augment = Callable[[Inputs, torch.Generator], Inputs]
Loss = Callable[[Any, Tensor], Tensor]
Metric = Callable[[Any, Tensor], float]
Distill = Literal["kl", "mse", "none"]
Output = str | int | Callable[[Any], Tensor]
Collate = Callable[[list[Any]], tuple[Any, Tensor]]


def top1(outputs: Tensor, targets: Tensor) -> float:
    """Share of examples whose largest logit is the target's.

    Args:
        outputs: Logits of shape (N, classes).
        targets: Class indices of shape (N,).
    """
    return float((outputs.argmax(dim=1) == targets).double().mean())


class Examples(Protocol):
    """A split as training and scoring read it: `TensorData` in memory, or `StreamedData`."""

    @property
    def targets(self) -> Tensor:
        """Targets of all examples, shape (N, ...)."""

    def __len__(self) -> int:
        """Number of examples, N."""

    def batch(
        self, indices: Tensor | slice, augment: Callable[[Inputs], Inputs] | None = None
    ) -> tuple[Inputs, Tensor]:
        """The examples at `indices`: augmented, transformed inputs, and targets."""

    def batches(
        self,
        chosen: Iterable[Tensor | slice],
        augment: Callable[[Inputs], Inputs] | None = None,
    ) -> Iterator[tuple[Inputs, Tensor]]:
        """One batch after the other, as `batch` gives each of them."""

    def subset(self, indices: Tensor | slice) -> "Examples":
        """The examples at `indices` as a data set of their own."""

    def fingerprint(self) -> str:
        """What changes when the data does, in hex."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TensorData:
    """A data set held in memory, so that a batch is one indexing operation.

    Attributes:
        inputs: The model's inputs, each of shape (N, ...); a single tensor is taken as one input.
            Keep images in uint8 and turn them into floats in `transform`: four times less memory.
            With a mapping the model is called by these names; `transform` and `Task.augment` get
            a tuple in its order.
        targets: Shape (N, ...).
        transform: Applied to the inputs of a batch after augmentation; None means as they are.
    """

    inputs: Inputs
    targets: Tensor
    transform: Transform | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(tensor.shape[1:])) for tensor in self.inputs)
        return f"TensorData({len(self):,} examples of {shapes})"

    def batch(
        self, indices: Tensor | slice, augment: Callable[[Inputs], Inputs] | None = None
    ) -> tuple[Inputs, Tensor]:
        """The examples at `indices`: augmented, transformed inputs, and targets.

        All are copies: whoever gets them may write into them.
        """
        inputs = tuple(_copied(tensor, indices) for tensor in self.inputs)
        if augment is not None:
            inputs = augment(inputs)
        if self.transform is not None:
            inputs = self.transform(inputs)
        return inputs, _copied(self.targets, indices)

    def batches(
        self,
        chosen: Iterable[Tensor | slice],
        augment: Callable[[Inputs], Inputs] | None = None,
    ) -> Iterator[tuple[Inputs, Tensor]]:
        """One batch after the other, as `batch` gives each of them."""
        return (self.batch(indices, augment) for indices in chosen)

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


def _copied(tensor: Tensor, indices: Tensor | slice) -> Tensor:
    """Rows of a tensor, never a view of them."""
    return tensor[indices].clone() if isinstance(indices, slice) else tensor[indices]


Data = Examples | Dataset[Any] | DataLoader[Any] | tuple[Tensor, Tensor]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """A trained model and everything needed to judge and tune compressed copies of it.

    The defaults are those of image classification. Give `model` and `train`; the rest is optional.

    Attributes:
        model: The trained model, called as `model(*inputs)`, or by name where inputs have names.
        train: Training data: `TensorData`, `StreamedData`, a pair of tensors, or any map-style
            torch data set or a `DataLoader` of one. Data that would fill much of the memory is
            streamed. Inputs may be a tensor, a tuple, or a mapping of names to tensors.
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
        learning_rate: Peak learning rate of the fine-tune (SGD with Nesterov momentum). The default
            suits convolutional nets; transformers want about 0.001.
        proxy_epochs: Passes over `train`, and `unlabelled` if given, of the brief fine-tune behind
            each trial.
        teacher: What to distill from: a larger model, or several, which are averaged; called as
            `model` is and with outputs of the same shape. None means `model` itself.
        unlabelled: More inputs to train on, without labels: only the distillation loss sees them.
            Tensors of shape (N, ...) like those of `train`, whose augmentation and transform they
            pass through; a single tensor is taken as one input.
        output: Which part of what the model returns is judged, where that is no single tensor: a
            key or attribute, an index, or a function that makes one tensor of it, with a row for
            each example.
        collate: Makes (inputs, targets) of a list of a data set's rows; the default stacks pairs
            of (input, target), where an input may be a tensor, a tuple or a mapping. Where it pads,
            it pads every batch to the same length.
        frozen: Names of modules, with wildcards, that stay exactly as they are: not compressed, not
            tuned, their statistics not re-estimated.
        channels: Layer classes of your own, or of a package, and where their channels lie, so that
            they can be pruned; a class may say so itself, see `LayerChannels`.
        initial_state: State of `model` early in its training, for the lottery ticket (Frankle &
            Carbin 2019): every parameter of `model` by name, buffers at will.
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
    teacher: nn.Module | tuple[nn.Module, ...] | None = None
    unlabelled: Tensor | Inputs | None = None
    initial_state: Mapping[str, Tensor] | None = None
    output: Output | None = None
    collate: Collate | None = None
    frozen: Sequence[str] = ()
    channels: Mapping[type[nn.Module], LayerChannels] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        n_params = sum(parameter.numel() for parameter in self.model.parameters())
        splits = ((split, getattr(self, split)) for split in ("train", "val", "test"))
        counted = [f"{split}: {_count(data)}" for split, data in splits if data is not None]
        return (
            f"Task({self.name!r}: {type(self.model).__name__} of {n_params:,} parameters, "
            f"{', '.join(counted)}; {self.metric_name})"
        )


def _count(data: Any) -> str:
    """How many examples a split holds, as far as it tells."""
    if isinstance(data, DataLoader):
        data = data.dataset
    if isinstance(data, tuple) and data:  # inputs and targets
        data = data[-1]
    return f"{len(data):,}" if hasattr(data, "__len__") else type(data).__name__
