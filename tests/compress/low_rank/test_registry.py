import pytest
from torch import nn

from autocompress.analysis.refusals import layer_kind
from autocompress.compress.low_rank.registry import (
    FACTORIZATIONS,
    find_factorization,
    ranks_of,
    shrinks,
    why_not_factorize,
)
from autocompress.errors import InputError
from autocompress.plan import LayerPlan

KINDS = {
    "linear": nn.Linear(24, 20),
    "embedding": nn.Embedding(24, 20),
    "pointwise": nn.Conv2d(24, 20, 1),
    "conv": nn.Conv2d(24, 20, 3),
    "conv 1-D": nn.Conv1d(24, 20, 5),
    "conv 3-D": nn.Conv3d(24, 20, 3),
    "conv 3 x 1": nn.Conv2d(24, 20, (3, 1)),
    "depthwise": nn.Conv2d(24, 24, 3, groups=24),
    "grouped_conv": nn.Conv2d(24, 24, 3, groups=2),
    "transposed_conv": nn.ConvTranspose2d(24, 20, 2),
    "norm": nn.BatchNorm2d(24),
    "recurrent": nn.LSTM(24, 20),
}
CONVS = {"conv", "conv 1-D", "conv 3-D", "conv 3 x 1"}
TAKES = {
    "svd": {"linear", "embedding", "pointwise", *CONVS},
    "data_svd": {"linear", "pointwise", *CONVS},
    "channel_svd": CONVS,
    "tucker2": CONVS,
    "cp": CONVS,
    "spatial": {"conv"},
    "separable": CONVS,
}


def test_every_method_is_tested():
    assert TAKES.keys() == FACTORIZATIONS.keys()
    assert LayerPlan().factorization in FACTORIZATIONS


@pytest.mark.parametrize("method", sorted(TAKES))
@pytest.mark.parametrize("name", sorted(KINDS))
def test_method_applies_to_the_layers_it_can_split_and_says_why_not_to_others(method, name):
    layer = KINDS[name]
    shape = tuple(layer.weight.shape) if hasattr(layer, "weight") else ()
    reason = why_not_factorize(method, layer_kind(layer), shape)
    assert (reason == "") == (name in TAKES[method])


@pytest.mark.parametrize(
    ("method", "kind", "shape", "reason"),
    [
        ("svd", "recurrent", (), "recurrent layers have no low-rank form here"),
        ("cp", "depthwise", (8, 1, 3, 3), "grouped and depthwise convolutions have no"),
        ("separable", "linear", (8, 8), "it splits kernels, and linear layers have none"),
        ("spatial", "conv", (8, 8, 3, 1), "this one's are 3 x 1"),
        ("data_svd", "embedding", (8, 8), "the input of embedding layers is no vector"),
    ],
)
def test_reasons_name_what_is_missing(method, kind, shape, reason):
    assert reason in why_not_factorize(method, kind, shape)


@pytest.mark.parametrize(
    ("method", "shape", "ratio", "ranks"),
    [
        ("svd", (64, 32), 0.25, (8,)),
        ("svd", (64, 32, 1, 1), 0.25, (8,)),
        ("svd", (64, 32, 3, 3), 0.25, (16, 8)),
        ("tucker2", (64, 32, 3, 3), 0.25, (16, 8)),
        ("channel_svd", (64, 32, 3, 3), 0.25, (16,)),
        ("data_svd", (64, 32, 3, 3), 0.25, (16,)),
        ("spatial", (64, 32, 3, 5), 0.25, (24,)),
        ("separable", (64, 32, 3, 3), 0.25, (2,)),
        ("cp", (64, 32, 3, 3), 0.25, (72,)),
    ],
)
def test_ranks_are_the_share_of_the_full_ranks(method, shape, ratio, ranks):
    assert ranks_of(method, shape, ratio) == ranks


@pytest.mark.parametrize(
    ("method", "shape", "largest_rank"),
    [  # by hand: R (O + n) < O n, R (O + I + K) < O I K, R (I H + O W) < O I H W, I m (O + K) < ...
        ("svd", (64, 32), 21),
        ("channel_svd", (64, 32, 3, 3), 52),
        ("cp", (64, 32, 3, 3), 175),
        ("spatial", (64, 32, 3, 3), 63),
        ("separable", (64, 32, 3, 3), 7),
    ],
)
def test_shrinks_up_to_the_largest_rank_that_saves_weights(method, shape, largest_rank):
    (full,) = ranks_of(method, shape, 1.0)
    assert shrinks(method, shape, largest_rank / full)
    assert not shrinks(method, shape, (largest_rank + 1) / full)


def test_unknown_method_lists_the_choices():
    with pytest.raises(InputError, match=r"'tucker'\. Did you mean 'tucker2'\? .*spatial, svd"):
        find_factorization("tucker")
