"""Contracts of the task as a whole: it loads, its data can be used, it is the same everywhere."""

import json
import subprocess
import sys

from autocompress.errors import first_line
from autocompress.evaluate.check.finding import Finding, failed, passed, skipped
from autocompress.evaluate.check.second_process import describe_task
from autocompress.evaluate.check.subject import Subject
from autocompress.tasks.in_memory import is_in_memory
from autocompress.tasks.user_code import place_of_error

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
    call = [sys.executable, "-m", "autocompress.evaluate.check.second_process"]
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
