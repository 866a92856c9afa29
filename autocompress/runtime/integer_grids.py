"""Unsigned 8-bit grids for the values that integer layers exchange."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from autocompress.compress.codes import ActivationRange
from autocompress.errors import TrialError
from autocompress.onnx_graph.exported_graph import ExportedGraph
from autocompress.onnx_graph.graph import Array, constants, makers
from autocompress.onnx_graph.session import make_session
from autocompress.runtime.base import Arrays
from autocompress.runtime.integer_regions import IntegerRegions, is_clamp

_LEVELS = 255


def choose_grids(
    model: onnx.ModelProto, regions: IntegerRegions, calibration: Sequence[Arrays]
) -> dict[str, ActivationRange]:
    """Root value -> its grid: the given one, else that of the extremes it takes on `calibration`.

    Several given grids become the one that spans them all. A given grid that reaches beyond what a
    ReLU in front of it lets through is cut there.

    Raises:
        TrialError: With reason `nonfinite_activation` if an extreme is not finite.
    """
    given: dict[str, list[ActivationRange]] = {}
    for node in model.graph.node:
        if node.output[0] in regions.layers:
            root = regions.root_of[node.input[0]]
            given.setdefault(root, []).append(regions.layers[node.output[0]])
    open_roots = [r for r in dict.fromkeys(regions.root_of.values()) if r not in given]
    grids = {root: span_of(ranges) for root, ranges in given.items()}
    for root, (low, high) in _extremes(model, open_roots, calibration).items():
        grids[root] = _grid(low, high)
    values, made_by = constants(model.graph), makers(model.graph)
    for root in set(given) & set(made_by):
        node = made_by[root]
        if is_clamp(node, values) and not is_saturated(node, values, grids[root]):
            grids[root] = _clamped(grids[root], *_bounds(node, values))
    return grids


def _clamped(grid: ActivationRange, low: float, high: float) -> ActivationRange:
    """The part of a grid that a clamp leaves, so that saturation can stand in for the clamp."""
    first, last = -grid.zero_point * grid.scale, (_LEVELS - grid.zero_point) * grid.scale
    return _grid(max(first, low), min(last, high))


def span_of(ranges: Sequence[ActivationRange]) -> ActivationRange:
    """The grid that reaches as far as all of these."""
    if len(set(ranges)) == 1:
        return ranges[0]
    return _grid(
        min(-r.zero_point * r.scale for r in ranges),
        max((_LEVELS - r.zero_point) * r.scale for r in ranges),
    )


def _grid(low: float, high: float) -> ActivationRange:
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / _LEVELS)) or 1.0
    return ActivationRange(scale=scale, zero_point=min(round(-low / scale), _LEVELS))


def grids_of(
    exported: ExportedGraph, layers: Collection[str], calibration: Sequence[Arrays]
) -> dict[str, ActivationRange]:
    """Layer -> the grid that spans what its input takes on calibration data.

    Args:
        exported: The float graph.
        layers: Names in `exported.layer_nodes`.
        calibration: Batches: one array per graph input.
    """
    nodes = {node.name: node for node in exported.model.graph.node if node.name}
    inputs = {
        layer: [nodes[name].input[0] for name in exported.layer_nodes[layer]] for layer in layers
    }
    names = list(dict.fromkeys(name for found in inputs.values() for name in found))
    extremes = _extremes(exported.model, names, calibration)
    grids = {name: _grid(low, high) for name, (low, high) in extremes.items()}
    return {layer: span_of([grids[name] for name in found]) for layer, found in inputs.items()}


def _extremes(
    model: onnx.ModelProto, names: list[str], calibration: Sequence[Arrays]
) -> dict[str, tuple[float, float]]:
    """Smallest and largest element that each value takes on the calibration examples."""
    if not names:
        return {}
    probe = onnx.ModelProto.FromString(model.SerializeToString())
    del probe.graph.output[:]
    for i, name in enumerate(names):
        for kind in ("Min", "Max"):
            node = helper.make_node(f"Reduce{kind}", [name], [f"{kind}_{i}"], keepdims=0)
            probe.graph.node.append(node)
            float32 = onnx.TensorProto.FLOAT
            probe.graph.output.append(helper.make_tensor_value_info(f"{kind}_{i}", float32, []))
    session = make_session(probe, threads=1)
    inputs = [value.name for value in session.get_inputs()]
    rows = [session.run(None, dict(zip(inputs, batch, strict=True))) for batch in calibration]
    table = np.array(rows, np.float64).reshape(len(rows), len(names), 2)
    if not np.isfinite(table).all():
        raise TrialError(
            "nonfinite_activation", "Activations of the exported model are not finite."
        )
    lows, highs = table[:, :, 0].min(axis=0), table[:, :, 1].max(axis=0)
    return {n: (float(a), float(b)) for n, a, b in zip(names, lows, highs, strict=True)}


def _bounds(node: onnx.NodeProto, values: Mapping[str, Array]) -> tuple[float, float]:
    """Where a Relu or Clip clamps."""
    given = [float(values[name]) if name else None for name in node.input[1:3]] + [None, None]
    low = 0.0 if node.op_type == "Relu" else given[0]
    return -np.inf if low is None else low, np.inf if given[1] is None else given[1]


def is_saturated(node: onnx.NodeProto, values: Mapping[str, Array], grid: ActivationRange) -> bool:
    """Whether a clamp changes nothing, because the grid ends where it clamps."""
    low, high = (bound / grid.scale + grid.zero_point for bound in _bounds(node, values))
    return bool(np.rint(low) <= 0 and np.rint(high) >= _LEVELS)
