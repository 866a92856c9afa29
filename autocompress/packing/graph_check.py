"""Whether a graph may be packed, or handed to a runtime: small enough, whole, and valid ONNX."""

import itertools
from typing import Final

import onnx

from autocompress.errors import InputError, first_line
from autocompress.packing.skeleton import messages_in, tensors_in

MAX_MESSAGES: Final = 1 << 19  # nodes, attributes, …: an empty one costs 2 bytes of a file


def check_size(model: onnx.ModelProto) -> None:
    """Refuse a graph of so many parts that looking at them takes long.

    Raises:
        InputError: If it has more than `MAX_MESSAGES` of them.
    """
    if next(itertools.islice(messages_in(model), MAX_MESSAGES, None), None) is not None:
        raise InputError(
            f"The graph must have at most {MAX_MESSAGES} nodes, attributes and other parts."
        )


def check_graph(model: onnx.ModelProto) -> None:
    """Refuse a graph that keeps weights in other files, or that ONNX's checker refuses.

    Among others the checker refuses nodes that are out of order or form a circle, names defined
    twice, and functions that call themselves.

    Raises:
        InputError: If it is such a graph.
    """
    for tensor in tensors_in(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise InputError(
                f"The graph must hold its weights, but {tensor.name!r} lies in another file.",
                "Load the model together with its external data first.",
            )
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InputError(f"The graph must be valid ONNX, but: {first_line(error)}.") from error
