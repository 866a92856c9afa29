"""What a packed file says about each element of a model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from autocompress.errors import InputError
from autocompress.export.loading.counterparts import Counterparts, find_counterparts
from autocompress.export.loading.marks import Marks, Slot
from autocompress.onnx_graph.constants import constant_values
from autocompress.onnx_graph.graph import constants

Array = NDArray[Any]

_ROUNDING = 1e-6  # between the arithmetic of two versions of torch


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerChange:
    """What the file does to a layer that its parameters do not say.

    Attributes:
        bias: Bias that it gets from a batch-norm, shape (O,); None if it gets none.
        grid: Scale and zero point of its input; None where that is float, or differs between uses.
    """

    bias: Array | None
    grid: tuple[float, int] | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A packed file in terms of a model.

    Attributes:
        values: One for each element of the model, by its number; NaN where the file has none.
        is_known: Whether the file has one.
        layers: Qualified name of a layer -> what happens to it.
        folded_norms: Qualified names of the batch-norms that are part of a layer in the file.
    """

    values: NDArray[np.float32]
    is_known: NDArray[np.bool_]
    layers: Mapping[str, LayerChange]
    folded_norms: frozenset[str]


def read_contents(fresh: onnx.ModelProto, packed: onnx.ModelProto, marks: Marks) -> Contents:
    """Say of each element of a marked model which value the file has for it.

    Args:
        fresh: Export of the marked model.
        packed: The file's graph.
        marks: Of the model.

    Raises:
        InputError: If the file was packed from another network, or holds something of which it
            cannot be told where it belongs.
    """
    found = find_counterparts(fresh, packed)
    reader = _Reader(constants(fresh.graph), _file_values(packed, found), marks)
    reader.read_tensors(found)
    return Contents(
        values=reader.values,
        is_known=reader.is_known,
        layers=reader.layers(found),
        folded_norms=reader.folded_norms(found),
    )


def _file_values(packed: onnx.ModelProto, found: Counterparts) -> dict[str, Array]:
    names = {theirs for _, theirs, _ in found.tensors}
    names |= {use.new_bias for use in found.layers if use.new_bias}
    names |= {name for use in found.layers for name in use.grid or ()}
    return constant_values(packed, names)


