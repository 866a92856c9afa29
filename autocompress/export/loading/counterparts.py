"""Find the place of a fresh export's values in the graph of a packed file, node by node.

The two are the same network, so they are walked together from the outputs to the inputs. The file's
graph may differ in what shipping does to it, and in nothing else: batch-norms are folded into the
layer before them, pairs of QuantizeLinear and DequantizeLinear lie around integer layers, a clamp
that the end of such a grid makes needless is gone, and weights may be computed from other constants
(integer codes, gates in another order).
"""

import dataclasses
from typing import Final

import numpy as np
import onnx

from autocompress.compress.codes import ActivationRange
from autocompress.errors import InputError
from autocompress.onnx_graph.constants import constant_names
from autocompress.onnx_graph.graph import constants, makers
from autocompress.runtime.integer_grids import is_saturated
from autocompress.runtime.integer_regions import is_clamp

NORM_MARK: Final = "Asin"  # stands in front of each batch-norm of a fresh export
LAYERS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FOLDABLE: Final = ("Conv", "ConvTranspose", "Gemm")
_PAIR: Final = ("QuantizeLinear", "DequantizeLinear")
_BIAS: Final = 2
_TERMS: Final = ("value", "scale", "zero point")

_ELSE = "The file was packed from a model of another architecture, or by another version of torch."


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerUse:
    """One node that computes a layer. Names are those of constants of either graph.

    Attributes:
        weight: Initializer of the fresh graph.
        new_bias: Constant of the file that is its bias, where the fresh graph has none; or "".
        grid: Constants of the file: scale and zero point of its input; None if that is float.
    """

    weight: str
    new_bias: str
    grid: tuple[str, str] | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Counterparts:
    """What of a fresh graph is what of the file's.

    Attributes:
        tensors: (initializer of the fresh graph, constant of the file, node that reads it).
        layers: All uses of layers.
        norms: (running mean in the fresh graph, weight of the layer it is folded into or "").
    """

    tensors: tuple[tuple[str, str, str], ...]
    layers: tuple[LayerUse, ...]
    norms: tuple[tuple[str, str], ...]


def find_counterparts(
    fresh: onnx.ModelProto, packed: onnx.ModelProto, *, any_width: bool = False
) -> Counterparts:
    """Walk both graphs together.

    Args:
        fresh: Export of the same architecture, with `NORM_MARK` in front of each batch-norm.
        packed: The file's graph.
        any_width: Whether attributes of nodes may differ: numbers of groups and of hidden units.

    Raises:
        InputError: If they are not the same network; names the first place where they part.
    """
    for kind in ("input", "output"):
        counts = [len(getattr(model.graph, kind)) for model in (fresh, packed)]
        if counts[0] != counts[1]:
            raise InputError(
                f"The model must have as many {kind}s as the file's graph, {counts[1]}, "
                f"but has {counts[0]}.",
                _ELSE,
            )
    return _Walk(fresh.graph, packed.graph, any_width=any_width).run()


