"""Export a module as a plain ONNX graph whose quantized weights are exactly codes times scale."""

import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.onnx import symbolic_helper
from torch.onnx._internal.torchscript_exporter import _type_utils
from torch.onnx._internal.torchscript_exporter.utils import register_custom_op_symbolic

from autocompress.compress.codes import StoredWeight
from autocompress.errors import TrialError, first_line
from autocompress.onnx_graph.clean import clean
from autocompress.onnx_graph.exported_graph import ExportedGraph
from autocompress.onnx_graph.graph import drop_unread, rename_values, shorten_names
from autocompress.onnx_graph.structure import structure_digest
from autocompress.runtime.batchnorm_fold import fold_batchnorm
from autocompress.runtime.half_precision import halve_scales_and_biases
from autocompress.runtime.layer_nodes import name_after_layers, name_after_modules
from autocompress.runtime.quiet_exporters import quiet_exporters
from autocompress.runtime.recurrent import unstack_recurrent
from autocompress.runtime.template import Templates
from autocompress.runtime.weight_match import (
    content_of,
    fold_transposes,
    match_weights,
    matmul_to_gemm,
    stored_in_graph,
    weight_contents,
)

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


_OPSET = 17  # the first with LayerNormalization; the legacy exporter's default
_LATER_OPSET = 18  # the dynamo exporter's lowest; the first with Col2Im


def make_templates() -> Templates:
    """Where `export_onnx` keeps what it exported, for the candidates of one model."""
    return Templates(_trace, _is_same)


def export_onnx(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    weights: Mapping[str, StoredWeight],
    templates: Templates | None = None,
) -> ExportedGraph:
    """Export a module in eval mode; batch-norms are folded into the layers before them.

    Codes stay the same integers: folding changes scales, and the sign where a batch-norm's gamma is
    negative. Scales, codebooks and biases of quantized layers are rounded to float16 values, so
    that they can be stored in two bytes; everything else is float32 as PyTorch has it.

    Args:
        module: Float module, on the CPU; not changed. Quantized layers hold dequantized weights.
        example_inputs: Inputs with the batch in dimension 0; more than one example is not needed.
        weights: Key -> what a weight is stored as, exactly; the key is the layer's name for a
            parameter called `weight`, else the parameter's (`lstm.weight_ih_l0`).
        templates: From `make_templates`; a module like one that was exported is not exported again.

    Raises:
        TrialError: With reason `export` if neither exporter of PyTorch can express the module.
    """
    inputs = tuple(torch.cat([x, x]) if len(x) == 1 else x for x in example_inputs)
    model = templates.graph_of(module, inputs) if templates else _trace(module, inputs)
    _plain_(model)
    contents = weight_contents(module, weights)
    unstack_recurrent(model.graph, {content_of(contents[key][1]) for key in weights})
    matched = match_weights(model.graph, contents)
    layer_nodes = name_after_layers(model.graph, matched, module)
    quantized = fold_batchnorm(model, stored_in_graph(model.graph, matched, weights))
    quantized = halve_scales_and_biases(model.graph, quantized)
    drop_unread(model.graph)
    shorten_names(model.graph, {n.output[0]: n.name for n in model.graph.node if n.name})
    _name_interface(model.graph)
    assert set(quantized) <= {item.name for item in model.graph.initializer}, (
        "a weight lost its name"
    )
    found = {key for keys in matched.values() for key in keys}
    return ExportedGraph(
        model=model,
        quantized=quantized,
        layer_nodes=layer_nodes,
        unmatched=tuple(sorted(set(weights) - found)),
    )


def _plain_(model: onnx.ModelProto) -> None:
    """Bring what an exporter gives into one form, in place."""
    name_after_modules(model.graph)
    clean(model)
    fold_transposes(model)
    drop_unread(model.graph)  # whose names the transposed weights are to have
    matmul_to_gemm(model)


