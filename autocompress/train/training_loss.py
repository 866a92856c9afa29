"""The loss of a step: the task's, distillation, matched features."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from autocompress.tasks.base import Inputs
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.distill import distillation_loss
from autocompress.train.features import FEATURES
from autocompress.train.precision import (
    Precision,
    autocast,
)
from autocompress.train.recipe import Recipe
from autocompress.train.teachers import Ensemble, Teacher

LossOf = Callable[[nn.Module, Inputs, Tensor, Tensor], Tensor]


def make_loss(
    prepared: PreparedTask,
    teacher: Teacher,
    recipe: Recipe,
    features: Callable[[], Tensor] | None,
    device: torch.device,
    precision: Precision,
) -> LossOf:
    """Put together what a step of training minimises.

    Args:
        prepared: Holds the task's loss.
        teacher: What to distill from, on `device`.
        recipe: Which losses there are, and their weights.
        features: Loss of the activations inside, after both models have run; None for none.
        device: Where both models run.
        precision: Format of convolutions and matrix products.

    Returns:
        Loss of (model, inputs, targets, numbers of the examples); where targets are fewer than
        examples they belong to the first ones.
    """
    assert _averages_for(recipe, teacher.model), "the ensemble was made for another recipe"
    match = distillation_loss(recipe.distill, recipe.temperature)
    feature = FEATURES[recipe.features]
    weight = 0.0 if feature is None else feature.weight
    weight = weight if recipe.feature_weight is None else recipe.feature_weight

    def loss_of(model: nn.Module, inputs: Inputs, targets: Tensor, indices: Tensor) -> Tensor:
        with autocast(precision, device):
            outputs = model(*inputs)
        outputs = outputs.float() if isinstance(outputs, Tensor) else outputs
        n_labelled = len(targets)
        labelled = outputs if n_labelled == len(indices) else outputs[:n_labelled]
        loss = prepared.task.loss(labelled, targets) if n_labelled else outputs.new_zeros(())
        wanted = None
        if features is not None:
            with torch.no_grad(), autocast(precision, device):
                wanted = teacher.model(*inputs)
        elif match is not None and teacher.cached is not None:
            wanted = teacher.cached[indices].to(device)
        elif match is not None:
            with torch.inference_mode(), autocast(precision, device):
                wanted = teacher.model(*inputs)
            wanted = wanted.clone()
        if match is not None and wanted is not None:
            loss = recipe.task_share * loss + (1.0 - recipe.task_share) * match(outputs, wanted)
        return loss if features is None else loss + weight * features()

    return loss_of


def _averages_for(recipe: Recipe, teacher: nn.Module) -> bool:
    """Whether a teacher, if it is an ensemble, is averaged as the recipe distills."""
    if not isinstance(teacher, Ensemble) or recipe.distill == "none":
        return True
    return teacher.temperature == (recipe.temperature if recipe.distill == "kl" else None)
