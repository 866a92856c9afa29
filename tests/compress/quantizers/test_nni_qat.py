import sys

import pytest
import torch
from torch import nn

from autocompress.compress.quantizers.nni_qat import NniQatQuantizer, nni_affine_grids
from autocompress.compress.quantizers.registry import parse_granularity
from autocompress.errors import InputError
from tests.needs import need_extra


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_nni_grids_span_the_range(bits):
    need_extra("nni")
    rows = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    step, zero = nni_affine_grids(rows, bits)
    low, high = rows.amin(1), rows.amax(1)
    torch.testing.assert_close(step, (high - low) / (2**bits - 1))
    torch.testing.assert_close(zero, (-low / step).round())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_values_are_those_that_nni_computes_with(bits):
    """Oracle: NNI's own wrapped layer, fed with unit vectors; it rounds at ties of another kind."""
    need_extra("nni")
    from nni.compression.quantization import QATQuantizer

    weight = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    layer = nn.Linear(30, 5, bias=False)
    layer.weight = nn.Parameter(weight.clone())
    config = {
        "op_names": ["0"],
        "target_names": ["weight"],
        "quant_dtype": f"uint{bits}",
        "quant_scheme": "affine",
        "granularity": "out_channel",
    }
    wrapped = QATQuantizer(nn.Sequential(layer), [config], None).bound_model.train()
    expected = wrapped(torch.eye(30)).T.detach()
    values = NniQatQuantizer(weight, bits, parse_granularity("channel"), 0)(weight).detach()
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-5)


def test_nni_qat_leaves_its_input_alone():
    need_extra("nni")
    weight = torch.randn(4, 6)
    before = weight.clone()
    NniQatQuantizer(weight, 4, parse_granularity("tensor"), 0)
    assert torch.equal(weight, before)


def test_nni_qat_without_nni_names_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "nni.compression.quantization", None)
    with pytest.raises(InputError, match="needs NNI") as caught:
        nni_affine_grids(torch.ones(2, 2), 4)
    assert "autocompress[nni]" in caught.value.hint
