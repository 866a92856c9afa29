"""Contracts of the loss, the metric and the augmentation: what training and judging rest on."""

import copy
import math
from typing import Final

import torch
from torch import Tensor

from autocompress.errors import TrialError
from autocompress.evaluate.check.subject import Finding, Subject, failed, passed, warned
from autocompress.tasks.base import Loss
from autocompress.tasks.user_code import place_of_error
from autocompress.train.precision import sound_gradients

_STEPS: Final = 5
# A step that is small enough lowers any loss with a gradient; the task's own is tried first.
_RATE_FACTORS: Final = (1.0, 0.1, 0.01, 1e-3, 1e-4)
_SMALL_LOSS: Final = 1e-3  # of learned examples: a step changes it by less than it is rounded
_N_SHUFFLES: Final = 3
_WORSENED: Final = 3.0  # standard deviations that each output is moved by
_SMALL_VAL: Final = 100


def loss_falls(subject: Subject) -> Finding:
    """The loss is finite, and a few steps of gradient descent lower it."""
    if "loss" in subject.faults:
        return _fault(subject, "loss")
    subject.needs("loss", "train")
    before = _descend(subject, 0.0)
    if not math.isfinite(before):
        return failed(
            f"The loss of the first training examples is {before}.",
            "Look for log(0), a division by zero, or labels outside their range.",
            subject.place("loss"),
        )
    rate, is_small = subject.task.learning_rate, abs(before) < _SMALL_LOSS
    for factor in _RATE_FACTORS:
        after = _descend(subject, rate * factor)
        if not after < before:
            continue
        if factor < 0.1 and is_small:
            break
        facts = {"loss": before, "loss_after": after}
        if factor < 0.1:  # a fine-tune warms up and has batches that differ
            return warned(
                f"At the learning rate {rate:g} a few steps raise the loss from {before:.3g}; at "
                f"{rate * factor:.1g} they lower it to {after:.3g}.",
                f"Try Task(learning_rate={rate * factor:.1g}).",
                subject.place("learning_rate"),
                **facts,
            )
        return passed(f"{_STEPS} steps lower it from {before:.4g} to {after:.4g}", **facts)
    if is_small:
        return passed(f"it is {before:.1g} already: too small to see it fall", loss=before)
    return failed(
        f"{_STEPS} steps of gradient descent do not lower the loss ({before:.3g}) at any learning "
        f"rate from {rate:g} to {rate * _RATE_FACTORS[-1]:.0g}.",
        "The loss must follow from the outputs by smooth operations.",
        subject.place("loss"),
    )


def _descend(subject: Subject, rate: float) -> float:
    """Loss of the first examples after a few steps at a learning rate, or before any at 0.

    Taken in eval mode: without dropout and with fixed statistics the loss is a smooth function.
    """
    model, (inputs, targets) = copy.deepcopy(subject.model), subject.example
    task = subject.salvaged.task
    free = [p for p in model.parameters() if p.requires_grad]
    for _ in range(_STEPS if rate else 0):
        loss = task.loss(model(*inputs), targets)
        with sound_gradients(model):
            slopes = torch.autograd.grad(loss, free, allow_unused=True)
        with torch.no_grad():
            for weight, slope in zip(free, slopes, strict=True):
                if slope is not None:
                    weight.sub_(rate * slope)
    with torch.no_grad():
        return float(task.loss(model(*inputs), targets))


def metric_in_range(subject: Subject) -> Finding:
    """The metric of the whole of val lies in [0, 1]."""
    try:
        accuracy, _ = subject.scores
    except TrialError as error:
        field = error.reason if error.reason in ("metric", "loss") else "model"
        is_off_range = field == "metric" and error.__cause__ is None
        fix = "Scale it, or return 1 / (1 + error)." if is_off_range else ""
        return failed(error.message, fix, place_of_error(error) or subject.place(field))
    return passed(f"{accuracy:.4g} on val lies in [0, 1]", accuracy=accuracy)


