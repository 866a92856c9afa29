"""Examples for an ONNX model, what it answers to them, and how far two answers agree."""

import dataclasses
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, overload

import numpy as np
import onnx
import psutil

from autocompress.errors import InputError, TrialError, first_line
from autocompress.export.judgement import Answers, Judge, error_of
from autocompress.onnx_graph.session import make_session
from autocompress.runtime.base import Array

_Item = TypeVar("_Item")
_SHARE_OF_MEMORY: Final = 0.5


class Watched(Sequence[_Item]):
    """A sequence, and its parts, of which each item that is taken is told: somebody gets on.

    Args:
        items: What it holds.
        on_item: Called before an item is given.

    >>> list(Watched("ab", lambda: print("next"))[:1])
    next
    ['a']
    """

    def __init__(self, items: Sequence[_Item], on_item: Callable[[], None]) -> None:
        self._items = items
        self._on_item = on_item

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, at: int) -> _Item: ...

    @overload
    def __getitem__(self, at: slice) -> "Watched[_Item]": ...

    def __getitem__(self, at: int | slice) -> "_Item | Watched[_Item]":
        if isinstance(at, slice):
            return Watched(self._items[at], self._on_item)
        item = self._items[at]
        self._on_item()
        return item


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Inputs of a model, one after the other.

    Attributes:
        feeds: Input name -> array, for each example; what a state carries is its first value.
        state: Output name -> input name of what an example hands to the next.
    """

    feeds: Sequence[dict[str, Array]]
    state: Mapping[str, str]


def read_examples(path: Path, model: onnx.ModelProto, state: Mapping[str, str]) -> Examples:
    """Examples for a model from a `.npz` file: input name -> examples in dimension 0.

    Inputs without dimensions are the same for all examples. An input that carries a state starts at
    zero and is not in the file.

    Raises:
        InputError: If the file cannot be read, unpacks to more than half of the memory that is
            free, or does not fit the model.
    """
    try:
        _check_unpacked(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except InputError:
        raise
    except Exception as error:  # zip, header and file-system errors share no base
        raise InputError(
            f"{path} must be a .npz file of arrays, but: {first_line(error)}.",
            "Write it with numpy.savez(path, **{input name: examples}).",
        ) from error
    wanted = {value.name: value for value in model.graph.input}
    outputs = {value.name for value in model.graph.output}
    for source, target in state.items():
        if source not in outputs or target not in wanted:
            raise InputError(
                f"`state` must name an output and an input, but got {source}={target}.",
                f"Outputs: {', '.join(sorted(outputs))}. Inputs: {', '.join(wanted)}.",
            )
    carried = set(state.values())
    missing = sorted(wanted.keys() - arrays.keys() - carried)
    unknown = sorted(arrays.keys() - wanted.keys())
    if missing or unknown:
        names = ", ".join(sorted(wanted.keys() - carried))
        raise InputError(f"{path} must hold the inputs {names}, but holds {', '.join(arrays)}.")
    counts = {len(array) for array in arrays.values() if array.ndim}
    if len(counts) != 1 or counts == {0}:
        raise InputError(
            f"All inputs in {path} must have equally many examples, and one at least, but have "
            f"{sorted(counts)}."
        )
    starts = {name: _zeros(wanted[name]) for name in carried}
    feeds = tuple(
        {**{n: x[i : i + 1] if x.ndim else x for n, x in arrays.items()}, **starts}
        for i in range(counts.pop())
    )
    return Examples(feeds=feeds, state=dict(state))


def _check_unpacked(path: Path) -> None:
    """Refuse a zip that is small and unpacks to more than there is memory for."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    most = int(psutil.virtual_memory().available * _SHARE_OF_MEMORY)
    if unpacked > most:
        raise InputError(
            f"{path} must unpack to at most {most / 1e9:.1f} GB, half of the memory that is free, "
            f"but its arrays take {unpacked / 1e9:.1f} GB.",
            "Give fewer examples.",
        )


