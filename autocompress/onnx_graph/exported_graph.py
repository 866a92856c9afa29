"""A graph that was exported, and what is known about its weights."""

import dataclasses
from collections.abc import Mapping

import onnx

from autocompress.compress.codes import StoredWeight


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExportedGraph:
    """A graph and what is known about its weights.

    Attributes:
        model: The graph; inputs `input` or `input_0`, `input_1`, …, outputs likewise; the batch
            dimension of all of them is free.
        quantized: Initializer name -> what it is stored as: `dequantize()` is the initializer, bit
            for bit, in the graph's layout (a weight may be transposed against its layer's).
        layer_nodes: Layer name -> names of the nodes that compute it; a layer that runs several
            times has several.
        unmatched: Keys of weights that were not found in the graph and ship as they were exported.
        not_integer: Layers that asked for integer kernels and compute in float.
    """

    model: onnx.ModelProto
    quantized: Mapping[str, StoredWeight]
    layer_nodes: Mapping[str, tuple[str, ...]]
    unmatched: tuple[str, ...] = ()
    not_integer: tuple[str, ...] = ()
