"""PyTorch's exported program: for those who go on from it with tools of their own."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from autocompress.errors import TrialError, first_line
from autocompress.runtime.base import Array, InputSpec, Shipment
from autocompress.runtime.quiet_exporters import quiet_exporters

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_EXAMPLES: Final = "/sample_inputs/"


class TorchExport:
    """PyTorch itself, on a program of `torch.export`.

    All weights are floats with the values that ship, so the file is as large as a float model's and
    as slow: it is there to be lowered further, not to be run. A program may name any function of
    PyTorch, so only what has just been written is loaded, to be checked.
    """

    name = "torch_export"
    title = "PyTorch (torch.export)"
    suffix = ".pt2"
    opens = (".pt2",)
    extra = ""
    packages = ("torch",)
    has_own_batch = False
    integer_weight_bits = 8  # computes with floats
    is_safe_to_open = False

    def load(self) -> None:
        """Import PyTorch."""
        import torch.export  # noqa: F401

    def write(self, shipment: Shipment, path: Path, batch_size: int) -> None:
        """Write a `.pt2` archive without pickles; see `Runtime.write`."""
        import torch

        try:
            with quiet_exporters():
                program = export_program(shipment.deployable.model, shipment.example_inputs)
            torch.export.save(program, path)
            _empty_examples_(path)
        except Exception as error:  # tracing runs the user's forward
            raise TrialError(
                "runtime", f"torch.export refuses the model: {first_line(error)}."
            ) from error

    def open(self, path: Path, threads: int) -> "_Program":
        """Load an archive, which must be one of our own making; see `Runtime.open`."""
        import torch

        torch.set_num_threads(threads)
        try:
            return _Program(torch.export.load(path))
        except Exception as error:  # a damaged archive can raise anything
            raise TrialError(
                "runtime", f"torch.export refuses the file: {first_line(error)}."
            ) from error


def export_program(model: Any, example_inputs: Any) -> "ExportedProgram":
    """Export a module with a free batch, or for the batch of the examples if it takes no other."""
    import torch

    batch = torch.export.Dim("batch")
    try:
        shapes = tuple({0: batch} for _ in example_inputs)
        return torch.export.export(model, example_inputs, dynamic_shapes=shapes)
    except Exception:  # noqa: BLE001 - why it is not free does not matter
        return torch.export.export(model, example_inputs)


def _empty_examples_(path: Path) -> None:
    """Empty the one member that PyTorch pickles, the example inputs; it must be there to load."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, b"" if _EXAMPLES in name else content)


class _Program:
    def __init__(self, program: "ExportedProgram") -> None:
        self._call = program.module()
        names = program.graph_signature.user_inputs
        values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
        self.inputs = tuple(
            InputSpec(
                name=str(name),
                shape=tuple(d if isinstance(d, int) else None for d in values[name].shape),
                dtype=str(values[name].dtype).removeprefix("torch."),
            )
            for name in names
        )

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """See `OpenedModel.run`."""
        import torch
        from torch.utils import _pytree

        try:
            with torch.inference_mode():
                outputs = self._call(*(torch.from_numpy(array) for array in arrays))
        except Exception as error:  # guards and operators raise classes of their own
            raise TrialError("runtime", f"{first_line(error)}.") from error
        return [leaf.numpy() for leaf in _pytree.tree_leaves(outputs)]
