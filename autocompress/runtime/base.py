"""What a runtime is: it writes a candidate to a file, and runs such files."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a process that only runs a file must not wait for torch and onnx
    from torch import Tensor

    from autocompress.compress.quantize import Deployable
    from autocompress.onnx_graph.exported_graph import ExportedGraph

Array: TypeAlias = NDArray[np.generic]
Arrays: TypeAlias = tuple[Array, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shipment:
    """A candidate in the forms that runtimes make their files from.

    Attributes:
        graph: As an ONNX graph, integer layers and all.
        static_graph: The same with integer layers on fixed activation grids only, for runtimes
            that know no others.
        deployable: As a plain float module, with what its weights are stored as and the grids of
            its integer layers.
        example_inputs: Inputs of the module, examples in dimension 0, at least two.
        calibration: Inputs to calibrate with what has no trained grid.
    """

    graph: "ExportedGraph"
    static_graph: "ExportedGraph"
    deployable: "Deployable"
    example_inputs: "tuple[Tensor, ...]"
    calibration: "tuple[Tensor, ...]"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """One input of a file.

    Attributes:
        name: As the file calls it.
        shape: Sizes; None where any will do.
        dtype: Name of a NumPy type.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class OpenedModel(Protocol):
    """A file that a runtime has loaded."""

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What `run` takes, in order."""
        ...

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Outputs for inputs in the order of `inputs`.

        Raises:
            TrialError: With reason `runtime` if it does not run on them; says why, in one line.
        """
        ...


@runtime_checkable
class Runtime(Protocol):
    """Runs one kind of file on a CPU."""

    @property
    def name(self) -> str:
        """As options and tables call it."""
        ...

    @property
    def title(self) -> str:
        """As texts call it."""
        ...

    @property
    def suffix(self) -> str:
        """Ending of its files, with the dot."""
        ...

    @property
    def opens(self) -> tuple[str, ...]:
        """Endings of files it can open: its own, and others'."""
        ...

    @property
    def extra(self) -> str:
        """Extra that installs it, of the package it comes from; empty if it is always there."""
        ...

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions whose versions its figures depend on, the runtime's first."""
        ...

    @property
    def has_own_batch(self) -> bool:
        """Whether its files take only the batch they were written for."""
        ...

    @property
    def integer_weight_bits(self) -> int:
        """Widest weights with which its integer kernels compute the same on every processor.

        Kernels for x86 without VNNI add products of 8-bit inputs and weights in pairs, in 16 bits:
        two times 255 times 127 is more than fits and is cut off, two times 255 times 64 is not.
        """
        ...

    @property
    def is_safe_to_open(self) -> bool:
        """Whether a file from elsewhere can do no more than compute when it is opened."""
        ...

    def load(self) -> None:
        """Import the runtime, so that what follows takes time and memory for the model alone."""
        ...

    def write(self, shipment: Shipment, path: Path, batch_size: int) -> None:
        """Write a candidate as a file of this runtime.

        Args:
            shipment: The candidate.
            path: With the ending `suffix`; companions of the same stem may be written beside it.
            batch_size: Examples per inference, for runtimes with `has_own_batch`.

        Raises:
            TrialError: With reason `runtime` if the candidate has an operator it does not know.
        """
        ...

    def open(self, path: Path, threads: int) -> OpenedModel:
        """Load a file.

        Args:
            path: A file of this runtime.
            threads: Threads inside an operator, at least 1.

        Raises:
            TrialError: With reason `runtime` if the runtime refuses the file.
        """
        ...