class _Walk:
    def __init__(self, fresh: onnx.GraphProto, packed: onnx.GraphProto, *, any_width: bool) -> None:
        self._fresh, self._packed, self._any_width = fresh, packed, any_width
        self._made, self._made_packed = makers(fresh), makers(packed)
        self._values = constants(fresh)
        self._initializers = set(self._values)
        self._numbers = {
            item.name: float(onnx.numpy_helper.to_array(item).reshape(()))
            for item in packed.initializer
            if np.prod(item.dims) == 1 and item.data_type != onnx.TensorProto.STRING
        }
        self._constants = constant_names(packed)
        self._inputs = [value.name for value in fresh.input]
        self._packed_inputs = [value.name for value in packed.input]
        self._seen: dict[str, str] = {}
        self._pending: list[tuple[str, str, str]] = []
        self._tensors: list[tuple[str, str, str]] = []
        self._layers: list[LayerUse] = []
        self._norms: list[tuple[str, str]] = []

    def run(self) -> Counterparts:
        for ours, theirs in zip(self._fresh.output, self._packed.output, strict=True):
            self._pending.append((ours.name, theirs.name, "the output"))
        while self._pending:
            self._visit(*self._pending.pop())
        return Counterparts(
            tensors=tuple(self._tensors), layers=tuple(self._layers), norms=tuple(self._norms)
        )

    def _visit(self, ours: str, theirs: str, reader: str) -> None:
        if ours in self._initializers:
            if theirs not in self._constants:
                raise _differs(f"{reader} reads a constant", "a computed value", reader)
            self._tensors.append((ours, theirs, reader))
            return
        theirs, grids = self._without_pairs(theirs)
        if ours in self._seen:
            if self._seen[ours] != theirs:
                raise _differs("one value", "two different ones", reader)
            return
        self._seen[ours] = theirs
        if ours in self._made:
            self._visit_node(ours, theirs, reader, grids)
        elif ours not in self._inputs or theirs not in self._packed_inputs:
            raise _differs("an input", "a computed value", reader)
        elif self._inputs.index(ours) != self._packed_inputs.index(theirs):
            raise _differs(f"input {ours!r}", f"input {theirs!r}", reader)

    def _visit_node(
        self, ours: str, theirs: str, reader: str, grids: list[ActivationRange]
    ) -> None:
        node, other = self._made[ours], self._made_packed.get(theirs)
        kind = other.op_type if other is not None else "an input"
        if node.op_type == "BatchNormalization" and kind != node.op_type:
            self._visit_folded(node, other, theirs)
            return
        if kind != node.op_type and self._is_saturated(node, grids):
            self._pending.append((node.input[0], theirs, reader))
            return
        if other is None:
            raise _differs(f"`{node.op_type}`", f"`{kind}`", node.name or reader)
        self._check_same(node, other, node.name or reader)
        if list(node.output).index(ours) != list(other.output).index(theirs):
            raise _differs("one output of a node", "another", node.name or reader)
        if node.op_type == "BatchNormalization":
            self._norms.append((node.input[3], ""))
        elif _reads_weight(node, self._initializers):
            self._note_layer(node, other, new_bias="")
        self._visit_inputs(node, other, reader)

    def _visit_folded(
        self, norm: onnx.NodeProto, other: onnx.NodeProto | None, theirs: str
    ) -> None:
        """A batch-norm that the file does not have: it must be part of the layer before it."""
        layer = self._made.get(self._unmarked(norm.input[0]))
        where = norm.name or "a batch-norm"
        if layer is None or layer.op_type not in _FOLDABLE or other is None:
            raise _differs("`BatchNormalization`", "none", where)
        self._check_same(layer, other, layer.name or where)
        if len(other.input) <= _BIAS or layer.input[1] not in self._initializers:
            raise _differs("a batch-norm", "none, and no bias in its place", layer.name or where)
        has_bias = len(layer.input) > _BIAS
        self._norms.append((norm.input[3], layer.input[1]))
        self._note_layer(layer, other, new_bias="" if has_bias else other.input[_BIAS])
        self._visit_inputs(layer, other, where, n=_BIAS + has_bias)

    def _visit_inputs(
        self, node: onnx.NodeProto, other: onnx.NodeProto, reader: str, n: int | None = None
    ) -> None:
        ours, theirs = list(node.input)[:n], list(other.input)[:n]
        where = node.name or f"{node.op_type} before {reader}" if node.op_type in LAYERS else reader
        if node.op_type == "Pad" and theirs[2:3] != ours[2:3]:  # the code of 0 fills integers
            ours, theirs = ours[:2], theirs[:2]
        if [bool(name) for name in ours] != [bool(name) for name in theirs]:
            raise _differs(f"{len(ours)} inputs", f"{len(theirs)}", where)
        for mine, yours in zip(ours, theirs, strict=True):
            if mine:
                is_norm = node.op_type == "BatchNormalization"
                self._pending.append((self._unmarked(mine) if is_norm else mine, yours, where))

    def _note_layer(self, node: onnx.NodeProto, other: onnx.NodeProto, new_bias: str) -> None:
        pair = self._made_packed.get(other.input[0])
        grid = None
        if pair is not None and pair.op_type == "DequantizeLinear" and self._has_one_grid(pair):
            grid = pair.input[1], pair.input[2]
        self._layers.append(LayerUse(weight=node.input[1], new_bias=new_bias, grid=grid))

    def _check_same(self, node: onnx.NodeProto, other: onnx.NodeProto, where: str) -> None:
        """Raise an InputError unless two nodes are the same operation."""
        if (node.op_type, node.domain) != (other.op_type, other.domain):
            raise _differs(f"`{node.op_type}`", f"`{other.op_type}`", where)
        ours, theirs = (
            {item.name: item.SerializeToString(deterministic=True) for item in each.attribute}
            for each in (node, other)
        )
        changed = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
        if changed and not self._any_width:
            name = changed[0]
            raise _differs(
                f"`{node.op_type}` with {name} = {_value_of(node, name)}",
                f"{_value_of(other, name)}",
                where,
            )

    def _unmarked(self, name: str) -> str:
        """The value in front of the mark of a batch-norm."""
        node = self._made.get(name)
        return node.input[0] if node is not None and node.op_type == NORM_MARK else name

    def _without_pairs(self, name: str) -> tuple[str, list[ActivationRange]]:
        """The value that pairs were laid around, and the grids of these."""
        grids: list[ActivationRange] = []
        node = self._made_packed.get(name)
        while node is not None:
            is_pair = node.op_type in _PAIR and name not in self._constants
            is_guard = node.op_type == "Max" and len(node.input) == 1
            if not (is_pair or is_guard):
                break
            if node.op_type == "QuantizeLinear" and self._has_one_grid(node):
                scale, zero_point = (self._numbers[number] for number in node.input[1:3])
                grids.append(ActivationRange(scale=scale, zero_point=int(zero_point)))
            name = node.input[0]
            node = self._made_packed.get(name)
        return name, grids

    def _has_one_grid(self, pair: onnx.NodeProto) -> bool:
        """Whether a node of a pair has one scale and one zero point."""
        return len(pair.input) == len(_TERMS) and self._numbers.keys() >= {*pair.input[1:3]}

    def _is_saturated(self, node: onnx.NodeProto, grids: list[ActivationRange]) -> bool:
        """Whether a node is a clamp that the end of a grid makes needless."""
        return is_clamp(node, self._values) and any(
            is_saturated(node, self._values, grid) for grid in grids
        )


def _value_of(node: onnx.NodeProto, attribute: str) -> object:
    found = [item for item in node.attribute if item.name == attribute]
    if not found:
        return "none"
    if found[0].type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.TENSOR):
        return "its own"
    return onnx.helper.get_attribute_value(found[0])


def _reads_weight(node: onnx.NodeProto, initializers: set[str]) -> bool:
    return node.op_type in LAYERS and node.input[1] in initializers


def _differs(ours: str, theirs: str, where: str) -> InputError:
    return InputError(
        f"The model must be of the architecture that was packed, but at {where!r} it has {ours} "
        f"where the file has {theirs}.",
        _ELSE,
    )
