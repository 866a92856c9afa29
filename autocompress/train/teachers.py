"""What a candidate learns from: the base model, a model the user names, or the mean of several."""

import copy
import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress.tasks.base import Examples, TensorData
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.precision import Precision, autocast, to_device, to_fast_layout_
from autocompress.train.recipe import Recipe

_BATCH_SIZE = 512
# Logits of a language model are as many numbers as positions times words.
_MOST_AT_ONCE = 2**28  # bytes of the outputs of one batch
_MOST_CACHED = 2**30  # bytes of the outputs that are kept


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Teacher:
    """A model to distill from, and its outputs on the training data where nothing changes them.

    Attributes:
        model: In eval mode, its parameters need no gradients; an `Ensemble` for several.
        cached: Outputs on every training example, the unlabelled ones last, (n_examples, ...);
            None where the model is asked for each batch.
    """

    model: nn.Module
    cached: Tensor | None


def mean_logits(logits: Tensor, temperature: float) -> Tensor:
    """Logits whose softened class probabilities are the mean of several models'.

    Args:
        logits: Shape (M, N, classes, ...) of M models.
        temperature: T > 0.

    Returns:
        Shape (N, classes, ...): `softmax(. / T)` is the mean over models of `softmax(logits / T)`,
        computed without leaving logarithms.
    """
    log_p = F.log_softmax(logits.float() / temperature, dim=2)
    return temperature * (torch.logsumexp(log_p, dim=0) - math.log(len(logits)))


class Ensemble(nn.Module):
    """Several teachers as one, so that nothing else has to know how many there are.

    Args:
        models: Called with the same inputs, outputs of equal shape.
        temperature: With one, outputs are logits and class probabilities softened by it are
            averaged; with None the outputs themselves are.
    """

    def __init__(self, models: tuple[nn.Module, ...], temperature: float | None) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.temperature = temperature

    def forward(self, *inputs: Tensor) -> Tensor:
        """The averaged outputs, in float32."""
        outputs = torch.stack([model(*inputs).float() for model in self.models])
        if self.temperature is None:
            return outputs.mean(dim=0)
        return mean_logits(outputs, self.temperature)


def make_teacher(
    prepared: PreparedTask,
    base: nn.Module,
    recipe: Recipe,
    *,
    device: torch.device,
    precision: Precision,
) -> Teacher:
    """Make what `recipe` distills from: copies of the task's teachers, or of the base model.

    Outputs are computed once where no augmentation changes them and nothing else of the teacher is
    looked at.

    Args:
        prepared: The task.
        base: The original model; copied.
        recipe: Decides how several are averaged and whether outputs are needed.
        device: Where the teacher runs.
        precision: Format of convolutions and matrix products.
    """
    models = tuple(
        to_fast_layout_(copy.deepcopy(model).eval(), device).requires_grad_(False)
        for model in prepared.teachers or (base,)
    )
    if len(models) == 1:
        model = models[0]
    else:
        temperature = recipe.temperature if recipe.distill == "kl" else None
        model = Ensemble(models, temperature).eval()
    is_asked_once = (
        prepared.task.augment is None
        and recipe.features == "none"
        and isinstance(prepared.train, TensorData)  # or all of it would be read
        and len(prepared.train) * _output_bytes(model, prepared.train, device) <= _MOST_CACHED
    )
    cached = None
    if is_asked_once and recipe.distill != "none":
        cached = outputs_on(model, prepared.train, device, precision)
        if prepared.unlabelled is not None:
            n_more = len(prepared.unlabelled[0])
            assert isinstance(prepared.train, TensorData)
            more = TensorData(prepared.unlabelled, torch.zeros(n_more), prepared.train.transform)
            cached = torch.cat([cached, outputs_on(model, more, device, precision)])
    return Teacher(model=model, cached=cached)


def _output_bytes(model: nn.Module, data: Examples, device: torch.device) -> int:
    """Bytes of the outputs of one example, as float32."""
    with torch.inference_mode():
        inputs, targets = data.batch(slice(0, 2))
        outputs = model(*to_device(inputs, device))
    return max(1, 4 * outputs.numel() // len(targets))


def outputs_on(
    model: nn.Module, data: Examples, device: torch.device, precision: Precision
) -> Tensor:
    """Outputs for all examples, in order, without augmentation: float32 on the CPU."""
    outputs = []
    with torch.inference_mode(), autocast(precision, device):
        size = max(1, min(_BATCH_SIZE, int(_MOST_AT_ONCE / _output_bytes(model, data, device))))
        slices = (slice(at, at + size) for at in range(0, len(data), size))
        for inputs, _ in data.batches(slices):
            outputs.append(model(*to_device(inputs, device)).float().cpu())
    return torch.cat(outputs)
