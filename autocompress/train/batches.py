"""Random batches of training examples, labelled and not."""

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

    def draw(self) -> tuple[Inputs, Tensor, Tensor]:
        """Inputs, targets and numbers of the next batch.

        Where examples have no labels, those that have come first, and targets are fewer than
        inputs.
        """
        if not self.queue:
            order = torch.randperm(self.n_examples, generator=self.generator)
            self.queue = list(order.split(self.batch_size)[: self.per_epoch])
        indices = self.queue.pop()
        change = self.prepared.task.augment
        augment = None if change is None else lambda inputs: change(inputs, self.generator)
        train = self.prepared.train
        if self.prepared.unlabelled is None:
            inputs, targets = train.batch(indices, augment)
            return inputs, targets, indices
        labelled, further = indices[indices < len(train)], indices[indices >= len(train)]
        pairs = zip(train.inputs, self.prepared.unlabelled, strict=True)
        mixed = tuple(torch.cat([a[labelled], b[further - len(train)]]) for a, b in pairs)
        batch = TensorData(mixed, torch.zeros(len(indices)), train.transform)
        inputs, _ = batch.batch(slice(None), augment)
        return inputs, train.targets[labelled], torch.cat([labelled, further])
