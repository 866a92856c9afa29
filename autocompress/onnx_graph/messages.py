"""Every message of a graph, at any depth."""

from collections.abc import Iterator

from google.protobuf.message import Message  # type: ignore[import-untyped]


def messages_in(model: Message) -> Iterator[Message]:
    """A message (a model, a node) and every message inside it, at any depth."""
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
