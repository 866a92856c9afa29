"""Contracts of the splits: none holds what another one holds, and val was not trained on."""

import hashlib
from collections.abc import Iterator
from typing import Final

from torch import Tensor

from autocompress.evaluate.check.finding import Finding, failed, passed, warned
from autocompress.evaluate.check.subject import Subject
from autocompress.tasks.base import Examples
from autocompress.tasks.leakage import val_looks_seen

_BATCH: Final = 512
_MUCH: Final = 0.01  # of a split; coarse data repeats itself now and then


def are_disjoint(subject: Subject) -> Finding:
    """No example of one split stands in another, byte for byte."""
    prepared = subject.salvaged
    splits = {"train": prepared.train, "val": prepared.val, "test": prepared.test}
    digests = {
        name: list(_digests(data))
        for name, data in splits.items()
        if data is not None and name not in subject.faults
    }
    facts: dict[str, int] = {}
    worst: tuple[float, str, str] | None = None
    for i, name in enumerate(digests):
        for other in list(digests)[:i]:
            known = set(digests[other])
            n_shared = sum(digest in known for digest in digests[name])
            facts[f"{name}_in_{other}"] = n_shared
            share = n_shared / len(digests[name])
            if n_shared and (worst is None or share > worst[0]):
                said = (
                    f"{n_shared:,} of {len(digests[name]):,} {name} examples also stand in {other}"
                )
                worst = (share, said, name)
    if worst is None:
        names = " and ".join(digests)
        return passed(f"no example of {names} stands in another, by content", **facts)
    share, said, name = worst
    tell = failed if share > _MUCH else warned
    return tell(
        f"{said}: exact duplicates.",
        f"Remove them from `{name}`, or accuracy on it says little about new data.",
        subject.place(name),
        **facts,
    )


def _digests(data: Examples) -> Iterator[bytes]:
    """One for each example: of its inputs, after the transform."""
    slices = (slice(start, start + _BATCH) for start in range(0, len(data), _BATCH))
    for inputs, _ in data.batches(slices):
        columns = [_rows(tensor) for tensor in inputs]
        for row in zip(*columns, strict=True):
            yield hashlib.blake2b(b"".join(row), digest_size=16).digest()


def _rows(tensor: Tensor) -> list[bytes]:
    array = tensor.detach().cpu().contiguous().numpy()
    return [array[i].tobytes() for i in range(len(array))]


def val_is_unseen(subject: Subject) -> Finding:
    """Nothing says that the model was trained on val."""
    prepared = subject.needs("loss", "val")
    warning = val_looks_seen(prepared)
    if warning is None:
        return passed("nothing says that the model was trained on it")
    return warned(warning, "", subject.place("val"))
