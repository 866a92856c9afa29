"""A copy of a model whose weighted layers return made-up numbers and note what reaches them.

No weighted layer computes, so what differs between two inputs of a layer came there through the
code between the layers alone: reshapes, chunks, gates, attention, norms, anything Python can say.

Dimension key: `B` examples of a pass, `C` channels.
"""

import contextlib
import copy
import functools
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autocompress.analysis.exactness import tensors_in
from autocompress.analysis.probe_layout import (
    Layout,
    changed_channels,
    layout_of,
    noise,
    repeat_examples,
)
from autocompress.analysis.slots import PER_CHANNEL, channel_dim, is_weighted
from autocompress.tasks.base import Inputs

Key: TypeAlias = tuple[Literal["in", "norm", "mixer", "state", "output"], str]
Perturbations: TypeAlias = Mapping[str, list[tuple[int, int]]]
Hits: TypeAlias = dict[Key, NDArray[np.bool_]]

EVERY_CHANNEL: Final = -1
MIXERS: Final = (nn.LayerNorm, nn.RMSNorm)
# Flips the sign (so that a ReLU lets one of the two through) and the size (for abs and square)
_PERTURBATION = -1.7


class ProbedModel:
    """See the module's docstring.

    Args:
        model: Not modified.
        example_inputs: Inputs the model runs on, each of shape (N, ...); the first example is used.

    Attributes:
        called: Names of the weighted layers that a forward pass calls, in the order of modules.
        free_parameters: Names of the parameters that no layer of a known kind owns.

    Raises:
        ValueError: If the batch dimension of an intermediate tensor cannot be told.
    """

    def __init__(self, model: nn.Module, example_inputs: Inputs) -> None:
        self._model = copy.deepcopy(model).eval()
        self._inputs = tuple(tensor[:1] for tensor in example_inputs)
        self._modules = dict(self._model.named_modules())
        self._calls: Counter[str] = Counter()
        self._shapes: dict[tuple[Key, int], list[tuple[int, ...]]] | None = {}
        self._output_shapes: dict[tuple[str, int], list[list[tuple[int, ...]]]] = {}
        self._clean: dict[tuple[Key, int], Tensor] | None = None
        self._watched: Collection[Key] | None = None
        self.free_parameters = [
            f"{name}.{own}".removeprefix(".")
            for name, module in self._modules.items()
            if not (is_weighted(module) or isinstance(module, (*PER_CHANNEL, *MIXERS)))
            for own, _ in module.named_parameters(recurse=False)
        ]
        for name, module in self._modules.items():
            replacement = self._replacement(name, module)
            if replacement is not None:
                object.__setattr__(module, "forward", replacement)
        self._learn_layouts()
        with_calls = {name for name, _ in self._output_layouts}
        self.called = [name for name in self._modules if name in with_calls]

    @property
    def n_elements(self) -> int:
        """Numbers that one example holds in the layers' inputs."""
        return sum(int(np.prod(layout.shape)) for layout in self._layouts.values())

    def is_constant(self, layer: str) -> bool:
        """Whether some output of a layer is the same for all examples."""
        return any(
            layout.batch_dim is None
            for (name, _), layouts in self._output_layouts.items()
            if name == layer
            for layout in layouts
        )

    def probe(
        self,
        n_examples: int,
        perturbations: Perturbations,
        seed: int,
        keys: Collection[Key] | None = None,
    ) -> Hits:
        """One pass of many examples, equal but for perturbed channels.

        Args:
            n_examples: B.
            perturbations: Layer -> (example, channel) pairs; `EVERY_CHANNEL` for all of a layer.
            seed: Of the made-up numbers.
            keys: Where to look for differences; None for everywhere.

        Returns:
            What was reached -> shape (B, C): which channels of it differ from what they are
            without perturbation. For mixers and the output C is 1.
        """
        self._watched = keys
        try:
            hits = self._run(n_examples + 1, perturbations, seed)  # the last one stays untouched
        finally:
            self._watched = None
        return {key: hit[:-1] for key, hit in hits.items()}

    def probe_constant(self, layer: str, channels: NDArray[np.int64], seed: int) -> Hits:
        """As `probe`, for a layer whose output all examples share: one pass per channel."""
        with self._clean_pass(seed):
            passes = [self._run(1, {layer: [(0, int(channel))]}, seed) for channel in channels]
        return {key: np.concatenate([hits[key] for hits in passes]) for key in passes[0]}

    def probe_parameter(self, name: str, seed: int) -> Hits:
        """As `probe` with one example, for a parameter to which noise of its size is added."""
        parameter = self._model.get_parameter(name).data
        before = parameter.clone()
        with self._clean_pass(seed):
            size = float(before.abs().mean()) + 1e-3
            parameter.add_(noise(tuple(before.shape), seed).to(before) * size)
            hits = self._run(1, {}, seed)
        parameter.copy_(before)
        return hits

    def _replacement(self, name: str, module: nn.Module) -> Callable[..., Any] | None:
        if is_weighted(module):
            return functools.partial(self._weighted, name, module.forward)
        if isinstance(module, (*PER_CHANNEL, *MIXERS)):
            return functools.partial(self._norm, name, module.forward)
        return None

    def _learn_layouts(self) -> None:
        for n_examples in (2, 3):
            self._run(n_examples, {}, 0)
        assert self._shapes is not None
        self._layouts = {key: _layout(shapes) for key, shapes in self._shapes.items()}
        self._output_layouts = {
            key: [_layout(list(pair)) for pair in zip(*shapes, strict=True)]
            for key, shapes in self._output_shapes.items()
        }
        self._shapes = None

    @contextlib.contextmanager
    def _clean_pass(self, seed: int) -> Iterator[None]:
        self._clean = {}
        self._is_clean = True
        self._run(1, {}, seed)
        self._is_clean = False
        try:
            yield
        finally:
            self._clean = None

    def _run(self, n_examples: int, perturbations: Perturbations, seed: int) -> Hits:
        self._calls.clear()
        self._n_examples, self._perturbations, self._seed = n_examples, perturbations, seed
        self._hits: Hits = {}
        inputs = [torch.cat([tensor] * n_examples) for tensor in self._inputs]
        is_fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.no_grad():
                output = self._model(*inputs)
        finally:
            torch.backends.mha.set_fastpath_enabled(is_fused)
        for index, tensor in enumerate(tensors_in(output)):
            self._observe(("output", ""), index, tensor, None)
        return self._hits

    def _weighted(
        self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> object:
        call = self._calls[name]
        self._calls[name] += 1
        module = self._modules[name]
        tensor, *rest = (*args, *kwargs.values())
        if not isinstance(tensor, Tensor):
            msg = f"the input of '{name}' is a {type(tensor).__name__}"
            raise TypeError(msg)
        if not isinstance(module, nn.Embedding):
            self._observe(("in", name), call, tensor, channel_dim(module, tensor.ndim))
        if isinstance(module, nn.RNNBase):
            for index, state in enumerate(tensors_in(rest)):
                self._observe(("state", name), 2 * call + index, state, state.ndim - 1)
        if self._shapes is None:
            return self._made_up(name, call)
        output = forward(*args, **kwargs)
        shapes = [tuple(part.shape) for part in tensors_in(output)]
        self._output_shapes.setdefault((name, call), []).append(shapes)
        return output

    def _norm(self, name: str, forward: Callable[..., Any], tensor: Tensor) -> object:
        call = self._calls[name]
        self._calls[name] += 1
        if isinstance(self._modules[name], MIXERS):
            self._observe(("mixer", name), call, tensor, None)
        else:
            self._observe(("norm", name), call, tensor, 1)
        return forward(tensor)

    def _observe(self, key: Key, call: int, tensor: Tensor, channel_dim: int | None) -> None:
        is_watched = self._watched is None or key in self._watched
        if not tensor.is_floating_point() or not is_watched:
            return
        if self._shapes is not None:
            self._shapes.setdefault((key, call), []).append(tuple(tensor.shape))
            return
        reference = None
        if self._clean is not None:
            if self._is_clean:
                self._clean[key, call] = tensor.clone()
                return
            reference = self._clean[key, call]
        hits = changed_channels(
            tensor, self._layouts[key, call], channel_dim, self._n_examples, reference
        )
        self._hits[key] = self._hits[key] | hits if key in self._hits else hits

    def _made_up(self, name: str, call: int) -> object:
        module = self._modules[name]
        width = None
        made_up = []
        for part, layout in enumerate(self._output_layouts[name, call]):
            seed = zlib.crc32(f"{name} {call} {part} {self._seed}".encode())
            tensor = repeat_examples(noise(layout.shape, seed), layout, self._n_examples)
            dim = channel_dim(module, len(layout.shape))
            width = width or layout.shape[dim]
            for example, channel in self._perturbations.get(name, ()):
                own = tensor
                if layout.batch_dim is not None:
                    n_rows = layout.shape[layout.batch_dim]
                    own = tensor.narrow(layout.batch_dim, example * n_rows, n_rows)
                if channel == EVERY_CHANNEL:
                    own.copy_(noise(layout.shape, seed + 1))
                else:
                    # the states of a bidirectional layer are narrower than its output
                    own.select(dim, channel % layout.shape[dim]).mul_(_PERTURBATION)
            made_up.append(tensor)
        if not isinstance(module, nn.RNNBase):
            return made_up[0]
        output, *states = made_up
        return output, tuple(states) if len(states) > 1 else states[0]


def _layout(shapes: list[tuple[int, ...]]) -> Layout:
    if len(shapes) != 2:
        msg = "the number of calls of a layer depends on the number of examples"
        raise ValueError(msg)
    return layout_of(*shapes)
