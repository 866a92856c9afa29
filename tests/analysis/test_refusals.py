import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

from autocompress.analysis.refusals import (
    COMPRESSIBLE,
    layer_kind,
    refusals_of,
    why_no_factors,
    why_no_input_grid,
)
from autocompress.compress.compressed_layers import COMPRESSED
from autocompress.compress.low_rank.registry import FACTORIZATIONS

TECHNIQUES = {
    *("weight_bits", "activation_bits", "rate_price"),
    *("rank_ratio", "sparsity", "shared_with"),
}
ROUNDED_TO_NEAREST = {"activation_bits", "rate_price", "shared_with"}


def _refusals(module, n_calls=1, tied_to="", is_tied=False, **ties):
    return refusals_of(module, n_calls, tied_to=tied_to, is_tied=is_tied, **ties)


def test_what_is_not_refused_can_be_compressed():
    assert set(COMPRESSIBLE) == set(COMPRESSED)


@pytest.mark.parametrize(
    ("module", "refused"),
    [
        (nn.Linear(4, 4), set()),
        (nn.Conv1d(4, 4, 3), set()),
        (nn.Conv2d(4, 4, 1), set()),
        (nn.Conv3d(4, 4, 3), set()),
        (nn.Conv2d(4, 4, 3, groups=2), {"rank_ratio"}),
        (nn.Conv2d(4, 4, 3, groups=4), {"rank_ratio"}),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), set()),
        (nn.Conv1d(4, 4, 3, padding="same", padding_mode="circular", dilation=2), set()),
        (nn.Conv3d(4, 4, 3, padding=1, padding_mode="replicate"), set()),
        (nn.ConvTranspose2d(4, 4, 3), {"rank_ratio", *ROUNDED_TO_NEAREST}),
        (nn.Embedding(9, 4), ROUNDED_TO_NEAREST),
        (nn.LSTM(4, 4), {"rank_ratio", *ROUNDED_TO_NEAREST} - {"activation_bits"}),
        (nn.GRU(4, 4), {"rank_ratio", *ROUNDED_TO_NEAREST}),
        (nn.RNN(4, 4), {"rank_ratio", *ROUNDED_TO_NEAREST}),
        (nn.LSTMCell(4, 4), TECHNIQUES),
        (nn.EmbeddingBag(9, 4), TECHNIQUES),
        (nn.LayerNorm(4), TECHNIQUES),
        (nn.MultiheadAttention(4, 1).out_proj, TECHNIQUES),
    ],
)
def test_layer_takes_what_it_can(module, refused):
    refusals = _refusals(module)
    assert set(refusals) == refused
    assert all(refusals.values())


@pytest.mark.parametrize(
    ("module", "technique", "reason"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), "rank_ratio", "grouped and depthwise convolutions"),
        (nn.ConvTranspose1d(4, 4, 3), "rank_ratio", "transposed convolutions have no low-rank"),
        (nn.LSTM(4, 4), "rank_ratio", "recurrent layers have no low-rank form"),
        (nn.GRU(4, 4), "activation_bits", "recurrent layers have no integer kernels"),
        (nn.Embedding(4, 4), "activation_bits", "an embedding takes indices"),
        (nn.GRU(4, 4), "rate_price", "recurrent layers are rounded to the nearest here"),
        (nn.Embedding(4, 4), "rate_price", "embedding layers are rounded to the nearest here"),
        (nn.Embedding(4, 4), "shared_with", "only linear layers and convolutions"),
        (nn.BatchNorm1d(4), "weight_bits", "BatchNorm1d layers are not compressed"),
    ],
)
def test_reason_says_why(module, technique, reason):
    assert reason in _refusals(module)[technique]


class _OwnLinear(nn.Linear):
    def forward(self, input):
        return super().forward(input) * 2


def _weight_normed_lstm():
    return parametrizations.weight_norm(nn.LSTM(4, 4), "weight_hh_l0")


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (_OwnLinear(4, 4), "_OwnLinear is a subclass of its own, whose forward is unknown"),
        (parametrizations.weight_norm(nn.Linear(4, 4)), "its weight is parametrized"),
        (_weight_normed_lstm(), "its weight is parametrized"),
        (spectral_norm(nn.Linear(4, 4)), "its weight is computed from other parameters"),
        (nn.Embedding(4, 4, max_norm=1.5), "max_norm=1.5"),
    ],
)
def test_layer_whose_weight_is_not_its_own_takes_nothing(module, reason):
    refusals = _refusals(module)
    assert set(refusals) == TECHNIQUES
    assert all(reason in text for text in refusals.values())


def test_layer_that_is_not_called_takes_nothing():
    refusals = _refusals(nn.Linear(4, 4), n_calls=0)
    assert set(refusals) == TECHNIQUES
    assert "not called on the example input" in refusals["sparsity"]


def test_second_owner_of_a_weight_points_to_the_first():
    refusals = _refusals(nn.Linear(4, 4), tied_to="embed")
    assert refusals == dict.fromkeys(TECHNIQUES, "its weight is tied to 'embed': choose there")


def test_first_owner_of_a_tied_weight_cannot_replace_it():
    refusals = _refusals(nn.Embedding(4, 4), is_tie_source=True)
    assert set(refusals) == {"rank_ratio", *ROUNDED_TO_NEAREST}
    assert refusals["rank_ratio"] == "its weight is tied to a later layer's"


def test_layer_tied_in_another_way_takes_nothing():
    refusals = _refusals(nn.Linear(4, 4), is_tied=True)
    assert refusals == dict.fromkeys(TECHNIQUES, "its parameters are tied to another layer's")


def test_input_grids_are_for_linear_layers_and_convolutions():
    for kind in ("linear", "conv", "pointwise", "depthwise", "grouped_conv"):
        assert why_no_input_grid(kind) == ""
    assert torch.tensor([bool(why_no_input_grid(k)) for k in ("embedding", "recurrent")]).all()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(4, 4),
        nn.Embedding(9, 4),
        nn.Conv2d(4, 4, 1),
        nn.Conv3d(4, 4, 3),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.ConvTranspose2d(4, 4, 3),
    ],
)
def test_rank_is_refused_in_the_words_of_the_default_method(layer):
    kind = layer_kind(layer)
    assert why_no_factors(kind) == FACTORIZATIONS["svd"].why_not(kind, tuple(layer.weight.shape))
    assert why_no_factors(kind) == _refusals(layer).get("rank_ratio", "")
