"""Ternary weights: -1, 0 or 1 times a scale (TWN; Li & Liu 2016), with the exact optimum.

Dimension key: `B` blocks that share a scale, `N` weights of a block.
"""

import torch
from torch import Tensor

from autocompress.compress.quantizers.base import STEP_FLOOR


def best_ternary_steps(rows: Tensor) -> Tensor:
    """Scale per row with the least squared error over all ternary codes.

    With the k largest magnitudes kept, the best scale is their mean m and the error is
    |row|² - k·m²; sorting gives it for every k. The optimal codes are the nearest ones, so rounding
    to a grid of this step finds them. The paper's threshold of 0.7 mean magnitudes approximates it.

    Args:
        rows: Shape (B, N).

    Returns:
        Shape (B,), positive.
    """
    magnitudes = rows.detach().double().abs().sort(dim=1, descending=True).values
    n_kept = torch.arange(1, rows.shape[1] + 1, device=rows.device)
    means = magnitudes.cumsum(dim=1) / n_kept  # (B, N)
    best = (n_kept * means.square()).argmax(dim=1, keepdim=True)
    return means.gather(1, best)[:, 0].float().clamp_min(STEP_FLOOR)
