"""All trackers by name: one line here makes `track` know it."""

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from autocompress.entry_points import Registry
from autocompress.errors import InputError
from autocompress.runs.tracking.mlflow_runs import MlflowRuns
from autocompress.runs.tracking.tensorboard_events import TensorboardEvents
from autocompress.runs.tracking.tracker import Tracker


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrackerKind:
    """A tool that trials can be written for.

    Attributes:
        package: What it imports.
        extra: What installs that, of the package it comes from.
        make: Given where to (empty for its usual place) and the run folder, makes one.
    """

    package: str
    extra: str
    make: Callable[[str, Path], Tracker]


TRACKERS: Final[Mapping[str, TrackerKind]] = {
    "mlflow": TrackerKind(package="mlflow", extra="mlflow", make=MlflowRuns),
    "tensorboard": TrackerKind(package="tensorboard", extra="tensorboard", make=TensorboardEvents),
}
TRACKER_REGISTRY: Final = Registry(
    kind="tracker",
    group="autocompress.trackers",
    built_in=TRACKERS,
    is_row=lambda row: isinstance(row, TrackerKind),
)


def make_trackers(specs: Sequence[str], folder: Path) -> dict[str, Tracker]:
    """The trackers of some `track=NAME[:WHERE]`; nothing is imported or written yet.

    Args:
        specs: As typed.
        folder: The run folder.

    Returns:
        What to call each -> tracker.

    Raises:
        InputError: If there is none of a name, or it is not installed.
    """
    made: dict[str, Tracker] = {}
    for spec in specs:
        name, _, where = spec.partition(":")
        kind = TRACKER_REGISTRY.find(name)
        if importlib.util.find_spec(kind.package) is None:
            raise InputError(
                f"`track={name}` needs the package {kind.package!r}, which is not installed.",
                f"Install it with: {TRACKER_REGISTRY.install_command(name, kind.extra)}",
            )
        title = name if name not in made else f"{name} {len(made) + 1}"
        made[title] = kind.make(where, folder)
    return made