class _Reader:
    def __init__(self, ours: Mapping[str, Array], theirs: Mapping[str, Array], marks: Marks):
        self._ours, self._theirs, self._marks = ours, theirs, marks
        self.values = np.full(marks.n_elements, np.nan, np.float32)
        self.is_known = np.zeros(marks.n_elements, np.bool_)

    def read_tensors(self, found: Counterparts) -> None:
        others = []
        for ours, theirs, where in found.tensors:
            elements = self._marks.elements(self._ours[ours])
            if elements is None:
                others.append((self._ours[ours], self._theirs[theirs], where))
            else:
                self._put(elements, self._theirs[theirs])
        for mine, yours, where in others:
            if not _is_same(mine, yours):
                raise self._differs(mine, yours, where)

    def layers(self, found: Counterparts) -> dict[str, LayerChange]:
        uses: dict[str, list[tuple[Array | None, tuple[float, int] | None]]] = {}
        for use in found.layers:
            slot = self._slot(use.weight)
            if slot is None and use.new_bias:
                raise InputError(
                    f"A batch-norm of the file is part of a layer whose weight {use.weight!r} is "
                    "no parameter of the model.",
                    "Use the unpacked ONNX file (`autocompress unpack`) instead.",
                )
            if slot is not None:
                bias = self._theirs[use.new_bias] if use.new_bias else None
                uses.setdefault(slot.module, []).append((bias, self._grid(use.grid)))
        return {layer: _one_change(layer, found_uses) for layer, found_uses in uses.items()}

    def folded_norms(self, found: Counterparts) -> frozenset[str]:
        uses: dict[str, set[bool]] = {}
        for mean, layer in found.norms:
            slot = self._slot(mean)
            if slot is not None:
                uses.setdefault(slot.module, set()).add(bool(layer))
            elif layer:
                raise InputError(
                    "A batch-norm of the file is part of the layer before it, but in the model it "
                    "is no module of its own.",
                    "Use the unpacked ONNX file (`autocompress unpack`) instead.",
                )
        for norm, is_folded in uses.items():
            if len(is_folded) > 1:
                raise _ambiguous(norm, "batch-norm that is folded in one place and not in another")
        return frozenset(norm for norm, is_folded in uses.items() if is_folded == {True})

    def _slot(self, name: str) -> Slot | None:
        elements = self._marks.elements(self._ours[name])
        return None if elements is None else self._marks.slot_of(int(elements.flat[0]))

    def _grid(self, names: tuple[str, str] | None) -> tuple[float, int] | None:
        if names is None:
            return None
        scale, zero_point = (self._theirs[name] for name in names)
        return float(scale), int(zero_point)

    def _put(self, elements: NDArray[np.int64], values: Array) -> None:
        slot = self._marks.slot_of(int(elements.flat[0]))
        if elements.shape != values.shape or values.dtype != np.float32:
            raise InputError(
                f"{slot.path!r} must have the shape that the file has, {list(values.shape)} of "
                f"{values.dtype}, but with the file's plan it has {list(elements.shape)} of "
                "float32 in the model's graph.",
                "The file was packed from a model of other widths.",
            )
        known = self.is_known[elements]
        is_same = np.array_equal(self.values[elements[known]], values[known], equal_nan=True)
        self.values[elements], self.is_known[elements] = values, True
        if not is_same or not np.array_equal(self.values[elements], values, equal_nan=True):
            raise _ambiguous(slot.module, "layer that runs several times, with other values each")

    def _differs(self, ours: Array, theirs: Array, where: str) -> InputError:
        message = (
            "What the model computes before it sees any input must be what the file has, but a "
            f"constant of shape {list(ours.shape)} that {where!r} reads differs from the file's, "
            f"of shape {list(theirs.shape)}"
        )
        if ours.dtype.kind != "f":
            return InputError(
                f"{message}.",
                "Where it depends on which channels were kept, give the trained model that the "
                "search started from; else use the unpacked ONNX file (`autocompress unpack`).",
            )
        unknown = next((slot.path for slot in self._marks.slots if self._is_unknown(slot)), None)
        guess = "" if unknown is None else f" (it may be computed from {unknown!r})"
        return InputError(
            f"{message}{guess}.",
            "What an export computed from parameters cannot be taken apart again: use the unpacked "
            "ONNX file (`autocompress unpack`). If it is a buffer, give the model that was packed.",
        )

    def _is_unknown(self, slot: Slot) -> bool:
        return slot.size > 0 and not self.is_known[slot.start : slot.start + slot.size].any()


def _is_same(ours: Array, theirs: Array) -> bool:
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        return False
    if ours.dtype.kind != "f":
        return np.array_equal(ours, theirs)
    return np.allclose(ours, theirs, rtol=_ROUNDING, atol=0.0, equal_nan=True)


def _one_change(
    layer: str, uses: list[tuple[Array | None, tuple[float, int] | None]]
) -> LayerChange:
    """What all uses of a layer have in common.

    Raises:
        InputError: If they have different biases.
    """
    bias = uses[0][0]
    if any(not _is_same_bias(bias, other) for other, _ in uses):
        raise _ambiguous(layer, "layer that runs several times, before other batch-norms each")
    grids = {grid for _, grid in uses}
    return LayerChange(bias=bias, grid=next(iter(grids)) if len(grids) == 1 else None)


def _is_same_bias(one: Array | None, other: Array | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


def _ambiguous(name: str, what: str) -> InputError:
    return InputError(
        f"{name!r} is a {what}: no single module of the model can compute what the file does.",
        "Use the unpacked ONNX file (`autocompress unpack`) instead.",
    )