def _is_same(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Whether two graphs are of one structure in that form; neither is changed."""
    copies = [onnx.ModelProto.FromString(model.SerializeToString()) for model in (one, other)]
    for model in copies:
        _plain_(model)
    return structure_digest(copies[0]) == structure_digest(copies[1])


def _trace(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    folds: bool = True,
    opset: int = _OPSET,
) -> onnx.ModelProto:
    """Run PyTorch's exporters: the fast legacy one, then the slow one that knows more.

    Args:
        module: In eval mode.
        inputs: Examples in dimension 0.
        folds: Whether the exporter may compute constants from weights; if not, only the legacy one
            is asked, and every weight is an initializer of its parameter's name.
        opset: Version of ONNX's operators; a later one is tried where an operator needs it.
    """
    register()
    names = [f"input_{i}" for i in range(len(inputs))]
    buffer = io.BytesIO()
    with torch.no_grad(), _quiet_export():
        try:
            torch.onnx.export(
                module,
                inputs,
                buffer,  # type: ignore[arg-type]  # the legacy exporter takes a buffer
                dynamo=False,
                do_constant_folding=folds,
                training=torch.onnx.TrainingMode.PRESERVE,  # EVAL folds batch-norms by itself
                opset_version=opset,
                input_names=names,
                dynamic_axes={name: {0: "batch"} for name in names},
            )
            return onnx.load_from_string(buffer.getvalue())
        except Exception as legacy_error:  # tracing runs the user's forward
            if opset < _LATER_OPSET and f"added in version {_LATER_OPSET}" in str(legacy_error):
                return _trace(module, inputs, folds=folds, opset=_LATER_OPSET)
            if not folds:
                raise TrialError("export", first_line(legacy_error)) from legacy_error
            return _trace_with_dynamo(module, inputs, legacy_error)


def _trace_with_dynamo(
    module: nn.Module, inputs: tuple[Tensor, ...], legacy_error: Exception
) -> onnx.ModelProto:
    try:
        with quiet_exporters():
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                opset_version=_LATER_OPSET,
                dynamic_shapes=_free_batch(module, len(inputs)),
                optimize=False,  # its optimiser folds batch-norms by itself
                verbose=False,
            )
    except Exception as error:
        raise TrialError(
            "export",
            "The model cannot be written as ONNX: "
            f"{type(legacy_error).__name__}: {first_line(legacy_error)} "
            f"(and with dynamo: {_cause(error)}).",
        ) from error
    assert program is not None
    return program.model_proto


def _free_batch(module: nn.Module, n_inputs: int) -> tuple[object, ...]:
    """That dimension 0 of all inputs is one and free, in the form of the forward's signature."""
    free = tuple({0: torch.export.Dim("batch")} for _ in range(n_inputs))
    parameters = inspect.signature(module.forward).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    has_rest = any(parameter.kind == parameter.VAR_POSITIONAL for parameter in parameters)
    # what a `*tensors` takes is one tuple of its own
    return (*free[: len(named)], free[len(named) :]) if has_rest else free


def _cause(error: BaseException) -> str:
    """What an error of the dynamo exporter comes from, which its own first line does not say."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"


@contextmanager
def _quiet_export() -> Iterator[None]:
    """Silence what PyTorch's exporters say about themselves and about their own internals."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused operators have no ONNX form
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # the legacy exporter is deprecated, and 5 to 10 times faster than its successor
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
            warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.(onnx|jit)")
            # recurrent layers keep their weights in a list beside the parameters
            warnings.filterwarnings("ignore", r"The tensor attributes? self\..*_flat_weights")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _name_interface(graph: onnx.GraphProto) -> None:
    """Name inputs and outputs, and free their batch dimension."""
    initializers = {item.name for item in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]
    names: dict[str, str] = {}
    for kind, found in (("input", inputs), ("output", list(graph.output))):
        for i, value in enumerate(found):
            names[value.name] = kind if len(found) == 1 else f"{kind}_{i}"
            if len(value.type.tensor_type.shape.dim) > 0:
                value.type.tensor_type.shape.dim[0].dim_param = "batch"
    names.update({name: f"{name}_constant" for name in initializers & set(names.values())})
    rename_values(graph, names)
