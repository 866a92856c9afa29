"""Importance by NNI's pruners, where they are right: needs the extra `autocompress[nni]`.

Of NNI 3.0 (its last release) the metrics of the norm, FPGM and Taylor pruners run and are correct
on current torch. Its Slim and Movement pruners learn their scores while they train, so they are no
criterion; its Level pruner scores single weights.
"""

import logging
import warnings
from typing import Any, Final

from torch import Tensor, nn

from autocompress.errors import InputError

_CONFIG: Final = [{"op_names": ["0"], "sparse_ratio": 0.5}]


def nni_l1(weight: Tensor) -> Tensor:
    """Sum of absolute weights per channel, by NNI's L1NormPruner. (C, n) -> (C,)."""
    return _metric("L1NormPruner", weight, None)


def nni_l2(weight: Tensor) -> Tensor:
    """Euclidean norm per channel, by NNI's L2NormPruner. (C, n) -> (C,)."""
    return _metric("L2NormPruner", weight, None)


def nni_fpgm(weight: Tensor) -> Tensor:
    """Sum of distances to all channels, by NNI's FPGMPruner (He et al. 2019). (C, n) -> (C,)."""
    return _metric("FPGMPruner", weight, None)


def nni_taylor(weight: Tensor, squared_gradient: Tensor) -> Tensor:
    """Mean of (gradient x weight)^2 over batches, summed per channel, by NNI's TaylorPruner.

    Its hooks would collect this mean during training steps of its own; it is handed over instead.
    It orders channels as `obd` does: both sum F_ii w_i^2 up to a factor.

    Args:
        weight: Shape (C, n).
        squared_gradient: Mean squared gradient, up to a constant factor, shape (C, n).

    Returns:
        Shape (C,).
    """
    return _metric("TaylorPruner", weight, weight.square() * squared_gradient)


def _metric(pruner_name: str, weight: Tensor, collected: Tensor | None) -> Tensor:
    """The metric of one of NNI's pruners on a layer that holds `weight`.

    Raises:
        InputError: If NNI is not installed.
    """
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it logs each construction
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NNI imports long-deprecated names
            from nni.compression import pruning
        pruner = _pruner(getattr(pruning, pruner_name), weight)
        data = {"0": {"weight": collected}} if collected is not None else pruner._collect_data()
        scores: Tensor = pruner._calculate_metrics(data)["0"]["weight"]
    except ImportError as error:
        raise InputError(
            f"Criteria whose name starts with 'nni_' need NNI, but {error}.",
            "Install it: pip install 'autocompress[nni]'",
        ) from error
    finally:
        logging.disable(previous)
    return scores.detach().flatten()


def _pruner(pruner_type: Any, weight: Tensor) -> Any:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.detach().clone())
    model = nn.Sequential(layer)
    if pruner_type.__name__ == "TaylorPruner":  # its evaluator would run training steps
        return pruner_type(model, _CONFIG, evaluator=None, training_steps=1)
    return pruner_type(model, _CONFIG)
