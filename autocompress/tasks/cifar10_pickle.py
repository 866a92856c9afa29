"""Read one batch of `cifar-10-batches-py` without trusting it.

A pickle is a program, so it is read in two steps. First every instruction is looked at and none
is carried out: only those that build plain values and arrays pass. Then the program runs with
stand-ins of our own in place of numpy's functions: no name in it is ever imported or called.
"""

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from autocompress.errors import InputError, first_line

# An official batch has 31 MB; nothing of this format needs more.
_MAX_FILE_BYTES = 64 * 2**20
# An official batch stores some 20,000 objects; a far larger index would only make a huge table.
_MAX_MEMO_INDEX = 2**20
# fmt: off
_ADMITTED_OPCODES = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE",
    "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES",
    "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "APPEND", "APPENDS", "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
})
# fmt: on


def read_pickled_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read one pickled batch, as written by Python 2 or 3 and numpy 1 or 2.

    Returns:
        Images as stored, shape (N, 3072) uint8, and labels of shape (N,).

    Raises:
        InputError: If the file cannot be read, or its pickle holds anything but a dict with
            `data` and `labels`; whatever it asks to be called is not.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InputError(
                f"A CIFAR-10 batch must have at most {_MAX_FILE_BYTES} bytes, "
                f"but {path} has {path.stat().st_size}."
            )
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"The CIFAR-10 batch {path} could not be read: {error.strerror}."
        ) from error
    try:
        _check_instructions(content)
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        return _images_and_labels(batch)
    except Exception as error:
        raise InputError(
            f"A CIFAR-10 batch must be a pickle of arrays and plain values only, "
            f"but {path} is not: {first_line(error)}.",
            "Use the official archive; nothing of this file was run.",
        ) from error


def _check_instructions(content: bytes) -> None:
    for opcode, argument, position in pickletools.genops(content):
        if opcode.name not in _ADMITTED_OPCODES:
            _refuse(f"instruction {opcode.name} at byte {position} is not admitted")
        if opcode.name.endswith("BINPUT") and int(argument or 0) > _MAX_MEMO_INDEX:
            _refuse(f"memo index {argument} at byte {position} is too large")


def _images_and_labels(batch: object) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if not isinstance(batch, dict):
        _refuse(f"it holds a {type(batch).__name__}, not a dict")
    fields = {key.decode("latin1") if isinstance(key, bytes) else key: batch[key] for key in batch}
    missing = [name for name in ("data", "labels") if name not in fields]
    if missing:
        _refuse(f"its dict has no {' and no '.join(map(repr, missing))}")
    data, labels = fields["data"], fields["labels"]
    if not isinstance(data, _Array) or data.values is None:
        _refuse("its 'data' is not a uint8 array")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        _refuse("its 'labels' are not a list of whole numbers")
    return data.values, np.array(labels, dtype=np.int64)


def _refuse(reason: str) -> NoReturn:
    raise pickle.UnpicklingError(reason)


class _Array:
    """Stands for `numpy.ndarray` and for what makes one: holds a checked uint8 array."""

    __slots__ = ("values",)

    def __init__(self, *_: object) -> None:
        self.values: NDArray[np.uint8] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, values = state
        if not isinstance(dtype, _Dtype) or dtype.name not in ("u1", b"u1"):
            _refuse("it holds an array of another dtype than uint8")
        if not isinstance(values, bytes) or math.prod(shape) != len(values) or min(shape) < 0:
            _refuse(f"it holds an array of shape {shape} with other than that many bytes")
        flat = np.frombuffer(values, np.uint8)
        self.values = flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)


class _Dtype:
    """Stands for `numpy.dtype`: holds its name. uint8 has no byte order, so its state is moot."""

    __slots__ = ("name",)

    def __init__(self, name: object = "", *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        pass


class _Latin1:
    """Stands for `_codecs.encode`, by which Python 3 writes bytes into protocol 2."""

    __slots__ = ()

    def __new__(cls, text: str, encoding: str) -> Any:  # returns bytes, as the original does
        if encoding not in ("latin1", b"latin1"):
            _refuse(f"it asks for the codec {encoding!r}")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        """Refuse, as a class has no state: without this, BUILD could set its attributes."""
        _refuse("it sets the state of a function")


# The names a numpy array pickles under, and what stands in for each.
_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Latin1,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _STAND_INS:
            _refuse(f"it names {module}.{name}")
        return _STAND_INS[(module, name)]
