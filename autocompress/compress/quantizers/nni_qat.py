"""The affine grid that NNI's QAT quantizer computes: needs the extra `autocompress[nni]`.

Of the quantizers of NNI 3.0 (its last release) this one computes sound grids on current torch; its
LSQ, DoReFa and BNN quantizers do not.

Dimension key: `B` blocks that share a grid, `N` weights of a block.
"""

import logging
import warnings

import torch
from torch import Tensor, nn

from autocompress.compress.quantizers.base import QuantizerSpec, positive
from autocompress.compress.quantizers.uniform_asymmetric import INTEGER_BITS, AsymmetricQuantizer
from autocompress.errors import InputError


def nni_affine_grids(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Step and zero point per row by NNI's QATQuantizer (Jacob et al. 2018): the full range.

    Args:
        rows: Shape (B, N).
        bits: 2-8.

    Returns:
        Steps, positive, and zero points in [0, 2**bits - 1], integers as floats; both (B,).

    Raises:
        InputError: If NNI is not installed.
    """
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it logs each construction
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NNI imports long-deprecated names
            from nni.compression.quantization import QATQuantizer
        layer = nn.Linear(rows.shape[1], rows.shape[0], bias=False)
        layer.weight = nn.Parameter(rows.detach().float().cpu().clone())
        config = {
            "op_names": ["0"],
            "target_names": ["weight"],
            "quant_dtype": f"uint{bits}",
            "quant_scheme": "affine",
            "granularity": "out_channel",
        }
        nni_quantizer = QATQuantizer(nn.Sequential(layer), [config], None)
        # the grid is laid in a forward pass in training mode
        nni_quantizer.bound_model.train()(torch.zeros(1, rows.shape[1]))
        space = nni_quantizer._target_spaces["0"]["weight"]
    except ImportError as error:
        raise InputError(
            f"The quantizer 'nni_qat' needs NNI, but {error}.",
            "Install it: pip install 'autocompress[nni]'",
        ) from error
    finally:
        logging.disable(previous)
    step: Tensor = space.scale.detach().flatten()
    zero_point: Tensor = space.zero_point.detach().flatten()
    return positive(step).to(rows.device), zero_point.to(rows.device)


class NniQatQuantizer(AsymmetricQuantizer):
    """Starts on NNI's grid; the step is then learned, where NNI would follow the widest weight."""

    def first_grids(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Step and zero point per block, (B,) each, for `rows`, (B, N)."""
        return nni_affine_grids(rows, int(self.bits))


NNI_QAT = QuantizerSpec(
    make=NniQatQuantizer,
    bits=(8, 7, 6, 5, 4, 3, 2),
    granularities=("channel", "tensor"),
    integer_bits=INTEGER_BITS,
    packages=("nni",),
)
