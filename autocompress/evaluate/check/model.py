"""Contracts of the model: it runs, says the same twice, treats rows alone, and can learn."""

import copy
import sys
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autocompress.evaluate.check.subject import Finding, Subject, failed, passed, warned
from autocompress.tasks.fingerprint import state_fingerprint
from autocompress.tasks.user_code import Place, innermost_user_line
from autocompress.train.precision import sound_gradients

_ROW_TOLERANCE: Final = 1e-3  # of the largest output: kernels of other batches round otherwise
_SHOWN: Final = 4


class _RandomSource(TorchDispatchMode):
    """Notes the first operation that draws random numbers, and the user's line that asked."""

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self.place: Place | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if not self.name and torch.Tag.nondeterministic_seeded in func.tags:
            self.name = str(func).split(".")[1]
            self.place = innermost_user_line(sys._getframe(1))
        return func(*args, **(kwargs or {}))


def runs(subject: Subject) -> Finding:
    """The model runs on a batch of its training data."""
    outputs = subject.model(*subject.example[0])
    shapes = " and ".join("x".join(map(str, t.shape[1:])) or "1" for t in subject.example[0])
    return passed(
        f"runs on inputs of {shapes}; outputs {'x'.join(map(str, outputs.shape[1:])) or '1'}",
        n_params=sum(p.numel() for p in subject.model.parameters()),
    )


def is_deterministic(subject: Subject) -> Finding:
    """In eval mode two passes over the same inputs give the same bits."""
    model, (inputs, _) = subject.model, subject.example
    before = _digests(model)
    with torch.no_grad():
        first, second = model(*inputs), model(*inputs)
    changed = [name for name, digest in _digests(model).items() if before[name] != digest]
    fix = (
        "The accuracy of such a model is a matter of luck, and exports cannot be compared with it."
    )
    if changed:
        return failed(
            f"The model changes itself in eval mode: {', '.join(changed[:_SHOWN])}.",
            f"Let `forward` write buffers only `if self.training`. {fix}",
            subject.place("model"),
        )
    if torch.equal(first, second) or (first.isnan() & second.isnan()).any():
        return passed("two passes in eval mode are equal to the bit")
    source = _RandomSource()
    with torch.no_grad(), source:
        model(*inputs)
    if "dropout" in source.name or "bernoulli" in source.name:
        return failed(
            "Two passes in eval mode differ: dropout is active although the model is in eval mode.",
            "Write F.dropout(x, p, training=self.training), or use nn.Dropout.",
            source.place or subject.place("model"),
        )
    if source.name:
        return failed(
            f"Two passes in eval mode differ: `forward` draws random numbers ({source.name}).",
            f"Draw them only `if self.training`. {fix}",
            source.place or subject.place("model"),
        )
    return failed(
        "Two passes in eval mode differ, and torch draws no random numbers: something else in "
        "`forward` does, such as `random` or NumPy, or counts its calls.",
        fix,
        subject.place("model"),
    )


def rows_are_independent(subject: Subject) -> Finding:
    """A row alone gives what it gives in a batch."""
    model, (inputs, _) = subject.model, subject.example
    n_rows = len(inputs[0])
    with torch.no_grad():
        together: Tensor = model(*inputs)
        if together.ndim == 0 or len(together) != n_rows:
            return failed(
                f"The model must return one row for each of {n_rows} examples, but returned shape "
                f"{tuple(together.shape)}.",
                "Keep the batch in dimension 0.",
                subject.place("model"),
            )
        alone = torch.cat([model(*(t[i : i + 1] for t in inputs)) for i in range(n_rows)])
    scale = float(together.abs().max()) or 1.0
    apart = float((together - alone).abs().max()) / scale
    if apart <= _ROW_TOLERANCE:
        return passed("a row alone gives what it gives in a batch")
    return warned(
        f"A row alone gives another output than in a batch ({apart:.1%} of the largest apart).",
        "Look for batch statistics in eval mode, a softmax or mean over dimension 0, or a reshape "
        "that mixes rows. Accuracy then depends on the batch.",
        subject.place("model"),
        row_difference=apart,
    )


def learns(subject: Subject) -> Finding:
    """Gradients of the loss reach the parameters that are to be tuned."""
    prepared = subject.needs("loss")
    model = copy.deepcopy(subject.model).train()
    named = dict(model.named_parameters())
    frozen = [name for name, p in named.items() if not p.requires_grad]
    if not named:
        return warned(
            "The model has no parameters: nothing can be compressed.",
            "Give the task a model with layers.",
            subject.place("model"),
        )
    if len(frozen) == len(named):
        return failed(
            "All parameters are frozen (requires_grad is False): no candidate can be tuned.",
            "Leave out requires_grad_(False), or search with `proxy=none`.",
            subject.place("model"),
        )
    inputs, targets = subject.example
    loss = prepared.task.loss(model(*inputs), targets)
    if not loss.requires_grad:
        return failed(
            "The loss has no gradient: it is cut off from the model's outputs.",
            "Compute it with torch, without .item(), .detach(), .numpy() or argmax.",
            subject.place("loss"),
        )
    with sound_gradients(model):
        loss.backward()
    return _reached(subject, {n: p for n, p in named.items() if p.requires_grad}, frozen)


def _reached(subject: Subject, free: dict[str, nn.Parameter], frozen: list[str]) -> Finding:
    broken = [n for n, p in free.items() if p.grad is not None and not p.grad.isfinite().all()]
    without = [n for n, p in free.items() if p.grad is None or not p.grad.any()]
    if broken:
        return failed(
            f"Gradients are NaN or infinite: {_some(broken)}.",
            "Look for a division by zero, log(0) or sqrt(0) in the model or the loss.",
            subject.place("loss"),
        )
    if len(without) == len(free):
        return failed(
            "No parameter gets a gradient.",
            "The outputs must depend on the parameters through differentiable operations.",
            subject.place("model"),
        )
    if without:
        return warned(
            f"{len(without)} of {len(free)} parameters get no gradient: {_some(without)}.",
            "They are not tuned. Are they used, and not behind .detach(), torch.no_grad() or a "
            "saturated activation?",
            subject.place("model"),
            without_gradient=without,
        )
    said = f"; {len(frozen)} are frozen" if frozen else ""
    return passed(f"gradients reach all {len(free)} parameters to tune{said}", frozen=frozen)


def _digests(model: nn.Module) -> dict[str, str]:
    return {name: state_fingerprint({name: t}) for name, t in model.state_dict().items()}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
