"""Which weights of a matrix become zero: single ones, N of every M, or whole blocks.

Dimension key: `O` outputs and `n` inputs of a weight seen as a matrix, `M` weights of a group,
`R` x `S` weights of a block.
"""

import dataclasses
import math
import re
from typing import Final

import torch
from torch import Tensor

from autocompress.analysis.refusals import LayerKind
from autocompress.compress.magnitude_masks import (
    block_scores,
    group_mask,
    keep_highest,
    n_zeros,
    unstructured_mask,
)
from autocompress.errors import InputError

GROUP_SIZES: Final = (4, 8, 16)
_MAX_BLOCK: Final = 64
_SPARSE_KINDS: Final[frozenset[LayerKind]] = frozenset(
    {
        "conv",
        "pointwise",
        "depthwise",
        "grouped_conv",
        "linear",
        "transposed_conv",
        "embedding",
        "recurrent",
    }
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Where the zeros of a weight may lie.

    Attributes:
        name: As search-space files write it.
        block: Rows and columns that become zero together; (1, 1) for single weights.
        group_size: M of N:M, where every M weights in a row keep the same number; 0 for no groups.
    """

    name: str
    block: tuple[int, int] = (1, 1)
    group_size: int = 0

    def mask(self, weight: Tensor, sparsity: float, earlier: Tensor | None = None) -> Tensor:
        """Choose the weights that stay: the largest.

        Args:
            weight: Shape (O, n).
            sparsity: Share of zeros, in [0, 1); at least one weight stays.
            earlier: Mask whose zeros remain zeros, shape (O, n); they count as the smallest.

        Returns:
            Shape (O, n), bool: False where the weight becomes zero.
        """
        if self.group_size:
            mask = group_mask(weight, sparsity, self.group_size, earlier)
        elif self.block == (1, 1):
            mask = unstructured_mask(weight, sparsity, earlier)
        else:
            scores = block_scores(weight, self.block, earlier)
            kept = keep_highest(scores, n_zeros(scores.numel(), sparsity))
            mask = self.spread(kept, weight.shape)
        return mask if earlier is None else mask & earlier

    def spread(self, kept_blocks: Tensor, shape: torch.Size) -> Tensor:
        """Repeat one bool per block over its weights: (O / R, n / S) rounded up -> (O, n)."""
        rows, columns = self.block
        if self.block == (1, 1):
            return kept_blocks
        spread = kept_blocks.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
        return spread[: shape[0], : shape[1]]


def find_pattern(name: str) -> Pattern:
    """Parse the name of a pattern.

    Raises:
        InputError: If it has none of the known forms.

    >>> find_pattern("block:4x1").block
    (4, 1)
    """
    if name == "unstructured":
        return Pattern(name=name)
    if name in {f"n:{size}" for size in GROUP_SIZES}:
        return Pattern(name=name, group_size=int(name[2:]))
    if form := re.fullmatch(r"block:([1-9][0-9]?)x([1-9][0-9]?)", name):
        rows, columns = int(form[1]), int(form[2])
        if max(rows, columns) <= _MAX_BLOCK:
            return Pattern(name=name, block=(rows, columns))
    groups = ", ".join(f"'n:{size}'" for size in GROUP_SIZES)
    raise InputError(
        f"Unknown sparsity pattern {name!r}.",
        f"Write 'unstructured', {groups}, or 'block:RxC' for blocks of R outputs by C inputs, "
        f"each at most {_MAX_BLOCK}, such as 'block:1x4'.",
    )


def matrix_shape(kind: LayerKind, shape: tuple[int, ...]) -> tuple[int, int]:
    """Shape (O, n) of a weight seen as a matrix; a kernel's row is its inputs x pixels."""
    outputs, inputs = (shape[1], shape[0]) if kind == "transposed_conv" else (shape[0], shape[1])
    return outputs, inputs * math.prod(shape[2:])


def why_not_sparsify(pattern: str, kind: LayerKind, shape: tuple[int, ...]) -> str:
    """Why a layer cannot take a pattern; empty if it can.

    Args:
        pattern: Name of the pattern.
        kind: What the layer is.
        shape: Of its `weight`; empty for recurrent layers, whose matrices have other names.

    Raises:
        InputError: If there is no such pattern.
    """
    found = find_pattern(pattern)
    if kind not in _SPARSE_KINDS:
        return f"sparsity is for layers with a weight matrix, and this is of kind '{kind}'"
    if kind == "recurrent" and len(shape) < 2:
        return ""
    if len(shape) < 2:
        return "it has no weight matrix of its own"
    outputs, inputs = matrix_shape(kind, shape)
    if outputs * inputs < 2:
        return "its weight is a single number"
    if found.group_size > inputs:
        return f"each output reads {inputs} weights, fewer than a group of {found.group_size}"
    if found.block[0] > outputs or found.block[1] > inputs:
        return f"its {outputs} x {inputs} matrix is smaller than the blocks of '{pattern}'"
    if found.block == (outputs, inputs):
        return f"its {outputs} x {inputs} matrix is a single block of '{pattern}'"
    return ""


def realised_sparsity(
    pattern: str, shape: tuple[int, ...], sparsity: float, kind: LayerKind = "linear"
) -> float:
    """Share of zeros that a layer gets when `sparsity` is asked for; local scope.

    Where blocks do not divide the matrix it is the share of its blocks, since which of them become
    zero decides how many weights do. For a recurrent layer, whose matrices have no common shape,
    it is the share of a whole group, or what is asked for where there are no groups.

    Args:
        pattern: Name of the pattern.
        shape: Of the layer's `weight`, as in `LayerInfo.weight_shape`.
        sparsity: Share asked for, in [0, 1).
        kind: What the layer is.

    >>> [realised_sparsity("n:4", (8, 16), sparsity) for sparsity in (0.1, 0.75, 0.9)]
    [0.0, 0.75, 0.75]
    """
    found = find_pattern(pattern)
    if len(shape) < 2:
        size = found.group_size
        return n_zeros(size, sparsity) / size if size else sparsity
    outputs, inputs = matrix_shape(kind, shape)
    if found.group_size:
        n_groups, rest = divmod(inputs, found.group_size)
        zeros = n_groups * n_zeros(found.group_size, sparsity)
        return (zeros + (n_zeros(rest, sparsity) if rest else 0)) / inputs
    n_blocks = math.ceil(outputs / found.block[0]) * math.ceil(inputs / found.block[1])
    return n_zeros(n_blocks, sparsity) / n_blocks
