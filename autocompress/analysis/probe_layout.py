"""How examples and channels lie in a tensor, and which of them differ between two passes.

Dimension key: `B` examples of a pass, `C` channels.
"""

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_TOLERANCE = 1e-5  # of the largest number: far above rounding, far below what a perturbation does


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How examples lie in a tensor.

    Attributes:
        shape: Of the tensor in a pass with one example.
        batch_dim: Dimension along which examples follow each other; None if the tensor is the
            same for all of them.
    """

    shape: tuple[int, ...]
    batch_dim: int | None


def layout_of(shape_of_two: tuple[int, ...], shape_of_three: tuple[int, ...]) -> Layout:
    """Find the batch dimension from the shapes of one tensor in passes of 2 and of 3 examples.

    Raises:
        ValueError: If no single dimension grows in proportion.

    >>> layout_of((2, 8, 5), (3, 8, 5))
    Layout(shape=(1, 8, 5), batch_dim=0)
    >>> layout_of((8, 14), (8, 21))
    Layout(shape=(8, 7), batch_dim=1)
    """
    dims = [d for d, (a, b) in enumerate(zip(shape_of_two, shape_of_three, strict=True)) if a != b]
    if not dims:
        return Layout(shape=shape_of_two, batch_dim=None)
    dim = dims[0]
    if len(dims) > 1 or shape_of_two[dim] * 3 != shape_of_three[dim] * 2:
        msg = f"a tensor of shape {shape_of_two} for 2 examples has {shape_of_three} for 3"
        raise ValueError(msg)
    shape = list(shape_of_two)
    shape[dim] //= 2
    return Layout(shape=tuple(shape), batch_dim=dim)


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Numbers between 0.5 and 1.5 with random signs: none is small, so none passes unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(shape, generator=generator) * 2 - 1
    return drawn.sign() * 0.5 + drawn


def repeat_examples(single: Tensor, layout: Layout, n_examples: int) -> Tensor:
    """The tensor of a pass with one example, as often as a pass has examples; a copy."""
    if layout.batch_dim is None:
        return single.clone()
    return torch.cat([single] * n_examples, dim=layout.batch_dim)


def changed_channels(
    tensor: Tensor,
    layout: Layout,
    channel_dim: int | None,
    n_examples: int,
    reference: Tensor | None = None,
) -> NDArray[np.bool_]:
    """Which channels of which examples differ from the untouched ones.

    Args:
        tensor: From a pass of `n_examples`.
        layout: Of `tensor`.
        channel_dim: Dimension of the channels; None if they do not matter (C = 1).
        n_examples: B.
        reference: The untouched tensor, of the same shape; None for the last example of `tensor`,
            which nothing reaches if the examples share it.

    Returns:
        Shape (B, C).

    Raises:
        ValueError: If examples and channels lie along one dimension.
    """
    dim = layout.batch_dim
    if dim is not None and dim == channel_dim:
        msg = f"the examples of a tensor of shape {layout.shape} lie along its channels"
        raise ValueError(msg)
    if dim is None and reference is None:
        n_channels = 1 if channel_dim is None else tensor.shape[channel_dim]
        return np.zeros((n_examples, n_channels), dtype=np.bool_)
    rows = _as_rows(tensor, dim, channel_dim, n_examples)  # (B, n, C)
    if reference is None:
        untouched = rows[-1:]
    else:
        untouched = _as_rows(reference, dim, channel_dim, n_examples)
    scale = float(untouched.abs().max()) if untouched.numel() else 0.0
    largest = torch.linalg.vector_norm(rows - untouched, ord=torch.inf, dim=1)
    changes = largest > _TOLERANCE * scale
    return changes.numpy()


def _as_rows(
    tensor: Tensor, batch_dim: int | None, channel_dim: int | None, n_examples: int
) -> Tensor:
    tensor = tensor.detach().float().cpu()
    if not bool(
        torch.isfinite(tensor.sum())
    ):  # a sum is read faster than every number is looked at
        tensor = torch.nan_to_num(tensor, posinf=0.0, neginf=0.0)
    if batch_dim is None:
        tensor, batch_dim = tensor[None], 0
        channel_dim = None if channel_dim is None else channel_dim + 1
        n_examples = 1
    if channel_dim is None:
        tensor, channel_dim = tensor[..., None], tensor.ndim
    rows = tensor.movedim((batch_dim, channel_dim), (0, -1))
    return rows.reshape(n_examples, -1, rows.shape[-1])