def outputs_of(
    model: onnx.ModelProto, examples: Examples, path: Path | None = None
) -> tuple[Answers, list[dict[str, Array]]]:
    """What a model gives, (N, ...) for each output, and what each example was fed with.

    Outputs that the next example takes as an input are left out, where there are others: what they
    do shows in these.

    Raises:
        InputError: If it does not run on the examples, or gives something else than numbers of one
            shape for each.
    """
    session = make_session(model, threads=1)
    names = [value.name for value in session.get_outputs()]
    judged = [name for name in names if name not in examples.state] or names
    wanted = [*judged, *examples.state]
    carried: dict[str, Array] = {}
    found: dict[str, list[Array]] = {name: [] for name in judged}
    seen = []
    for feed in examples.feeds:
        given = {**feed, **carried}
        try:
            values = session.run(wanted, given)
        except Exception as error:  # the runtime raises a dozen classes that share no base
            raise InputError(
                f"{path or 'The model'} does not run on the examples: {first_line(error)}."
            ) from error
        carried = dict(zip(examples.state.values(), values[len(judged) :], strict=True))
        for name, value in zip(judged, values, strict=False):
            array = np.asarray(value)
            is_batch = array.ndim > 0 and len(array) == 1
            found[name].append(array[0] if is_batch else array)
        seen.append(given)
    return {name: _stacked(name, rows) for name, rows in found.items()}, seen


def _stacked(name: str, rows: list[Array]) -> Array:
    kinds = {(row.shape, row.dtype.kind) for row in rows}
    if len(kinds) != 1 or not rows[0].size or rows[0].dtype.kind not in "fiub":
        shapes = ", ".join(sorted(str(shape) for shape, _ in kinds)[:3])
        raise InputError(
            f"The output {name} must be numbers of one shape for each example, but is {shapes}."
        )
    outputs = np.stack(rows)
    if np.isnan(outputs).any() if outputs.dtype.kind == "f" else False:
        raise InputError(f"The output {name} must be numbers, but holds NaN.")
    return outputs


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How far a model answers as another one does.

    Attributes:
        agreement: Share of an output's decisions or values that are the same; of the worst output.
        error: Largest difference of an output, as a share of the other's largest value.
        accuracy: What the metric makes of it; None without labels, or on a part of the examples.
    """

    agreement: float
    error: float
    accuracy: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """What a model answers to examples, to hold its compressed forms against.

    Attributes:
        examples: Its inputs.
        outputs: Its outputs, (N, ...) each.
        judges: How each is judged.
        least_agreement: Share that must agree.
        metric: What all outputs are worth; None without labels.
    """

    examples: Examples
    outputs: Answers
    judges: Mapping[str, Judge]
    least_agreement: float
    metric: Callable[[Answers], float] | None = None

    def compare(self, model: onnx.ModelProto, n_examples: int | None = None) -> Likeness:
        """How far a model answers alike, on the first `n_examples`; None for all.

        Raises:
            TrialError: If a runtime refuses it, or an output has another shape.
        """
        feeds = self.examples.feeds[:n_examples]
        found, _ = outputs_of(model, dataclasses.replace(self.examples, feeds=feeds))
        agreements, errors = [], []
        for name, outputs in self.outputs.items():
            expected, own = outputs[: len(feeds)], found.get(name)
            if own is None or own.shape != expected.shape:
                raise TrialError("runtime", f"It has another output {name} than the original.")
            agreements.append(self.judges[name].agreement(expected, own))
            errors.append(error_of(expected, own))
        accuracy = None if self.metric is None or n_examples is not None else self.metric(found)
        return Likeness(agreement=min(agreements), error=max(errors), accuracy=accuracy)

    def is_like(self, likeness: Likeness) -> bool:
        """Whether enough stays."""
        return likeness.agreement >= self.least_agreement


def _zeros(value: Any) -> Array:
    """The first value of a state: zeros of its shape, free sizes 1."""
    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return np.zeros([d.dim_value or 1 for d in value.type.tensor_type.shape.dim], kind)
