"""Our grids in PT2E's quantization flow: its observers are told what was trained."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from autocompress.runtime.base import Array, Shipment

if TYPE_CHECKING:
    from autocompress.compress.codes import StoredWeight

_AVERAGES: Final = ("mean", "avg_pool")
_FIRST_SIGNED: Final = -128  # XNNPACK's integers are signed: the same grid, moved


def set_grids_(prepared: Any, shipment: Shipment) -> None:
    """Give observers the grids that were trained; the others look at extremes."""
    from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver

    deployable = shipment.deployable
    ranges: dict[str, list[Any]] = {}
    for node in prepared.graph.nodes:
        layer = layer_of(node)
        if layer not in deployable.activations or not is_computing(node):
            continue
        source, weight = node.args[0], node.args[1]
        if source.op == "call_module":
            ranges.setdefault(source.target, []).append(deployable.activations[layer])
        if weight.op == "call_module" and layer in deployable.weights:
            observer = getattr(prepared, weight.target)
            values = _value_of(prepared, weight.args[0])
            codes = deployable.weights[layer]
            setattr(prepared, weight.target, _fixed_weight(observer, values, codes))
    for names in _observers(prepared):
        observer = getattr(prepared, names[0])
        grids = [grid for name in names for grid in ranges.get(name, ())]
        if grids:
            observer = _fixed_input(observer, grids)
        elif isinstance(observer, HistogramObserver):  # thousands of bins, for nothing wanted here
            observer = MinMaxObserver(
                dtype=observer.dtype,
                qscheme=observer.qscheme,
                quant_min=observer.quant_min,
                quant_max=observer.quant_max,
                eps=float(observer.eps),
            )
        for name in names:
            setattr(prepared, name, observer)


def _observers(prepared: Any) -> list[list[str]]:
    """Names of observers; those of one grid (before and after pooling or a reshape) together.

    PT2E shares one across averages as well; their values have a smaller range, which is what was
    trained, and their kernels take two grids. So an average begins a group of its own.
    """
    found: dict[tuple[int, str], list[str]] = {}
    began: dict[Any, str] = {}  # node of an observer -> average behind which it stands
    for node in prepared.graph.nodes:
        if node.op != "call_module" or not node.args:
            continue
        made_by = node.args[0]
        sources = getattr(made_by, "args", ())
        before = sources[0] if sources and hasattr(sources[0], "op") else None
        is_average = any(word in str(getattr(made_by, "target", "")) for word in _AVERAGES)
        began[node] = str(made_by) if is_average else began.get(before, "")
        names = found.setdefault((id(getattr(prepared, node.target)), began[node]), [])
        if node.target not in names:
            names.append(node.target)
    return list(found.values())


def is_computing(node: Any) -> bool:
    """Whether a node is a convolution or a matrix product with a weight."""
    import torch

    aten = torch.ops.aten
    return node.op == "call_function" and node.target in (
        *(aten.conv1d.default, aten.conv2d.default, aten.convolution.default),
        *(aten.linear.default, aten.addmm.default),
    )


def layer_of(node: Any) -> str:
    """Qualified name of the module that made a node; the root's is empty."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _value_of(module: Any, node: Any) -> Array:
    """What a `get_attr` node reads."""
    found = module
    for part in node.target.split("."):
        found = getattr(found, part)
    values: Array = found.detach().numpy()
    return values


def _fixed_input(observer: Any, grids: Sequence[Any]) -> Any:
    """An observer that has made up its mind: the grid that spans all of these."""
    from torchao.quantization.pt2e import FixedQParamsObserver

    from autocompress.runtime.integer_grids import span_of

    span = span_of(grids)
    return FixedQParamsObserver(
        scale=span.scale,
        zero_point=span.zero_point + _FIRST_SIGNED,
        dtype=observer.dtype,
        qscheme=observer.qscheme,
        quant_min=observer.quant_min,
        quant_max=observer.quant_max,
    )


def _fixed_weight(observer: Any, values: Array, stored: "StoredWeight") -> Any:
    """An observer with the scales that give a weight its codes back, batch-norm folded or not.

    Args:
        observer: What PT2E put there.
        values: The weight as it is exported, (O, ...): codes times scales times what was folded in.
        stored: What it is stored as, before folding.
    """
    import torch
    from torchao.quantization.pt2e import PerChannelMinMaxObserver

    from autocompress.runtime.integer_codes import to_integer_codes

    codes = to_integer_codes(stored)
    if codes is None or codes.axis != 0:
        return observer
    largest_code = np.abs(codes.codes.astype(np.int16)).reshape(len(values), -1).max(axis=1)
    largest = np.abs(values.astype(np.float64)).reshape(len(values), -1).max(axis=1)
    is_empty = (largest_code == 0) | (largest == 0.0)
    scale = np.where(is_empty, 1.0, largest / np.maximum(largest_code, 1))

    class FixedChannels(PerChannelMinMaxObserver):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x

        def calculate_qparams(self) -> Any:
            return torch.from_numpy(scale.astype(np.float32)), torch.zeros(
                len(scale), dtype=torch.int64
            )

    return FixedChannels(
        ch_axis=0,
        dtype=observer.dtype,
        qscheme=observer.qscheme,
        quant_min=_FIRST_SIGNED,
        quant_max=observer.quant_max,
    )
