"""Graphs that are derived from one exported template, because exporting costs seconds.

Candidates of one model mostly differ in the values and widths of their weights. PyTorch's exporter
names weights after parameters, so another candidate's graph is the template with other weights in
it, as long as nothing that depends on widths was baked into it. That is not guessed: a derived
graph counts only if it computes what the module computes.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from autocompress.errors import TrialError
from autocompress.onnx_graph.constants import constant_nodes, constants_to_initializers
from autocompress.onnx_graph.graph import Array
from autocompress.onnx_graph.session import make_session

Trace: TypeAlias = Callable[..., onnx.ModelProto]
Topology: TypeAlias = tuple[tuple[str, ...], ...]

_N_KEPT: Final = 8  # topologies: a search that drops blocks meets many, and comes back to few
_TOLERANCE: Final = 1e-4  # of the largest output; exporters reorder sums, by 1e-6


class Templates:
    """Exported graphs by topology, of the candidates of one model.

    Args:
        trace: Exports a module; with `folds=False` without computing anything from its weights.
        is_same: Whether what the exporter gives with and without folding comes to the same graph in
            the end. Where it does not (recurrent layers), modules are always exported anew.
    """

    def __init__(
        self, trace: Trace, is_same: Callable[[onnx.ModelProto, onnx.ModelProto], bool]
    ) -> None:
        self._trace = trace
        self._is_same = is_same
        self._kept: dict[Topology, onnx.ModelProto | None] = {}
        self.n_derived = 0
        self.n_exported = 0

    def graph_of(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> onnx.ModelProto:
        """The module as the exporter would give it.

        Args:
            module: In eval mode, on the CPU; not changed.
            inputs: Examples in dimension 0, at least two.

        Raises:
            TrialError: With reason `export` if it cannot be exported.
        """
        topology = tuple(_topology(module))
        if topology in self._kept:
            derived = self._derived(self._kept[topology], module, inputs)
            if derived is not None:
                self.n_derived += 1
                return derived
        self.n_exported += 1
        exported = self._trace(module, inputs)
        if self._kept.get(topology, exported) is None:
            return exported
        template = self._template(module, inputs)
        derived = self._derived(template, module, inputs)
        if derived is not None and not self._is_same(derived, exported):
            template = derived = None
        if topology not in self._kept:
            while len(self._kept) >= _N_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[topology] = None if derived is None else template
        # What is derived counts for the module itself as well: its constants have other names, and
        # a candidate's file must not depend on which came before it.
        return exported if derived is None else derived

    def _template(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> onnx.ModelProto | None:
        """The graph of a module of this topology and these widths, all weights under their names.

        The exporter gives equal weights one name: so this one has random weights.
        """
        random = copy.deepcopy(module)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for tensor in (*random.parameters(), *random.buffers()):
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        try:
            graph = self._trace(random, inputs, folds=False)
        except TrialError:
            return None
        constants_to_initializers(graph.graph)
        return graph if _has_all_weights(graph, module) else None

    def _derived(
        self, template: onnx.ModelProto | None, module: nn.Module, inputs: tuple[Tensor, ...]
    ) -> onnx.ModelProto | None:
        """The template with a module's weights, if it then computes what the module does."""
        if template is None:
            return None
        derived = _derive(template, module)
        shapes = _checked_shapes(derived, module, inputs)
        if shapes is None:
            return None
        _say_shapes_(derived.graph, shapes)
        return derived


def _topology(module: nn.Module) -> Iterator[tuple[str, ...]]:
    """What two modules of equal graphs have in common, widths aside."""
    for name, part in module.named_modules():
        yield name, type(part).__qualname__
    yield tuple(name for name, _ in module.named_parameters())
    yield tuple(name for name, _ in module.named_buffers())


def _has_all_weights(graph: onnx.ModelProto, module: nn.Module) -> bool:
    """Whether every weight can be replaced by name: one that was computed with could not."""
    names = {item.name for item in graph.graph.initializer}
    tensors = (*module.named_parameters(), *module.named_buffers())
    floats = {name for name, tensor in tensors if tensor.is_floating_point()}
    return floats <= names and not _computes_from_weights(graph.graph, floats)


def _computes_from_weights(graph: onnx.GraphProto, floats: set[str]) -> bool:
    """Whether a node reads weights and other constants only.

    Later steps compute such a node if its result is small: then width decides what the graph is.
    Transposed matrices are always computed.
    """
    from_weights = set(floats)
    for node in constant_nodes(graph):
        if from_weights.intersection(node.input):
            if node.op_type not in ("Transpose", "Identity"):
                return True
            from_weights.update(node.output)
    return False


def _derive(template: onnx.ModelProto, module: nn.Module) -> onnx.ModelProto:
    """The template with a module's weights, and the groups of its convolutions."""
    derived = onnx.ModelProto.FromString(template.SerializeToString())
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for item in derived.graph.initializer:
        if item.name in tensors:
            value = np.ascontiguousarray(tensors[item.name].detach().cpu().numpy())
            item.CopyFrom(numpy_helper.from_array(value, item.name))
    groups = {
        f"{name}.weight": part.groups
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.conv._ConvNd)
    }
    for node in derived.graph.node:
        if len(node.input) > 1 and node.input[1] in groups:
            for attribute in node.attribute:
                if attribute.name == "group":
                    attribute.i = groups[node.input[1]]
    del derived.graph.value_info[:]  # shapes of the template
    return derived


def _say_shapes_(graph: onnx.GraphProto, shapes: list[tuple[int, ...]]) -> None:
    """Correct the sizes that a graph declares for its outputs, in place; free ones stay free."""
    for value, shape in zip(graph.output, shapes, strict=True):
        dims = value.type.tensor_type.shape.dim
        for size, found in zip(dims, shape, strict=len(dims) > 0):
            if size.HasField("dim_value"):
                size.dim_value = found


def _checked_shapes(
    graph: onnx.ModelProto, module: nn.Module, inputs: tuple[Tensor, ...]
) -> list[tuple[int, ...]] | None:
    """Shapes of the outputs, if they are the module's; None if the graph computes anything else."""
    try:
        session = make_session(graph, threads=torch.get_num_threads())
        names = [value.name for value in session.get_inputs()]
        feed = dict(zip(names, (x.numpy() for x in inputs), strict=True))
        found = session.run(None, feed)
    except Exception:  # noqa: BLE001 - whatever it is, the graph is not the module's
        return None
    with torch.no_grad():
        outputs = module(*inputs)
    expected = outputs if isinstance(outputs, tuple | list) else (outputs,)
    is_same = len(found) == len(expected) and all(
        isinstance(theirs, Tensor) and _is_close(ours, theirs.numpy())
        for ours, theirs in zip(found, expected, strict=True)
    )
    return [ours.shape for ours in found] if is_same else None


def _is_close(ours: Array, theirs: Array) -> bool:
    if ours.shape != theirs.shape:
        return False
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    limit = _TOLERANCE * (float(np.abs(b).max(initial=0.0)) + 1e-6)
    return bool(np.isfinite(a).all() and (np.abs(a - b) <= limit).all())
