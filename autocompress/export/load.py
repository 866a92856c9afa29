"""A packed file as a PyTorch model: `autocompress.load`."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from autocompress.analysis.channel_groups import find_channel_groups
from autocompress.compress.model_copy import copy_model
from autocompress.compress.prune import PruningPolicy
from autocompress.errors import InputError, TrialError, first_line
from autocompress.export.loading.agreement import check_agreement, inputs_for
from autocompress.export.loading.contents import Contents, read_contents
from autocompress.export.loading.marks import Marks
from autocompress.export.loading.rebuild import marked_graph, refill_, structure_of
from autocompress.export.loading.widths import packed_sizes, plan_of_sizes
from autocompress.packing.packed import read_packed
from autocompress.plan import CompressionPlan
from autocompress.tasks.base import Inputs
from autocompress.tasks.explicit_attention import make_attention_explicit

_SEED = 0
_STEPS = (PruningPolicy().round_to, 1)  # a plan says what share goes, not how it is rounded


def load(
    path: str | Path, model: nn.Module, example_inputs: Tensor | Inputs | None = None
) -> nn.Module:
    """Turn a packed file into a PyTorch model, to evaluate, inspect or train on.

    The plan in the file is applied to a copy of `model`, and all of its values are replaced by the
    file's; nothing is unpickled. Which value belongs where is told by exporting the copy with
    numbers that name their places, and walking its graph and the file's together.

    The result is plain: weights hold what their codes stand for. Batch-norms that the file has
    folded are `nn.Identity`, and their layers have a bias. `nn.MultiheadAttention` is spelled out
    in linear layers, as it was for the search. Elements that the graph never reads (positions
    beyond the packed length, heads that only training uses) are not in the file and become NaN, so
    that their use cannot go unnoticed.

    Before it is returned, the model is compared with the file's graph in ONNX Runtime on the
    example inputs and on random ones: outputs must agree to 1e-3 of the largest value (1e-6 is
    usual). In files with 8-bit activations, layers get the file's activation grids
    (`InputQuantizer`). The file rounds to 8 bits in other places as well, before additions for
    instance, and the model does
    not: outputs then agree to the rounding of 8-bit arithmetic (a few per cent of the largest value
    are usual) and must agree to 15 % of it. Only the unpacked ONNX file has the accuracy that was
    measured, to the last bit. Files with dynamic integer layers are not loaded.

    Args:
        path: What `export` or `write_packed` wrote, with a plan.
        model: The uncompressed model the search started from, or one of its architecture with any
            weights, float32; not modified. Where the graph depends on which channels were kept (by
            indices that the export baked in), only the trained model will do.
        example_inputs: One tensor for each of the model's inputs, examples in dimension 0. Without
            them, inputs of the file's shapes are made up: normal noise, or zeros and ones for
            integers.

    Returns:
        A new model on the CPU, in eval mode.

    Raises:
        InputError: If the file is damaged or holds no plan, the plan does not fit the model, the
            file was packed from another architecture, or the loaded model does not agree with it.
    """
    packed = read_packed(Path(path))
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        return _load(packed.graph, _plan_of(packed.metadata), model, example_inputs)
    except (InputError, TrialError) as error:
        message = error.message[:1].lower() + error.message[1:]
        raise InputError(f"{str(path)!r} cannot be loaded: {message}", error.hint) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)  # `apply_plan` switches it off


def _load(
    graph: onnx.ModelProto,
    plan: CompressionPlan,
    model: nn.Module,
    example_inputs: Tensor | Inputs | None,
) -> nn.Module:
    if any(node.op_type.startswith("DynamicQuantize") for node in graph.graph.node):
        raise InputError(
            "Its integer layers choose their activation grids when they run, and PyTorch has no "
            "such layers.",
            "Search with `integer=static`, or use the unpacked ONNX file.",
        )
    generator = torch.Generator().manual_seed(_SEED)
    inputs = inputs_for(graph, example_inputs, generator)
    base = make_attention_explicit(copy_model(model).cpu().eval())
    _check_model(base, inputs)
    loaded, marks, contents = _match(graph, base, plan, inputs)
    refill_(loaded, marks, contents)
    check_agreement(loaded, graph, inputs, generator)
    return loaded


def _match(
    graph: onnx.ModelProto, base: nn.Module, plan: CompressionPlan, inputs: Inputs
) -> tuple[nn.Module, Marks, Contents]:
    """Build what was packed, and say what the file has for it.

    Raises:
        InputError: If no way to round the plan's ratios gives what was packed: why the first, the
            usual one, does not.
    """
    groups = find_channel_groups(base, inputs)[0] if plan.pruning_ratios else ()
    reasons: list[InputError] = []
    for round_to in _STEPS if plan.pruning_ratios else _STEPS[:1]:
        built = structure_of(base, plan, groups, inputs, round_to)
        fresh, marks = marked_graph(built, inputs)
        try:
            return built, marks, read_contents(fresh, graph, marks)
        except InputError as error:
            reasons.append(error)
        sizes = packed_sizes(fresh, graph, marks)
        exact = plan_of_sizes(plan, base, groups, sizes)
        if exact == plan:
            continue
        with contextlib.suppress(InputError, TrialError):
            built = structure_of(base, exact, groups, inputs, round_to=1)
            fresh, marks = marked_graph(built, inputs)
            return built, marks, read_contents(fresh, graph, marks)
    raise reasons[0]


def _plan_of(metadata: Mapping[str, Any]) -> CompressionPlan:
    if "plan" not in metadata:
        raise InputError(
            "Its metadata must hold the plan it was made by, but has none.",
            "Pack it with {'plan': plan.to_json()} as metadata, or use the unpacked ONNX file.",
        )
    return CompressionPlan.from_json(metadata["plan"])


def _check_model(model: nn.Module, inputs: Inputs) -> None:
    """Raise an InputError unless a model is float32 and runs."""
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise InputError(
                f"The model's parameters must be float32, but {name!r} is {parameter.dtype}.",
                "Give the model as model.float().",
            )
    try:
        with torch.no_grad():
            model(*inputs)
    except Exception as error:
        shapes = [tuple(x.shape) for x in inputs]
        raise InputError(
            f"The model must run on inputs of the shapes {shapes}, but raised "
            f"{type(error).__name__}: {first_line(error)}.",
            "Give the uncompressed model of the packed architecture, and `example_inputs`.",
        ) from error
