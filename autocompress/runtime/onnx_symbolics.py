"""ONNX forms of operators that PyTorch's fast exporter has none for."""

from typing import Any

import torch
from torch.onnx import symbolic_helper
from torch.onnx._internal.torchscript_exporter import _type_utils
from torch.onnx._internal.torchscript_exporter.utils import register_custom_op_symbolic

_FIRST_OPSET = 13  # Slice and Sub as they are written here


@symbolic_helper.parse_args("v", "i", "i", "v", "v")
def _diff(graph: Any, x: Any, n: int, dim: int, prepend: Any, append: Any) -> Any:
    """torch.diff: what follows minus what precedes, `n` times along `dim`."""
    pieces = [piece for piece in (prepend, x, append) if not symbolic_helper._is_none(piece)]
    if len(pieces) > 1:
        x = graph.op("Concat", *pieces, axis_i=dim)

    def number(value: int) -> Any:
        return graph.op("Constant", value_t=torch.tensor([value]))

    for _ in range(n):
        last = torch.iinfo(torch.int64).max
        later = graph.op("Slice", x, number(1), number(last), number(dim))
        earlier = graph.op("Slice", x, number(0), number(-1), number(dim))
        x = graph.op("Sub", later, earlier)
    return x


@symbolic_helper.parse_args("v", "i", "none")
def _cumsum(graph: Any, x: Any, dim: int, dtype: Any) -> Any:
    """torch.cumsum, which counts truths as integers where ONNX knows numbers only."""
    is_truth = _type_utils.JitScalarType.from_value(x) == _type_utils.JitScalarType.BOOL
    if not symbolic_helper._is_none(dtype) and dtype.node().kind() != "prim::Constant":
        return symbolic_helper._unimplemented("cumsum", "a dtype that is not constant", x)
    if not symbolic_helper._is_none(dtype):
        kind = _type_utils.JitScalarType(symbolic_helper._get_const(dtype, "i", "dtype"))
        x = graph.op("Cast", x, to_i=kind.onnx_type())
    elif is_truth:
        x = graph.op("Cast", x, to_i=_type_utils.JitScalarType.INT64.onnx_type())
    return graph.op("CumSum", x, graph.op("Constant", value_t=torch.tensor(dim)))


def register() -> None:
    """Make them known to the exporter; to be called before it is used."""
    register_custom_op_symbolic("aten::diff", _diff, _FIRST_OPSET)
    register_custom_op_symbolic("aten::cumsum", _cumsum, _FIRST_OPSET)