def metric_rises(subject: Subject) -> Finding:
    """Higher is better: the trained model scores more on its targets than on shuffled ones."""
    prepared, (right, _) = subject.needs("loss", "val"), subject.scores
    task, targets, outputs = prepared.task, prepared.val.targets, subject.val_outputs
    shuffled = [float(task.metric(outputs.clone(), t)) for t in _shuffled(targets)]
    chance = sum(shuffled) / len(shuffled)
    facts = {"metric": right, "metric_shuffled": chance}
    if right > max(shuffled):
        return passed(f"{right:.4g} on the targets, {chance:.4g} on shuffled ones", **facts)
    said = f"The metric is {right:.4g} on val, and {chance:.4g} when its targets are shuffled"
    worsened = _worsened(task.loss, outputs, targets) if right < min(shuffled) else None
    worse = math.nan if worsened is None else float(task.metric(worsened, targets.clone()))
    if worse > right:
        return failed(
            f"{said}, but {worse:.4g} for outputs with a higher loss: lower seems to be better.",
            "A metric must be higher for better outputs: return 1 - error, or 1 / (1 + error).",
            subject.place("metric"),
            **facts,
        )
    return warned(
        f"{said}: the model is no better than chance, or the metric does not look at its targets.",
        "Is the model trained, and are its weights loaded?",
        subject.place("metric"),
        **facts,
    )


def _worsened(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Outputs moved far enough up the slope of the loss to be wrong; None where it has none.

    An untrained model is worse than chance as often as better: only this tells what is better.
    """
    moved = outputs.clone().requires_grad_()
    value = loss(moved, targets.clone())
    if not value.requires_grad:
        return None
    (slope,) = torch.autograd.grad(value, moved)
    return outputs + _WORSENED * outputs.std() * slope.sign()


def _shuffled(targets: Tensor) -> list[Tensor]:
    seeds = range(_N_SHUFFLES)
    orders = (
        torch.randperm(len(targets), generator=torch.Generator().manual_seed(s)) for s in seeds
    )
    return [targets[order] for order in orders]


def baseline(subject: Subject) -> Finding:
    """What the original model scores on val."""
    prepared, (accuracy, loss) = subject.needs("loss", "val"), subject.scores
    n_val = len(prepared.val)
    facts = {"accuracy": accuracy, "loss": loss, "n_val": n_val}
    said = f"{prepared.task.metric_name} {accuracy:.2%} and loss {loss:.4g} on {n_val:,} of val"
    if n_val < _SMALL_VAL:
        return warned(
            f"{said}: one example is {1.0 / n_val:.1%}.",
            "Give the task a larger `val`, or candidates differ by chance.",
            subject.place("val"),
            **facts,
        )
    return passed(said, **facts)


def augments(subject: Subject) -> Finding:
    """Augmentation runs, keeps shapes, and is the same again for the same generator."""
    prepared = subject.needs("train")
    change = prepared.task.augment
    if change is None:
        return passed("there is none")
    plain = subject.example[0]

    def draw() -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        rows = slice(0, len(plain[0]))
        return prepared.train.batch(rows, lambda inputs: change(inputs, generator))[0]

    first, second = draw(), draw()
    shapes = [[tuple(t.shape) for t in inputs] for inputs in (plain, first)]
    if shapes[0] != shapes[1]:
        return failed(
            f"`augment` must keep the shapes {shapes[0]}, but returned {shapes[1]}.",
            "Crop and pad to the same size.",
            subject.place("augment"),
        )
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        return warned(
            "`augment` gives something else for the same generator: a search cannot be repeated.",
            "Draw all its random numbers from the generator it is given.",
            subject.place("augment"),
        )
    return passed("runs, keeps shapes, and can be repeated")


def _fault(subject: Subject, field: str) -> Finding:
    error = subject.faults[field]
    return failed(error.message, error.hint, place_of_error(error) or subject.place(field))
