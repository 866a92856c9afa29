"""Contracts of the task as a whole: it loads, its data can be used, it is the same everywhere."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from torch import Tensor

from autocompress.errors import AutocompressError, first_line
from autocompress.evaluate.check.subject import Finding, Subject, failed, passed, skipped, warned
from autocompress.tasks.base import Examples
from autocompress.tasks.factory import load_task
from autocompress.tasks.fingerprint import state_fingerprint
from autocompress.tasks.in_memory import is_in_memory
from autocompress.tasks.leakage import val_looks_seen
from autocompress.tasks.prepare import PreparedTask, prepare_task
from autocompress.tasks.user_code import place_of_error

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


def describe_task(prepared: PreparedTask) -> dict[str, dict[str, str]]:
    """What a task is made of, by digest: `model` tensor by tensor, `train` and `val`."""
    model = prepared.task.model
    tensors: dict[str, Tensor] = model.state_dict()
    structure = hashlib.sha256(str(model).encode()).hexdigest()
    return {
        "model": {
            "its structure": structure,
            **{name: state_fingerprint({name: tensor}) for name, tensor in tensors.items()},
        },
        "train": {"all": prepared.train.fingerprint()},
        "val": {"all": prepared.val.fingerprint()},
    }


def main() -> int:
    """Read a spec from stdin; what the user's code prints goes to stderr."""
    asked = json.load(sys.stdin)
    answer = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        told = describe_task(prepare_task(load_task(asked["spec"], asked["arguments"])))
    except AutocompressError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    os.write(answer, f"{json.dumps(told)}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())


_PATIENCE_S = 600.0


def loads(subject: Subject) -> Finding:
    """The factory is found, runs and returns a Task."""
    return passed(f"the task {subject.task.name!r} loads")


def data(subject: Subject) -> Finding:
    """Every split, and what else the task brings, can be brought into memory and read."""
    prepared = subject.salvaged
    others = ("val", "test", "teacher", "unlabelled", "initial_state", "distill")
    for field, error in subject.faults.items():
        if field in others:
            place = place_of_error(error) or subject.place(field)
            return failed(error.message, error.hint, place)
    splits = {"train": prepared.train, "val": prepared.val, "test": prepared.test}
    counts = {name: len(split) for name, split in splits.items() if split is not None}
    words = ", ".join(f"{n:,} {name}" for name, n in counts.items())
    carved = " (val is carved from train)" if prepared.is_val_carved else ""
    return passed(f"{words} examples{carved}", **counts)


def same_everywhere(subject: Subject) -> Finding:
    """The factory gives the same model and data in another process; workers rely on it."""
    if is_in_memory(subject.spec):
        return skipped("the task exists in this process only: one trial at a time, no workers")
    here = describe_task(subject.salvaged)
    call = [sys.executable, "-m", "autocompress.evaluate.check.whole_task"]
    given = json.dumps({"spec": subject.spec, "arguments": dict(subject.arguments)})
    try:
        done = subprocess.run(
            call, input=given, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
        told = done.stdout.strip().splitlines()
        there = json.loads(told[-1]) if done.returncode == 0 and told else None
    except (subprocess.TimeoutExpired, ValueError) as error:
        return failed(
            f"A second process could not load the task: {first_line(error)}.",
            "Let the task file do nothing but define and load.",
            subject.place("model"),
        )
    if there is None:
        words = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return failed(f"A second process could not load the task: {words}", "", None)
    for part, fix in (
        ("model", "Save the trained weights and let the task load them."),
        ("train", "Fix the seed of what draws or shuffles the data."),
        ("val", "Fix the seed of what draws or shuffles the data."),
    ):
        differ = [name for name, print_ in here[part].items() if there[part].get(name) != print_]
        if differ or here[part].keys() != there[part].keys():
            named = f" ({', '.join(differ[:3])} differ)" if differ and part == "model" else ""
            return failed(
                f"The task gives another {part} each time it is loaded{named}: worker processes "
                "and later commands would refuse it.",
                fix,
                subject.place(part),
            )
    return passed("a second process gets the same model and data")
