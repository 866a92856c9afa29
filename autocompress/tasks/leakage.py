"""Notice a validation split that the base model was trained on.

A model has memorised part of its training data. Where candidates are judged on such data, every
one of them looks worse than it is, as tuning makes it forget what it had memorised.
"""

import hashlib
import math

import torch
from torch import Tensor

from autocompress.tasks.base import Examples, TensorData
from autocompress.tasks.prepare import PreparedTask

_N_COMPARED = 2_000
_BATCH_SIZE = 256
_SEED = 0
# Below this training score the model may simply not have fitted its data: no gap is to be expected.
_MIN_TRAIN_SCORE = 0.9
# Welch's test takes the means as normally distributed.
_MIN_COMPARED = 30
_MIN_Z = 2.0
# Splits are called alike only where a doubled loss would have shown: few examples prove nothing.
_MAX_LOSS_RATIO = 2.0
# Cross-entropy in float32 reaches 0 on memorised examples; its logarithm must stay finite.
_MIN_LOSS = 1e-6
_MIN_SHARED = 0.01


def val_looks_seen(prepared: PreparedTask, n_compared: int = _N_COMPARED) -> str | None:
    """Say whether `val` was evidently seen while the base model was trained.

    Two kinds of evidence count. Examples of val that also stand in train, byte for byte, beyond
    what the data's own repetitions explain. And no gap where a gap is expected: the model scores
    at least 0.9 on train, its typical loss on val is not significantly above that on train
    (Welch's z < 2), nor its score below, and the samples are large enough to have shown a loss
    twice as high. Losses
    are compared by their logarithms: a handful of wrong examples carries most of a plain mean, and
    its noise hides what happens to all the others.

    Args:
        prepared: Its model is run in eval mode, without augmentation, and left as it was.
        n_compared: Most examples of each split whose losses are compared; always the same ones.

    Returns:
        A warning of one line for the user, or None if nothing speaks against the split.
    """
    warning = _shared_examples(prepared)
    return warning if warning is not None else _missing_gap(prepared, n_compared)


def _shared_examples(prepared: PreparedTask) -> str | None:
    if not (isinstance(prepared.train, TensorData) and isinstance(prepared.val, TensorData)):
        return None  # comparing every example would read all of the data
    seen = _example_hashes(prepared.train)
    known = set(seen)
    n_shared = sum(example in known for example in _example_hashes(prepared.val))
    n_val = len(prepared.val)
    # Coarse data repeats itself: what train repeats of itself is no evidence about val.
    repeated_share = 1.0 - len(known) / len(seen)
    if n_shared / n_val <= _MIN_SHARED + 2.0 * repeated_share:
        return None
    return (
        f"{n_shared} of {n_val} validation examples also stand in the training data, so accuracy "
        "on them says little about new data. Give the task a `val` without them."
    )


def _example_hashes(data: TensorData) -> list[bytes]:
    columns = [tensor.contiguous().numpy() for tensor in data.inputs]
    return [
        hashlib.blake2b(b"".join(c[i].tobytes() for c in columns), digest_size=16).digest()
        for i in range(len(data))
    ]


def _missing_gap(prepared: PreparedTask, n_compared: int) -> str | None:
    train = _losses_and_score(prepared, prepared.train, n_compared)
    val = _losses_and_score(prepared, prepared.val, n_compared)
    if train is None or val is None:
        return None
    (train_losses, train_score), (val_losses, val_score) = train, val
    if train_score < _MIN_TRAIN_SCORE or not _is_alike(train_losses, val_losses):
        return None
    if _is_below(val_score, len(val_losses), train_score, len(train_losses)):
        return None
    figures = (
        f"the base model scores {train_score:.2%} on train and {val_score:.2%} on val, "
        f"with a typical loss of {_typical(train_losses):.2g} and {_typical(val_losses):.2g}"
    )
    if prepared.is_val_carved:
        return (
            "The validation split was carved from the training data, and the base model seems to "
            f"have been trained on it: {figures}. Candidates will look worse than they are. "
            "Give the task a `val` that the model has never seen."
        )
    return (
        f"The base model may have been trained on the validation split: {figures}. If so, "
        "candidates will look worse than they are. Give the task a `val` it has never seen."
    )


def _is_alike(train_losses: Tensor, val_losses: Tensor) -> bool:
    """Whether val's losses are not above train's, and a doubled loss would have been noticed."""
    train, val = train_losses.log(), val_losses.log()
    error = math.sqrt(float(train.var()) / len(train) + float(val.var()) / len(val))
    gap = float(val.mean() - train.mean())
    return gap / error < _MIN_Z and gap + _MIN_Z * error < math.log(_MAX_LOSS_RATIO)


def _is_below(val_score: float, n_val: int, train_score: float, n_train: int) -> bool:
    """Whether val's score lies significantly below train's, taking scores for shares of hits."""
    error = math.sqrt(
        val_score * (1.0 - val_score) / n_val + train_score * (1.0 - train_score) / n_train
    )
    return train_score - val_score > _MIN_Z * error


def _typical(losses: Tensor) -> float:
    return math.exp(float(losses.log().mean()))


def _losses_and_score(
    prepared: PreparedTask, data: Examples, n_compared: int
) -> tuple[Tensor, float] | None:
    """Loss of each sampled example, shape (N,), positive, and the metric over them.

    None where outputs are not one tensor with a row per example, examples are too few, losses
    are negative or all equal, or the task's loss takes no single example.
    """
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(_SEED))
    chosen = order[:n_compared].sort().values
    task = prepared.task
    modes = {module: module.training for module in task.model.modules()}
    task.model.eval()
    try:
        with torch.no_grad():
            outputs, targets = _predict(prepared, data, chosen)
            if outputs is None or len(chosen) < _MIN_COMPARED:
                return None
            rows = range(len(chosen))
            rowwise = [task.loss(outputs[i : i + 1], targets[i : i + 1]) for i in rows]
            losses = torch.stack(rowwise).double().flatten()
            # A density's loss has no logarithm, NaN neither; equal losses tell nothing.
            if not bool((losses >= 0.0).all()) or bool((losses == losses[0]).all()):
                return None
            return losses.clamp_min(_MIN_LOSS), float(task.metric(outputs, targets))
    except Exception:  # noqa: BLE001 - the user's code, for advice only: it is told where it counts
        return None
    finally:
        for module, mode in modes.items():
            module.training = mode


def _predict(
    prepared: PreparedTask, data: Examples, chosen: Tensor
) -> tuple[Tensor | None, Tensor]:
    outputs: list[Tensor] = []
    targets: list[Tensor] = []
    for inputs, own_targets in data.batches(chosen.split(_BATCH_SIZE)):
        output = prepared.task.model(*inputs)
        targets.append(own_targets)
        if not isinstance(output, Tensor) or len(output) != len(own_targets):
            return None, own_targets
        outputs.append(output)
    return torch.cat(outputs), torch.cat(targets)
