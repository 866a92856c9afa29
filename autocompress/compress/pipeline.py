"""The one order: prune, factorize, quantize. Turns a plan into a model."""

import copy
import dataclasses
import itertools

import torch
from torch import nn

from autocompress.analysis.channel_groups import ChannelGroup
from autocompress.compress.codes import ActivationRange, QuantizedTensor
from autocompress.compress.importance import Gradients
from autocompress.compress.low_rank import factorize_
from autocompress.compress.prune import prune_
from autocompress.compress.quantize import QUANTIZED, freeze_, quantize_
from autocompress.errors import InputError, TrialError, first_line
from autocompress.plan import FULL_BITS, CompressionPlan
from autocompress.tasks.base import Inputs


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PruningPolicy:
    """How channels are chosen.

    Attributes:
        criterion: Name in `importance.CRITERIA`.
        round_to: Kept widths are multiples of this.
    """

    criterion: str = "l2"
    round_to: int = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A model built from a plan, not yet tuned.

    Attributes:
        model: A copy; the base model is untouched.
        skipped: What was asked for and not done, one line each.
    """

    model: nn.Module
    skipped: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deployable:
    """A candidate as runtimes see it: a plain float model and the integers behind its weights.

    Attributes:
        model: In eval mode; quantized layers hold exactly dequantized weights.
        weights: Layer name -> codes and scales of its weight.
        activations: Layer name -> unsigned 8-bit grid of its input, where it runs in integers.
    """

    model: nn.Module
    weights: dict[str, QuantizedTensor]
    activations: dict[str, ActivationRange]


def apply_plan(
    model: nn.Module,
    plan: CompressionPlan,
    groups: tuple[ChannelGroup, ...],
    example_inputs: Inputs,
    policy: PruningPolicy,
    gradients: Gradients | None = None,
) -> Candidate:
    """Build a candidate from a copy of the base model and run it once.

    torch's fused encoder kernel is switched off for the process: in eval mode it reads the weights
    of nn.TransformerEncoderLayer past the forward of the layers that hold them, and so would
    ignore whatever is done to those.

    Args:
        model: The base model; not modified.
        plan: What to do.
        groups: The model's channel groups, from its profile.
        example_inputs: Inputs the model runs on, each of shape (N, ...).
        policy: How channels are chosen.
        gradients: Parameter name -> gradient of the base model, if the criterion needs them.

    Raises:
        InputError: If the plan names a group or layer that the model does not have.
        TrialError: If the candidate does not run.
    """
    _check_names(model, plan, groups)
    torch.backends.mha.set_fastpath_enabled(False)
    candidate = copy.deepcopy(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        candidate.requires_grad_(True)  # loaded for inference; with some frozen, those stay so
    skipped: list[str] = []
    by_name = {group.name: group for group in groups}
    n_removed = prune_(
        candidate,
        [(by_name[name], ratio) for name, ratio in plan.pruning_ratios.items()],
        criterion=policy.criterion,
        round_to=policy.round_to,
        gradients=gradients,
    )
    skipped += [
        f"pruning_ratio={plan.pruning_ratios[name]:g} of '{name}' skipped: "
        f"{by_name[name].n_channels} channels stay when rounded to multiples of {policy.round_to}"
        for name, n in n_removed.items()
        if n == 0
    ]
    for name, layer in plan.layers.items():
        if layer.rank_ratio < 1.0:
            skipped.append(factorize_(candidate, name, layer.rank_ratio))
    for name, layer in plan.layers.items():
        if layer.weight_bits < FULL_BITS:
            quantize_(candidate, name, layer.weight_bits, layer.activation_bits)
        elif layer.activation_bits < FULL_BITS:
            skipped.append(
                f"activation_bits={layer.activation_bits} of '{name}' skipped: "
                "its weights stay float, and integer kernels need both operands"
            )
    _run_once(candidate, example_inputs)
    return Candidate(model=candidate, skipped=tuple(filter(None, skipped)))


def make_deployable(model: nn.Module) -> Deployable:
    """Freeze a copy of a candidate into what runtimes and files need; `model` is not modified."""
    frozen = copy.deepcopy(model).eval()
    weights, activations = freeze_(frozen)
    return Deployable(model=frozen, weights=weights, activations=activations)


def _check_names(model: nn.Module, plan: CompressionPlan, groups: tuple[ChannelGroup, ...]) -> None:
    known_groups = {group.name for group in groups}
    known_layers = dict(model.named_modules())
    for name in itertools.chain(
        (n for n in plan.pruning_ratios if n not in known_groups),
        (n for n in plan.layers if n not in known_layers),
    ):
        raise InputError(
            f"The plan names {name!r}, but the model has no such channel group or layer.",
            "The plan was made for another model, or for another version of it.",
        )
    for name in plan.layers:
        if type(known_layers[name]) not in QUANTIZED:
            raise InputError(
                f"The plan asks for a rank or bits of {name!r}, but it must be a plain Linear or "
                f"convolution and is a {type(known_layers[name]).__name__}."
            )


def _run_once(model: nn.Module, inputs: Inputs) -> None:
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(*inputs)
    except Exception as error:
        raise TrialError(
            "does_not_run", f"The candidate does not run: {first_line(error)}."
        ) from error
    finally:
        model.train(was_training)
