"""Inputs for a file that is timed without data: random numbers of its shapes."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from autocompress.errors import InputError
from autocompress.runtime.base import Array, Arrays, InputSpec

_SIZE_IN_HINT: Final = 32  # where any will do


def random_inputs(
    wanted: Sequence[InputSpec], batch_size: int, shapes: Mapping[str, Sequence[int]], seed: int
) -> Arrays:
    """Make inputs for a file: standard normal, integers zero.

    An input has the shape that is given for it, or its own with the batch in dimension 0 if that is
    free. Some input must have the batch in dimension 0, but not all: states of recurrent layers and
    sequences have something else there.

    Args:
        wanted: What the file takes.
        batch_size: Examples, >= 1.
        shapes: Input name -> shape; names that the file does not have are left to other files.
        seed: Of the numbers.

    Raises:
        InputError: If a shape is not known, no input has the batch, a given shape is of another
            one, or the numbers do not fit in memory.
    """
    found = [_shape(spec, batch_size, shapes) for spec in wanted]
    given = [spec.name for spec in wanted if spec.name in shapes]
    batched = {spec.name: shape for spec, shape in zip(wanted, found, strict=True) if shape}
    has_batch = any(shape[0] == batch_size for shape in batched.values())
    if batched and not has_batch and not (batch_size == 1 and given):
        takes = ", ".join(f"{spec.name} {_words(spec)}" for spec in wanted)
        name, shape = next(iter(batched.items()))
        raise InputError(
            f"a batch of {batch_size} cannot be asked for: it takes {takes}.",
            f"Give `batch_size={shape[0]}`, or export it with a free batch."
            if batch_size != 1
            else f"Give `batch_size={shape[0]}` or, if that is no batch, {_option(name, shape)}.",
        )
    random = np.random.default_rng(seed)
    return tuple(_numbers(*each, random) for each in zip(wanted, found, strict=True))


def _shape(
    spec: InputSpec, batch_size: int, shapes: Mapping[str, Sequence[int]]
) -> tuple[int, ...]:
    """Shape of an input: the one given, or its own where that is fixed but for the batch."""
    is_batched = bool(spec.shape) and spec.shape[0] is None
    if spec.name in shapes:
        given = tuple(shapes[spec.name])
        if is_batched and batch_size not in (1, *given[:1]):
            raise InputError(
                f"`batch_size={batch_size}` contradicts the shape {list(given)} given for the "
                f"input {spec.name!r}.",
                f"Leave `batch_size` out, or give {_option(spec.name, (batch_size, *given[1:]))}.",
            )
        return given
    first = (batch_size,) if is_batched else spec.shape[:1]
    sizes = (*first, *spec.shape[1:])
    fixed = tuple(size for size in sizes if size is not None)
    if len(fixed) < len(sizes):
        example = tuple(_SIZE_IN_HINT if size is None else size for size in sizes)
        raise InputError(
            f"the input {spec.name!r} is of shape {_words(spec)}, which is not fixed.",
            f"Say which to time, such as {_option(spec.name, example)}.",
        )
    return fixed


def _words(spec: InputSpec) -> str:
    """A shape with question marks for sizes that are free."""
    return f"[{', '.join('?' if size is None else str(size) for size in spec.shape)}]"


def _option(name: str, sizes: Sequence[int]) -> str:
    return f"`shape={name}={','.join(map(str, sizes))}`"


def _numbers(spec: InputSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    try:
        kind = np.dtype(spec.dtype)
    except TypeError as error:
        raise InputError(
            f"the input {spec.name!r} is of type {spec.dtype}, and only numbers can be made up."
        ) from error
    try:
        if np.issubdtype(kind, np.floating):
            return random.standard_normal(shape).astype(kind)
        return np.zeros(shape, kind)
    except (MemoryError, ValueError) as error:  # the second is of more than an address can hold
        raise InputError(
            f"the input {spec.name!r} of shape {list(shape)} does not fit in memory.",
            "Give a smaller `batch_size` or `shape`.",
        ) from error
