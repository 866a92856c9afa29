"""Every message of a graph, at any depth: what walks into branches and loops walks here."""

from collections.abc import Iterator

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]


def messages_in(model: Message) -> Iterator[Message]:
    """A message (a model, a node) and every message inside it, at any depth.

    A message comes before what is inside it, and nodes come in the order of their graph, each
    with its inner graphs before the next. A message may be changed when it comes.
    """
    waiting: list[Iterator[Message]] = [iter((model,))]
    while waiting:
        message = next(waiting[-1], None)
        if message is None:
            waiting.pop()
            continue
        yield message
        for descriptor, value in message.ListFields():
            if descriptor.message_type is not None:
                waiting.append(iter((value,) if isinstance(value, Message) else value))


def tensors_in(model: Message) -> Iterator[onnx.TensorProto]:
    """All tensors of a model: initializers, attributes of nodes, those of inner graphs."""
    return (message for message in messages_in(model) if isinstance(message, onnx.TensorProto))
