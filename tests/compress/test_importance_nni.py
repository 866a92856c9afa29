"""NNI's scores against their closed form; needs the extra `nni`."""

import sys

import pytest
import torch

from autocompress.compress.importance import CRITERIA
from autocompress.compress.importance_nni import nni_fpgm
from autocompress.errors import InputError


@pytest.mark.parametrize("shape", [(2, 1), (8, 5), (16, 27)])
def test_nni_fpgm_is_the_sum_of_distances_to_all_other_channels(shape: tuple[int, int]) -> None:
    pytest.importorskip("nni", reason="needs the extra: pip install 'autocompress[nni]'")
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = (weight[:, None] - weight[None]).norm(dim=2).sum(dim=1)

    torch.testing.assert_close(nni_fpgm(weight, None), expected, rtol=1e-4, atol=1e-5)


def test_nni_fpgm_leaves_its_input_alone() -> None:
    pytest.importorskip("nni", reason="needs the extra: pip install 'autocompress[nni]'")
    weight = torch.randn(6, 4)
    before = weight.clone()
    nni_fpgm(weight, None)

    assert torch.equal(weight, before)


def test_nni_fpgm_without_nni_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nni.compression.pruning", None)
    with pytest.raises(InputError, match="needs NNI") as caught:
        nni_fpgm(torch.ones(2, 2), None)

    assert "autocompress[nni]" in caught.value.hint
    assert CRITERIA["nni_fpgm"] is nni_fpgm
