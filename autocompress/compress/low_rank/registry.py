"""Every way to split a weight: an extension point, one function pair and one line each.

`svd`, the default, is truncated SVD where a layer is a matrix and Tucker-2 where it has a kernel.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Final

from torch import Tensor, nn

from autocompress.analysis.refusals import LayerKind, why_no_factors
from autocompress.compress.input_moments import why_no_moment
from autocompress.compress.low_rank.cp import cp_ranks, cp_size, split_cp
from autocompress.compress.low_rank.data_svd import split_for_outputs
from autocompress.compress.low_rank.factor_layers import Factorizable
from autocompress.compress.low_rank.separable import (
    separable_ranks,
    separable_size,
    split_separably,
)
from autocompress.compress.low_rank.spatial import spatial_ranks, spatial_size, split_spatially
from autocompress.compress.low_rank.svd import Shape, matrix_ranks, matrix_size, split_matrix
from autocompress.compress.low_rank.tucker2 import kernel_ranks, kernel_size, split_kernel
from autocompress.entry_points import Registry


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FactorizationSpec:
    """One way to split a weight.

    Attributes:
        why_not: (kind, weight shape) of a layer -> why it cannot be split so; "" if it can.
        ranks: (weight shape, rank_ratio) -> the ranks kept.
        size: (weight shape, rank_ratio) -> weights in all factors together.
        split: (layer, rank_ratio, second moment) -> the factors as plain layers in a row.
        needs_data: Whether `split` needs the second moment of the layer's outputs, see
            `output_moments`; the others ignore it.
        packages: Distributions that it needs and that are not always installed; an extra of the
            same name installs each.
    """

    why_not: Callable[[LayerKind, Shape], str]
    ranks: Callable[[Shape, float], tuple[int, ...]]
    size: Callable[[Shape, float], int]
    split: Callable[[Factorizable, float, Tensor | None], nn.Sequential]
    needs_data: bool = False
    packages: tuple[str, ...] = ()

    def shrinks(self, shape: Shape, rank_ratio: float) -> bool:
        """Whether the factors hold fewer weights than a weight of this shape."""
        return self.size(shape, rank_ratio) < math.prod(shape)


def find_factorization(name: str) -> FactorizationSpec:
    """Look a method up.

    Raises:
        InputError: If there is none of this name; lists those there are.
    """
    return FACTORIZATION_REGISTRY.find(name)


def why_not_factorize(method: str, kind: LayerKind, shape: Shape) -> str:
    """Why a layer of this kind and weight shape cannot be split so; "" if it can.

    Raises:
        InputError: If there is no such method.
    """
    return find_factorization(method).why_not(kind, shape)


def shrinks(method: str, shape: Shape, rank_ratio: float) -> bool:
    """Whether the factors of a weight that can be split so hold fewer weights than it.

    Raises:
        InputError: If there is no such method.
    """
    return find_factorization(method).shrinks(shape, rank_ratio)


def ranks_of(method: str, shape: Shape, rank_ratio: float) -> tuple[int, ...]:
    """The ranks that a ratio keeps of a weight that can be split so.

    Raises:
        InputError: If there is no such method.
    """
    return find_factorization(method).ranks(shape, rank_ratio)


def _is_matrix(shape: Shape) -> bool:
    return math.prod(shape[2:]) == 1


def _default_ranks(shape: Shape, rank_ratio: float) -> tuple[int, ...]:
    return (matrix_ranks if _is_matrix(shape) else kernel_ranks)(shape, rank_ratio)


def _default_size(shape: Shape, rank_ratio: float) -> int:
    return (matrix_size if _is_matrix(shape) else kernel_size)(shape, rank_ratio)


def _default_split(
    layer: Factorizable, rank_ratio: float, second_moment: Tensor | None
) -> nn.Sequential:
    split = split_matrix if _is_matrix(tuple(layer.weight.shape)) else split_kernel
    return split(layer, rank_ratio, second_moment)


def _why_no_factors(kind: LayerKind, shape: Shape) -> str:
    return why_no_factors(kind)


def _why_no_kernel(kind: LayerKind, shape: Shape) -> str:
    if reason := _why_no_factors(kind, shape):
        return reason
    return "" if kind == "conv" else f"it splits kernels, and {kind} layers have none"


def _why_no_sides(kind: LayerKind, shape: Shape) -> str:
    if reason := _why_no_kernel(kind, shape):
        return reason
    if len(shape) != 4 or 1 in shape[2:]:
        sides = " x ".join(map(str, shape[2:]))
        return f"it splits kernels of two sides above 1, and this one's are {sides}"
    return ""


def _why_no_data(kind: LayerKind, shape: Shape) -> str:
    if kind == "embedding":
        return "the input of embedding layers is no vector whose statistics could weigh errors"
    if reason := _why_no_factors(kind, shape):
        return reason
    return why_no_moment(shape[0], "outputs")


FACTORIZATIONS: Final[Mapping[str, FactorizationSpec]] = {
    "svd": FactorizationSpec(
        why_not=_why_no_factors, ranks=_default_ranks, size=_default_size, split=_default_split
    ),
    "data_svd": FactorizationSpec(
        why_not=_why_no_data,
        ranks=matrix_ranks,
        size=matrix_size,
        split=split_for_outputs,
        needs_data=True,
    ),
    "channel_svd": FactorizationSpec(
        why_not=_why_no_kernel, ranks=matrix_ranks, size=matrix_size, split=split_matrix
    ),
    "tucker2": FactorizationSpec(
        why_not=_why_no_kernel, ranks=kernel_ranks, size=kernel_size, split=split_kernel
    ),
    "cp": FactorizationSpec(why_not=_why_no_kernel, ranks=cp_ranks, size=cp_size, split=split_cp),
    "spatial": FactorizationSpec(
        why_not=_why_no_sides, ranks=spatial_ranks, size=spatial_size, split=split_spatially
    ),
    "separable": FactorizationSpec(
        why_not=_why_no_kernel, ranks=separable_ranks, size=separable_size, split=split_separably
    ),
}
FACTORIZATION_REGISTRY: Final = Registry(
    kind="factorization",
    group="autocompress.factorizations",
    built_in=FACTORIZATIONS,
    is_row=lambda row: isinstance(row, FactorizationSpec),
)
