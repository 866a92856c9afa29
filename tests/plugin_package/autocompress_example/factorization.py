import torch

from autocompress.compress.low_rank.factor_layers import in_a_row, linear_of
from autocompress.compress.low_rank.registry import FactorizationSpec
from autocompress.compress.low_rank.svd import matrix_ranks, matrix_size


def split(layer, rank_ratio, second_moment):
    """A linear layer as two, by randomized SVD (Halko et al. 2011)."""
    weight = layer.weight.detach()
    (rank,) = matrix_ranks(tuple(weight.shape), rank_ratio)
    left, values, right = torch.svd_lowrank(weight, rank)
    return in_a_row(layer, reduce=linear_of((right * values).T), expand=linear_of(left, layer.bias))


RANDOM_SVD = FactorizationSpec(
    why_not=lambda kind, shape: "" if kind == "linear" else f"it splits no {kind} layers",
    ranks=matrix_ranks,
    size=matrix_size,
    split=split,
)
