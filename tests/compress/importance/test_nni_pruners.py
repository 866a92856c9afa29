"""NNI's scores against our own; needs the extra `nni`."""

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.importance.criteria import fpgm, l1_norm, l2_norm, obd
from autocompress.compress.importance.nni_pruners import nni_fpgm, nni_l1, nni_l2, nni_taylor
from autocompress.compress.importance.registry import CRITERIA
from autocompress.errors import InputError
from tests.needs import need_extra

PAIRS = {
    "nni_l1": (nni_l1, l1_norm),
    "nni_l2": (nni_l2, l2_norm),
    "nni_fpgm": (nni_fpgm, fpgm),
}


def _weight(n_channels, n_weights, seed=0):
    return torch.randn(n_channels, n_weights, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", sorted(PAIRS))
@pytest.mark.parametrize("shape", [(2, 1), (8, 5), (16, 27)])
def test_nni_scores_equal_our_own(name, shape):
    need_extra("nni")
    theirs, ours = PAIRS[name]
    weight = _weight(*shape)
    torch.testing.assert_close(theirs(weight), ours(weight), rtol=1e-4, atol=1e-5)


@given(st.integers(2, 20), st.integers(1, 20), st.integers(0, 9))
@settings(deadline=None, max_examples=10)
def test_nni_taylor_ranks_channels_as_obd_does(n_channels, n_weights, seed):
    need_extra("nni")
    weight, squares = _weight(n_channels, n_weights, seed), _weight(n_channels, n_weights).square()
    torch.testing.assert_close(
        nni_taylor(weight, squares), 2.0 * obd(weight, squares), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_nni_scores_leave_their_input_alone(name):
    need_extra("nni")
    weight = _weight(6, 4)
    before = weight.clone()
    PAIRS[name][0](weight)
    assert torch.equal(weight, before)


def test_nni_scores_without_nni_name_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "nni.compression", None)
    with pytest.raises(InputError, match="need NNI") as caught:
        nni_l1(torch.ones(2, 2))
    assert "autocompress[nni]" in caught.value.hint


def test_every_nni_score_is_in_the_table():
    assert {name for name in CRITERIA if name.startswith("nni_")} == {*PAIRS, "nni_taylor"}
