"""From a plan and a model to the structure that was packed, and to its graph full of marks."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autocompress.analysis.channel_group import ChannelGroup
from autocompress.analysis.pass_through import replace_module_
from autocompress.compress.calibration import CalibrationStatistics
from autocompress.compress.compressed_layers import COMPRESSED, compress_layer_
from autocompress.compress.input_quantizer import InputQuantizer
from autocompress.compress.pipeline import apply_plan
from autocompress.compress.prune import PruningPolicy
from autocompress.errors import InputError
from autocompress.export.loading.contents import Contents
from autocompress.export.loading.marks import Marks, Slot, mark_
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.runtime.onnx_export import export_onnx
from autocompress.tasks.base import Inputs

_BIASED = (nn.Linear, nn.modules.conv._ConvNd)
_ON_GRIDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

Values = NDArray[np.float32]
Known = NDArray[np.bool_]


def refill_(model: nn.Module, marks: Marks, contents: Contents) -> None:
    """Give a model the file's values, in place.

    Parameters that several modules own stay shared where the file has the same values for all of
    them. Batch-norms that the file has folded become `nn.Identity`, their layers get a bias.

    Args:
        model: Changed, and left in eval mode. Of the structure that was marked.
        marks: Of a copy of it.
        contents: What the file holds.

    Raises:
        InputError: If a layer that needs a bias cannot have one.
    """
    modules = dict(model.named_modules())
    for name in contents.folded_norms:
        replace_module_(model, modules[name], nn.Identity())
    for same in _by_tensor(modules, marks, contents.folded_norms):
        _write_(modules, same, contents)
    for name, change in contents.layers.items():
        layer = modules[name]
        if change.bias is not None:
            if not isinstance(layer, _BIASED) or layer.bias is not None:
                raise InputError(
                    f"In the file, {name!r} has a bias that it got from a batch-norm, but a "
                    f"{type(layer).__name__} cannot have one.",
                    "Use the unpacked ONNX file (`autocompress unpack`) instead.",
                )
            layer.bias = nn.Parameter(torch.from_numpy(change.bias.copy()))
        if change.grid is not None and type(layer) in COMPRESSED and isinstance(layer, _ON_GRIDS):
            compress_layer_(layer)
            layer.add_module("input_quantizer", _input_quantizer(*change.grid))
    model.eval()


def _by_tensor(
    modules: Mapping[str, nn.Module], marks: Marks, gone: frozenset[str]
) -> Iterator[list[Slot]]:
    """Slots of each tensor of the model; a shared parameter has several."""
    found: dict[int, list[Slot]] = {}
    for slot in marks.slots:
        if slot.module not in gone and slot.size:
            found.setdefault(id(getattr(modules[slot.module], slot.name)), []).append(slot)
    yield from found.values()


def _write_(modules: Mapping[str, nn.Module], same: list[Slot], contents: Contents) -> None:
    """Write one tensor; of a shared one a copy for each set of owners the file tells apart."""
    parts: list[tuple[Values, Known, list[Slot]]] = []
    for slot in same:
        place = slice(slot.start, slot.start + slot.size)
        values, known = contents.values[place], contents.is_known[place]
        for i, (others, others_known, owners) in enumerate(parts):
            both = known & others_known
            if np.array_equal(values[both], others[both], equal_nan=True):
                joint = np.where(known, values, others), known | others_known
                parts[i] = (*joint, [*owners, slot])
                break
        else:
            parts.append((values, known, [slot]))
    for i, (values, _, owners) in enumerate(parts):
        tensor = torch.from_numpy(values.reshape(owners[0].shape).copy())
        first = getattr(modules[owners[0].module], owners[0].name)
        if i == 0:
            first.data.copy_(tensor)
            continue
        copied = nn.Parameter(tensor, requires_grad=first.requires_grad)
        for slot in owners:
            setattr(modules[slot.module], slot.name, copied)


def _input_quantizer(scale: float, zero_point: int) -> InputQuantizer:
    quantizer = InputQuantizer()
    quantizer.is_observing = False
    quantizer.step.data.fill_(scale)
    quantizer.zero_point.fill_(zero_point)
    return quantizer


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
        CalibrationStatistics(calibration=(inputs,)),
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
