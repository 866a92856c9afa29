"""From a plan and a model to the structure that was packed, and to its graph full of marks."""

import copy
import dataclasses
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from autocompress.analysis.channel_group import ChannelGroup
from autocompress.compress.evidence import Evidence
from autocompress.compress.pipeline import apply_plan
from autocompress.compress.policy import PruningPolicy
from autocompress.export.loading.marks import Marks, mark_
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.runtime.onnx_export import export_onnx
from autocompress.tasks.base import Inputs


def structure_of(
    model: nn.Module,
    plan: CompressionPlan,
    groups: tuple[ChannelGroup, ...],
    inputs: Inputs,
    round_to: int,
) -> nn.Module:
    """Build what a plan makes of a model, as far as modules and shapes go.

    Which channels stay depends on weights that the model may not have, and no weight is masked or
    quantized.

    Args:
        model: Not modified.
        plan: What to do.
        groups: The model's channel groups; none are needed where the plan prunes none.
        inputs: Inputs the model runs on, each of shape (N, ...) with N >= 2.
        round_to: As in `PruningPolicy`.

    Returns:
        A copy in eval mode.

    Raises:
        InputError: If the plan does not fit the model.
        TrialError: If what it makes does not run.
    """
    layers = {
        name: LayerPlan(
            shared_with=layer.shared_with,
            rank_ratio=layer.rank_ratio,
            factorization=layer.factorization,
        )
        for name, layer in plan.layers.items()
    }
    return apply_plan(
        model,
        dataclasses.replace(plan, layers=layers),
        groups,
        inputs,
        PruningPolicy(round_to=round_to),
        Evidence(calibration=(inputs,)),
    ).model.eval()


def marked_graph(model: nn.Module, inputs: Inputs) -> tuple[onnx.ModelProto, Marks]:
    """Export a copy of a model whose elements are marks, with its batch-norms in place.

    Args:
        model: In eval mode; not modified.
        inputs: Inputs it runs on, each of shape (N, ...).

    Raises:
        TrialError: If it cannot be exported.
    """
    marked = copy.deepcopy(model)
    marks = mark_(marked)
    for module in marked.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            module.register_forward_pre_hook(_hold_apart)
    return export_onnx(marked, inputs, {}).model, marks


def _hold_apart(norm: nn.Module, args: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """Keep the export from folding a batch-norm: `counterparts.NORM_MARK` goes before it."""
    return torch.asin(args[0]), *args[1:]
