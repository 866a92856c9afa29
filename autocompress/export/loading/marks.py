"""Marks: numbers that say which element of a model they are, wherever an exporter puts them.

Exporters transpose, reorder, join and cut tensors. With every element of a model a number of its
own, each element of an exported tensor tells where it came from, and no rule about any exporter or
layer is needed. What is computed from elements instead of moved is no mark any more.
"""

import bisect
import dataclasses
import math
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autocompress.errors import InputError

# The bits of -1.0: marks count on from there. Numbers whose last 12 bits are 0 are left out: the
# plain constants of networks (-1.25, -2, -65504) are among them.
_FIRST: Final = 0xBF800000
_RUN: Final = 1 << 12
_MOST: Final = 0xFF000000 - _FIRST
_STATISTICS: Final = ("running_mean", "running_var")

Elements = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One parameter or running statistic of one module.

    Attributes:
        module: Qualified name of the module.
        name: What it is called there.
        shape: Its shape.
        start: Number of its first element among those of the model.
    """

    module: str
    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def path(self) -> str:
        """Qualified name."""
        return f"{self.module}.{self.name}".removeprefix(".")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The slots of a marked model, in the order of their elements.

    Attributes:
        slots: One for each module and parameter: a parameter that several modules own has several.
    """

    slots: tuple[Slot, ...]

    @property
    def n_elements(self) -> int:
        """Number of marks."""
        return self.slots[-1].start + self.slots[-1].size if self.slots else 0

    def elements(self, values: NDArray[Any]) -> Elements | None:
        """Which elements of the model these are, in the shape of `values`; None if not all are."""
        if values.dtype != np.float32 or values.size == 0:
            return None
        distance = np.ascontiguousarray(values).view(np.uint32).astype(np.int64) - _FIRST
        number = distance - 1 - distance // _RUN
        is_mark = (distance > 0) & (distance % _RUN != 0) & (number < self.n_elements)
        return number.reshape(values.shape) if bool(is_mark.all()) else None

    def slot_of(self, element: int) -> Slot:
        """The slot that an element lies in."""
        place = bisect.bisect_right(self.slots, element, key=lambda slot: slot.start)
        return next(slot for slot in reversed(self.slots[:place]) if slot.size > 0)


def mark_(model: nn.Module) -> Marks:
    """Fill parameters and running statistics with marks, in place; shared parameters are parted.

    Args:
        model: Changed; its parameters are float32.

    Raises:
        InputError: If there are too many parameters to tell apart.
    """
    slots: list[Slot] = []
    for path, module in model.named_modules():
        names = [name for name, value in module._parameters.items() if value is not None]
        names += [name for name in _STATISTICS if module._buffers.get(name) is not None]
        for name in names:
            value = getattr(module, name)
            start = slots[-1].start + slots[-1].size if slots else 0
            slot = Slot(module=path, name=name, shape=tuple(value.shape), start=start)
            assert value.dtype == torch.float32, slot.path
            slots.append(slot)
            _put_(module, name, _marks(slot))
    return Marks(slots=tuple(slots))


def _marks(slot: Slot) -> torch.Tensor:
    number = np.arange(slot.start, slot.start + slot.size, dtype=np.int64)
    distance = number + 1 + number // (_RUN - 1)
    if slot.size and distance[-1] >= _MOST:
        raise InputError(f"The model must have fewer than {_MOST:,} parameters, but has more.")
    bits = (distance + _FIRST).astype(np.uint32)
    return torch.from_numpy(bits.view(np.float32).reshape(slot.shape))


def _put_(module: nn.Module, name: str, value: torch.Tensor) -> None:
    if name in module._parameters:
        setattr(module, name, nn.Parameter(value, requires_grad=False))
    else:
        setattr(module, name, value)
