"""What stands where a block stood that was left out."""

import contextlib
from collections.abc import Iterator, Mapping

from torch import Tensor, nn


class PassThrough(nn.Module):
    """Returns its first argument, whatever else it is given.

    Args:
        batch_first: What `nn.TransformerEncoder` asks its first layer's `self_attn` for; no other
            use.
    """

    def __init__(self, *, batch_first: bool = False) -> None:
        super().__init__()
        self.batch_first = batch_first

    @property
    def self_attn(self) -> "PassThrough":
        """Stands in for the attention that `nn.TransformerEncoder` looks at."""
        return self

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """(...) -> the same tensor."""
        return x


def pass_through_for(block: nn.Module) -> PassThrough:
    """A stand-in for one block."""
    attention = getattr(block, "self_attn", None)
    stand_in = PassThrough(batch_first=bool(getattr(attention, "batch_first", False)))
    stand_in.train(block.training)
    return stand_in


def replace_module_(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put one module where another is, in place, under every name it is registered by."""
    for owner in list(model.modules()):
        for name, child in owner._modules.items():
            if child is old:
                owner._modules[name] = new


@contextlib.contextmanager
def replaced(model: nn.Module, stand_ins: Mapping[nn.Module, nn.Module]) -> Iterator[None]:
    """The model with other modules in place of some, for as long as the context lasts."""
    done: list[tuple[nn.Module, nn.Module]] = []
    try:
        for module, stand_in in stand_ins.items():
            replace_module_(model, module, stand_in)
            done.append((module, stand_in))
        yield
    finally:
        for module, stand_in in reversed(done):
            replace_module_(model, stand_in, module)
