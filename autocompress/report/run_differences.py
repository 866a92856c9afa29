"""What runs differ in: options, search dimensions, versions, hardware, data."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from autocompress.report.wording import format_level
from autocompress.run_record import RunRecord
from autocompress.space.search_space import Knob

# Heading -> the entries of `run.json` that belong under it, in order. What is in none of them (the
# time of the start, the format) says nothing about a figure.
_TOPICS: Final[dict[str, tuple[str, ...]]] = {
    "what was compressed": (
        *("task", "arguments", "task_name", "metric", "model", "data", "splits"),
        *("is_val_carved", "warning"),
    ),
    "how it was searched": (
        *("objectives", "limits", "space", "seed", "sampler", "without", "fidelity", "recipe"),
        "options",
    ),
    "how it was measured": ("settings", "machine", "hardware", "versions"),
}


KNOBS: Final = "knobs"
"""Heading of what the search spaces differ by."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not the same in all runs.

    Attributes:
        topic: Its heading.
        key: Dotted path in `run.json`, or the name of a knob.
        values: What each run says; None where it says nothing.
    """

    topic: str
    key: str
    values: tuple[Any, ...]


def differences(runs: Sequence[RunRecord]) -> tuple[Difference, ...]:
    """Everything recorded that is not the same in all of `runs`, by topic.

    A fact that is recorded twice under one last name (`seed` and `options.seed`) is told once.

    Args:
        runs: Two or more.
    """
    found: list[Difference] = []
    told: set[tuple[str, str]] = set()
    for topic, entries in _TOPICS.items():
        for entry in entries:
            for difference in _differing_leaves(topic, entry, runs):
                words = (difference.key.rpartition(".")[2], json.dumps(difference.values))
                found += [] if words in told else [difference]
                told.add(words)
    return (*found, *_differing_knobs(runs))


def leaves_at(info: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What a dotted key holds, as one level of dotted keys: one value, or those below it."""
    value: Any = info
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping):
        return {key: value}
    leaves: dict[str, Any] = {}
    for name in value:
        leaves.update(leaves_at(value, name) if "." not in name else {name: value[name]})
    return {f"{key}.{name}": leaf for name, leaf in leaves.items()}


def _differing_leaves(topic: str, entry: str, runs: Sequence[RunRecord]) -> list[Difference]:
    said = [leaves_at(run.info, entry) for run in runs]
    keys = list(dict.fromkeys(key for leaves in said for key in leaves))
    rows = [
        Difference(topic=topic, key=key, values=tuple(leaves.get(key) for leaves in said))
        for key in keys
    ]
    return [row for row in rows if any(value != row.values[0] for value in row.values)]


def _differing_knobs(runs: Sequence[RunRecord]) -> list[Difference]:
    """Knobs that not all runs have, or that have other levels."""
    spaces = [{knob.name: _levels(knob) for knob in run.knobs} for run in runs]
    names = list(dict.fromkeys(name for space in spaces for name in space))
    rows = [
        Difference(topic=KNOBS, key=name, values=tuple(space.get(name) for space in spaces))
        for name in names
    ]
    return [row for row in rows if any(value != row.values[0] for value in row.values)]


def _levels(knob: Knob) -> str:
    return ", ".join(format_level(knob.kind, level) for level in knob.levels)
