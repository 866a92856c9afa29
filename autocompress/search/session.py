"""Everything a run is made of, put together: task, evaluator, space, and what identifies them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autocompress.compress.pipeline import PruningPolicy
from autocompress.errors import StudyMismatchError
from autocompress.evaluate.evaluator import EvaluationSettings, Evaluator, model_fingerprint
from autocompress.run_record import RunRecord
from autocompress.search.environment import describe_environment
from autocompress.space.build import BuiltSpace, build_space
from autocompress.space.rules import SpaceRules, load_rules
from autocompress.tasks.base import PreparedTask, Task, prepare_task
from autocompress.tasks.factory import load_task
from autocompress.tasks.leakage import val_looks_seen


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Session:
    """A task made ready for searching.

    Attributes:
        prepared: The task with its data in memory.
        evaluator: Evaluates plans for it.
        built: The search space, and what is not part of it.
        warning: That val was evidently seen in training, or None.
    """

    prepared: PreparedTask
    evaluator: Evaluator
    built: BuiltSpace
    warning: str | None

    def identity(self, *, run_seed: int, sampler: str) -> dict[str, Any]:
        """What must stay the same for a study to be continued, as JSON."""
        return {
            "seed": run_seed,
            "sampler": sampler,
            "settings": dataclasses.asdict(self.evaluator.settings),
            "recipe": dataclasses.asdict(self.evaluator.recipe),
            "model": model_fingerprint(self.evaluator.model),
            "data": {split: data.fingerprint() for split, data in self._splits().items()},
        }

    def info(self, spec: str, arguments: Mapping[str, str]) -> dict[str, Any]:
        """What else describes the run, as JSON."""
        return {
            "task": absolute_spec(spec),
            "arguments": dict(arguments),
            "task_name": self.prepared.task.name,
            "metric": self.prepared.task.metric_name,
            "splits": {split: len(data) for split, data in self._splits().items()},
            "is_val_carved": self.prepared.is_val_carved,
            "precision": self.evaluator.precision,
            "warning": self.warning,
            **describe_environment(),
        }

    def _splits(self) -> dict[str, Any]:
        splits = {name: getattr(self.prepared, name) for name in ("train", "val", "test")}
        return {name: data for name, data in splits.items() if data is not None}


def open_session(
    task: Task, space: str | Path | SpaceRules, settings: EvaluationSettings
) -> Session:
    """Prepare a task, profile its model and build its search space.

    Args:
        task: What the user brings.
        space: Search-space file, name of a shipped one, or rules.
        settings: How to tune and measure; its pruning policy is replaced by the space's.

    Raises:
        InputError: If the task, the space or a setting cannot be used.
    """
    rules = space if isinstance(space, SpaceRules) else load_rules(space)
    policy = PruningPolicy(criterion=rules.pruning.criterion, round_to=rules.pruning.round_to)
    prepared = prepare_task(task)
    evaluator = Evaluator(prepared, dataclasses.replace(settings, policy=policy))
    return Session(
        prepared=prepared,
        evaluator=evaluator,
        built=build_space(evaluator.profile, rules),
        warning=val_looks_seen(prepared),
    )


def reopen(run: RunRecord) -> tuple[PreparedTask, Evaluator]:
    """Load a run's task again and check that it is still the same.

    Raises:
        InputError: If the task cannot be loaded.
        StudyMismatchError: If its model has changed since.
    """
    prepared = prepare_task(load_task(run.info["task"], run.info["arguments"]))
    settings = run.info["settings"]
    policy = PruningPolicy(**settings["policy"])
    evaluator = Evaluator(prepared, EvaluationSettings(**{**settings, "policy": policy}))
    if model_fingerprint(evaluator.model) != run.info["model"]:
        raise StudyMismatchError(
            f"The run {run.name!r} was made for another model than {run.info['task']!r} gives now.",
            "Bring back the model's weights, or search again under another --run NAME.",
        )
    return prepared, evaluator


def absolute_spec(spec: str) -> str:
    """A task spec that means the same from any folder."""
    path, separator, function = spec.partition(":")
    return f"{Path(path).absolute()}{separator}{function}" if path.endswith(".py") else spec
