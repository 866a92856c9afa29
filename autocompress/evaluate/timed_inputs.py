"""What an inference that is timed computes on: examples of the task, perhaps of another size."""

from collections.abc import Sequence

import numpy as np

from autocompress.errors import InputError
from autocompress.runtime.base import Array, Arrays
from autocompress.tasks.base import Inputs

Shape = tuple[int, ...]


def timed_inputs(
    example_inputs: Inputs, batch_size: int, shapes: Sequence[Shape] | None = None
) -> Arrays:
    """Inputs of one inference.

    Args:
        example_inputs: Inputs of shape (N, ...); examples are repeated where there are too few.
        batch_size: Examples of an inference.
        shapes: Shape of one example for each input, without the batch; values are repeated or left
            out along each dimension to reach it. None leaves them as they are.

    Raises:
        InputError: If the shapes do not fit the inputs.
    """
    arrays = resized_examples(example_inputs, shapes)
    return tuple(
        np.ascontiguousarray(_resized(array, (batch_size, *array.shape[1:]))) for array in arrays
    )


def resized_examples(inputs: Inputs, shapes: Sequence[Shape] | None) -> tuple[Array, ...]:
    """Examples of other shapes; see `timed_inputs`."""
    arrays: tuple[Array, ...] = tuple(tensor.numpy() for tensor in inputs)
    if shapes is None:
        return arrays
    if [len(shape) for shape in shapes] != [array.ndim - 1 for array in arrays]:
        raise InputError(
            f"`--input-shape` must fit the model's inputs, of shapes "
            f"{' and '.join(_text(array.shape[1:]) for array in arrays)}, "
            f"but got {' and '.join(map(_text, shapes))}.",
            "Give it once for each input, without the batch.",
        )
    return tuple(_resized(a, (len(a), *shape)) for a, shape in zip(arrays, shapes, strict=True))


def _resized(array: Array, shape: Shape) -> Array:
    """Repeated or cut along each dimension."""
    for dim, size in enumerate(shape):
        array = np.take(array, np.arange(size) % array.shape[dim], axis=dim)
    return array


def _text(shape: Sequence[int]) -> str:
    return ",".join(map(str, shape))
