"""Proof of a channel group: the cut model must compute what one that ignores the channels does."""

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autocompress.analysis.cut import Cut, cut_channels_, doomed_channels
from autocompress.analysis.slots import slots_of
from autocompress.errors import first_line
from autocompress.tasks.base import Inputs

NO_CONSUMER = "no layer consumes its channels: they are the model's output"
DOES_NOT_RUN = "the cut model does not run"
_TOLERANCE = 1e-4  # of the largest output


def every_other(n_channels: int) -> NDArray[np.int64]:
    """Channels 0, 2, 4, ... of a group; at least one, never all of two or more."""
    return np.arange(0, n_channels, 2, dtype=np.int64)[: max(1, n_channels // 2)]


def irregular(n_channels: int) -> NDArray[np.int64]:
    """A third of a group's channels without a pattern, the last one among them.

    A shuffle of channels survives the loss of every other one by accident, but not this.
    """
    order = np.random.default_rng(n_channels).permutation(n_channels - 1)
    chosen = order[: max(1, n_channels // 3) - 1]
    return np.sort(np.append(chosen, n_channels - 1)).astype(np.int64)


def why_not_exact(model: nn.Module, cuts: Sequence[Cut], inputs: Inputs) -> str:
    """Cut channels; compare with the model whose consumers ignore them.

    Args:
        model: In eval mode; changed meanwhile, and restored.
        cuts: Groups to be proved, each with some of its channels.
        inputs: Inputs the model runs on.

    Returns:
        Why the two differ; empty if they do not.
    """
    try:
        with torch.no_grad():
            with ignored(model, cuts) as has_consumer:
                if not has_consumer:
                    return NO_CONSUMER
                expected = model(*inputs)
            with _restored(model):
                cut_channels_(model, cuts)
                actual = model(*inputs)
    except Exception as error:  # noqa: BLE001 - a wrong cut surfaces as any exception of a forward
        return f"{DOES_NOT_RUN}: {first_line(error)}"
    for want, got in zip(tensors_in(expected), tensors_in(actual), strict=True):
        if want.shape != got.shape:
            return (
                f"cutting it changes the output's shape {tuple(want.shape)} to {tuple(got.shape)}"
            )
        scale = float(want.abs().max()) + 1e-12
        if not torch.allclose(want, got, rtol=0.0, atol=_TOLERANCE * scale):
            error_share = float((want - got).abs().max()) / scale
            return f"the cut model differs from the masked one by {error_share:.1%}"
    return ""


@contextlib.contextmanager
def ignored(model: nn.Module, cuts: Iterable[Cut]) -> Iterator[bool]:
    """The model with zeros for all weights that read some channels; restored afterwards.

    Recurrent layers read their own hidden units as well.

    Yields:
        Whether another layer reads any.
    """
    modules = dict(model.named_modules())
    before: list[tuple[Tensor, Tensor]] = []
    has_consumer = False
    try:
        for layer, sides in doomed_channels(modules, cuts).items():
            reads = [(side, slot) for side in sides for slot in slots_of(modules[layer], side)]
            for side, slot in reads:
                if slot.is_read:
                    has_consumer |= side == "in"
                    weight = getattr(modules[layer], slot.tensor).data
                    before.append((weight, weight.clone()))
                    indices = torch.from_numpy(slot.indices(sides[side])).to(weight.device)
                    weight.index_fill_(slot.dim, indices, 0.0)
        yield has_consumer
    finally:
        for weight, values in reversed(before):
            weight.copy_(values)


@contextlib.contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Undo what a cut does: it puts other tensors and numbers in place, and changes no tensor."""
    kinds = (dict, list)  # tables of tensors, and what recurrent layers keep beside them
    before = [
        (m, {k: copy.copy(v) if type(v) in kinds else v for k, v in vars(m).items()})
        for m in model.modules()
    ]
    try:
        yield
    finally:
        for module, attributes in before:
            module.__dict__.update(attributes)


def tensors_in(output: object) -> list[Tensor]:
    """All float tensors of a model's output, whatever holds them."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [tensor for part in output for tensor in tensors_in(part)]
    return []
