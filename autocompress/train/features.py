"""Losses that pull activations inside a candidate towards the base model's.

Neither needs equal widths, so a pruned candidate needs no adapters. Layers correspond by their
names, which survive compression: factors stand in the place of the layer they come from.

Dimension key: `N` examples, `C` channels, `P` positions.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress.errors import InputError, TrialError, unknown_name
from autocompress.tasks.base import Inputs
from autocompress.train.activations import Call, Tap, catching, trace_calls


def similarity_loss(activation: Tensor, wanted: Tensor) -> Tensor:
    """Distance between how alike examples are to one model and to another (Tung & Mori 2019).

    Mean of the squared differences between the matrices of inner products of all examples, whose
    rows are normalised.

    Args:
        activation: Shape (N, ...).
        wanted: Shape (N, ...), of any other width.

    Returns:
        Scalar >= 0; 0 for activations that are equal up to a scale or an order of the channels.
    """
    return (_similarity(activation) - _similarity(wanted)).square().mean()


def _similarity(activation: Tensor) -> Tensor:
    rows = activation.float().flatten(1)  # (N, ...)
    return F.normalize(rows @ rows.T, dim=1)  # (N, N)


def attention_loss(activation: Tensor, wanted: Tensor, channel_dim: int = 1) -> Tensor:
    """Distance between where two models look (attention transfer; Zagoruyko & Komodakis 2017).

    An example's map is the sum over channels of squares at each position, normalised to length 1.

    Args:
        activation: Shape (N, C, ...) with positions in the remaining dimensions, or with the
            channels elsewhere.
        wanted: The same shape but for the number of channels.
        channel_dim: Dimension of the channels.

    Returns:
        Scalar in [0, 2]: squared distance of the maps, mean over examples.
    """
    maps = (_attention_map(x, channel_dim) for x in (activation, wanted))
    return (next(maps) - next(maps)).square().sum(dim=1).mean()


def _attention_map(activation: Tensor, channel_dim: int) -> Tensor:
    energy = activation.float().square().sum(dim=channel_dim)
    return F.normalize(energy.flatten(1), dim=1)  # (N, P)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One way of matching what is inside.

    Attributes:
        weight: Default factor of its loss.
        find: Chooses activations from a base model's calls, given the number of examples.
        loss: Of a candidate's activation, the base model's, and the dimension of their channels.
        needs: What a model must have, for the message where it has none.
    """

    weight: float
    find: Callable[[tuple[Call, ...], int], tuple[Tap, ...]]
    loss: Callable[[Tensor, Tensor, int], Tensor]
    needs: str


def _find_last_stage(calls: tuple[Call, ...], n_examples: int) -> tuple[Tap, ...]:
    """The input of the last layer with weights, if there are such layers before it."""
    weighted = [call for call in calls if call.has_weight]
    last = [c for c in weighted[1:] if len(c.input_shape) > 1 and c.input_shape[0] == n_examples]
    return tuple(Tap(name=call.name, side="input", channel_dim=-1) for call in last[-1:])


def _find_maps(calls: tuple[Call, ...], n_examples: int) -> tuple[Tap, ...]:
    """For each size of maps, the last output before the last layer with weights."""
    ends = [i for i, call in enumerate(calls) if call.has_weight]
    taps: dict[tuple[int, ...], Tap] = {}
    for call in calls[: ends[-1]] if ends else ():
        if call.n_positions > 1 and call.output_shape[0] == n_examples:
            size = _without(call.output_shape, call.channel_dim)
            taps[size] = Tap(name=call.name, side="output", channel_dim=call.channel_dim)
    return tuple(taps.values())


# Weights: of 0.1 to 10,000 the largest at which a digits net with a quarter of its channels gained
# in cross-entropy; ten times as much cost it some.
FEATURES: dict[str, Feature | None] = {
    "none": None,
    "similarity": Feature(
        weight=10.0,
        find=_find_last_stage,
        loss=lambda activation, wanted, channel_dim: similarity_loss(activation, wanted),
        needs="layer with weights before its last one",
    ),
    "attention": Feature(
        weight=1.0,
        find=_find_maps,
        loss=attention_loss,
        needs="activations of 2 or more positions before its last layer",
    ),
}


def find_taps(kind: str, base: nn.Module, inputs: Inputs) -> tuple[Tap, ...]:
    """Choose what is matched inside a model, by the order in which one run calls its modules.

    Args:
        kind: Name in `FEATURES`.
        base: The original model.
        inputs: Inputs of two or more examples, on the model's device.

    Raises:
        InputError: If there is no such kind, or nothing inside the model to match.
    """
    if kind not in FEATURES:
        raise unknown_name("features", kind, FEATURES)
    feature = FEATURES[kind]
    return () if feature is None else _choose(kind, feature, trace_calls(base, inputs), inputs)


@contextlib.contextmanager
def matching(
    kind: str, base: nn.Module, candidate: nn.Module, inputs: Inputs
) -> Iterator[Callable[[], Tensor] | None]:
    """Match a candidate's activations to the base model's inside the block.

    Args:
        kind: Name in `FEATURES`.
        base: The original model.
        candidate: Made from it.
        inputs: Inputs of two or more examples, on the models' device, for one trial run.

    Yields:
        The mean of the losses, to be called after both models have run on the same batch; None if
        nothing is matched.

    Raises:
        InputError: If there is nothing inside the base model to match.
        TrialError: If nothing of it is left in the candidate.
    """
    feature = FEATURES[kind]
    if feature is None:
        yield None
        return
    calls = trace_calls(base, inputs)
    chosen = _choose(kind, feature, calls, inputs)
    taps = _common(chosen, calls, trace_calls(candidate, inputs))
    if not taps:
        raise TrialError("no_features", f"The candidate has no features={kind!r} left to match.")
    with catching(base, taps) as wanted, catching(candidate, taps) as caught:

        def loss() -> Tensor:
            losses = [feature.loss(caught[tap], wanted[tap], tap.channel_dim) for tap in taps]
            return torch.stack(losses).mean()

        yield loss


def _choose(
    kind: str, feature: Feature, calls: tuple[Call, ...], inputs: Inputs
) -> tuple[Tap, ...]:
    if taps := feature.find(calls, len(inputs[0])):
        return taps
    raise InputError(
        f"features={kind!r} must have something to match, but the model has no {feature.needs}.",
        "Use features: none.",
    )


def _common(
    taps: tuple[Tap, ...], base: tuple[Call, ...], candidate: tuple[Call, ...]
) -> tuple[Tap, ...]:
    """The taps that are there in the candidate, with equal sizes of maps."""
    of_base = {call.name: call for call in base}
    of_candidate = {call.name: call for call in candidate}
    return tuple(
        tap
        for tap in taps
        if tap.name in of_candidate
        and (
            tap.side == "input"
            or _without(of_candidate[tap.name].output_shape, tap.channel_dim)
            == _without(of_base[tap.name].output_shape, tap.channel_dim)
        )
    )


def _without(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    """A shape without one dimension; empty if it has none."""
    return tuple(n for i, n in enumerate(shape) if i != dim % len(shape)) if shape else ()
