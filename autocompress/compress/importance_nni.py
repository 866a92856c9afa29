"""Importance by NNI's pruners, where they are right: needs the extra `autocompress[nni]`.

Of NNI 3.0 (its last release) the pruners' metrics run and are correct on current torch; its
ModelSpeedup, LSQ and short-term quantizers are not used.
"""

import logging
import warnings

from torch import Tensor, nn

from autocompress.errors import InputError


def nni_fpgm(weight: Tensor, gradient: Tensor | None) -> Tensor:
    """Sum of distances to all other channels: small if a channel is replaceable (FPGM; He 2019).

    Args:
        weight: Shape (C, n).
        gradient: Not used.

    Returns:
        Scores of shape (C,).

    Raises:
        InputError: If NNI is not installed.
    """
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it logs each construction
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NNI imports long-deprecated names
            from nni.compression.pruning import FPGMPruner
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight = nn.Parameter(weight.detach().clone())
        pruner = FPGMPruner(nn.Sequential(layer), [{"op_names": ["0"], "sparse_ratio": 0.5}])
        scores: Tensor = pruner._calculate_metrics(pruner._collect_data())["0"]["weight"]
    except ImportError as error:
        raise InputError(
            f"The criterion 'nni_fpgm' needs NNI, but {error}.",
            "Install it: pip install 'autocompress[nni]'",
        ) from error
    finally:
        logging.disable(previous)
    return scores.detach().flatten()
