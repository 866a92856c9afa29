"""Random batches of training examples, labelled and not."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from autocompress.tasks.base import Inputs, TensorData
from autocompress.tasks.prepare import PreparedTask


class Batches:
    """Endless random batches: every epoch a new order, the last incomplete batch dropped.

    Examples are numbered: those of train first, then the unlabelled ones.

    Args:
        prepared: The task.
        batch_size: Examples per batch; fewer if there are not as many.
        generator: Decides order and augmentation.
    """

    def __init__(self, prepared: PreparedTask, batch_size: int, generator: torch.Generator) -> None:
        self.prepared = prepared
        unlabelled = prepared.unlabelled
        self.n_examples = len(prepared.train) + (0 if unlabelled is None else len(unlabelled[0]))
        self.batch_size = min(batch_size, self.n_examples)
        self.per_epoch = self.n_examples // self.batch_size
        self.generator = generator
        self.queue: list[Tensor] = []
        self._read: Iterator[tuple[Inputs, Tensor]] = iter(())

    @property
    def _augment(self) -> Callable[[Inputs], Inputs] | None:
        change = self.prepared.task.augment
        return None if change is None else lambda inputs: change(inputs, self.generator)

    def draw(self) -> tuple[Inputs, Tensor, Tensor]:
        """Inputs, targets and numbers of the next batch.

        Where examples have no labels, those that have come first, and targets are fewer than
        inputs.
        """
        if not self.queue:
            order = torch.randperm(self.n_examples, generator=self.generator)
            self.queue = list(order.split(self.batch_size)[: self.per_epoch])
            if self.prepared.unlabelled is None:
                self._read = self.prepared.train.batches(self.queue[::-1], self._augment)
        indices = self.queue.pop()
        train, augment = self.prepared.train, self._augment
        if self.prepared.unlabelled is None:
            inputs, targets = next(self._read)
            return inputs, targets, indices
        assert isinstance(train, TensorData)
        labelled, further = indices[indices < len(train)], indices[indices >= len(train)]
        pairs = zip(train.inputs, self.prepared.unlabelled, strict=True)
        mixed = tuple(torch.cat([a[labelled], b[further - len(train)]]) for a, b in pairs)
        batch = TensorData(mixed, torch.zeros(len(indices)), train.transform)
        inputs, _ = batch.batch(slice(None), augment)
        return inputs, train.targets[labelled], torch.cat([labelled, further])
