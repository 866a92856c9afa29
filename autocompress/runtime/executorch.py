"""ExecuTorch with XNNPACK: what runs on phones, from PyTorch's own exporter.

The integer program is made by the runtime's own quantization flow (PT2E), but with our grids: codes
and scales of weights, and ranges of layer inputs, are those that were trained. What lies between
layers and has no trained grid gets that of the extremes it takes on calibration data.
"""

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.errors import TrialError, first_line
from autocompress.runtime.base import Array, InputSpec, Shipment
from autocompress.runtime.executorch_grids import is_computing, layer_of, set_grids_
from autocompress.runtime.quiet_exporters import quiet_exporters


class ExecuTorch:
    """ExecuTorch with its XNNPACK backend."""

    name = "executorch"
    title = "ExecuTorch (XNNPACK)"
    suffix = ".pte"
    opens = (".pte",)
    extra = "executorch"
    packages = ("executorch", "torch")
    has_own_batch = True
    integer_weight_bits = 8  # XNNPACK widens products to 32 bits
    is_safe_to_open = True

    def load(self) -> None:
        """Import ExecuTorch's runtime, which imports PyTorch."""
        import executorch.runtime  # noqa: F401

    def write(self, shipment: Shipment, path: Path, batch_size: int) -> None:
        """Write a `.pte` program for one batch size; see `Runtime.write`."""
        try:
            with _quiet():
                path.write_bytes(_lower(shipment, batch_size))
        except Exception as error:  # tracing and lowering run much foreign code
            raise TrialError("runtime", f"ExecuTorch refuses the model: {_root(error)}.") from error

    def open(self, path: Path, threads: int) -> "_Method":
        """Load a program; see `Runtime.open`."""
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        portable_lib._unsafe_reset_threadpool(threads)
        try:
            return _Method(Runtime.get().load_program(path).load_method("forward"))
        except Exception as error:
            raise TrialError(
                "runtime", f"ExecuTorch refuses the file: {first_line(error)}."
            ) from error


class _Method:
    def __init__(self, method: Any) -> None:
        import torch

        self._method = method
        types = {_scalar_type(dtype): dtype for dtype in (torch.float32, torch.int64, torch.int32)}
        meta = [method.metadata.input_tensor_meta(i) for i in range(method.metadata.num_inputs())]
        self.inputs = tuple(
            InputSpec(
                name=f"input_{i}" if len(meta) > 1 else "input",
                shape=tuple(one.sizes()),
                dtype=str(types.get(one.dtype(), "unknown")).removeprefix("torch."),
            )
            for i, one in enumerate(meta)
        )

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """See `OpenedModel.run`."""
        import torch

        try:
            outputs = self._method.execute([torch.from_numpy(array) for array in arrays])
        except RuntimeError as error:
            takes = ", ".join(f"{list(spec.shape)} of {spec.dtype}" for spec in self.inputs)
            raise TrialError(
                "runtime", f"{first_line(error)}, and the file takes {takes}."
            ) from error
        return [output.numpy() for output in outputs]


def _scalar_type(dtype: Any) -> int:
    """Number of a type in PyTorch's enumeration."""
    import torch

    order = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    return (*order, torch.float16, torch.float32, torch.float64).index(dtype)


def _lower(shipment: Shipment, batch_size: int) -> bytes:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    model = _plain_layout(shipment.deployable.model)
    example = tuple(_batch_of(x, batch_size) for x in shipment.example_inputs)
    program = torch.export.export(model, example)
    if shipment.deployable.activations:
        integer = _to_integer(model, shipment)
        program = torch.export.export(integer, example)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return bytes(lowered.to_executorch().buffer)


def _batch_of(x: Any, batch_size: int) -> Any:
    """So many examples, repeated where there are fewer."""
    return x[np.arange(batch_size) % len(x)].contiguous()


def _root(error: BaseException) -> str:
    """What went wrong in the first place: passes only say which of them it was."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"


def _plain_layout(model: Any) -> Any:
    """A copy with tensors in plain order: the lowering passes lay them out themselves."""
    plain = copy.deepcopy(model)
    for tensor in (*plain.parameters(), *plain.buffers()):
        tensor.data = tensor.data.contiguous()
    return plain


def _to_integer(model: Any, shipment: Shipment) -> Any:
    """The module with quantize and dequantize operators, on given grids where there are some."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from autocompress.runtime.torch_export import export_program

    deployable = shipment.deployable

    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    quantizer.set_filter_function(
        lambda node: not is_computing(node) or layer_of(node) in deployable.activations
    )
    exported = export_program(model, shipment.example_inputs)
    prepared = prepare_pt2e(exported.module(), quantizer)
    set_grids_(prepared, shipment)
    n_examples = len(shipment.example_inputs[0])  # a program that is not free takes no others
    for batch in zip(*(x.split(n_examples) for x in shipment.calibration), strict=True):
        if len(batch[0]) == n_examples:
            prepared(*batch)
    return convert_pt2e(prepared)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what exporters say about their own internals."""
    with warnings.catch_warnings(), quiet_exporters():
        warnings.simplefilter("ignore")
        yield
