"""Everything a run is made of, put together: task, evaluator, space, and what identifies them."""

import dataclasses
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from autocompress.compress.importance.registry import CRITERION_REGISTRY
from autocompress.compress.prune import PruningPolicy
from autocompress.entry_points import Registry
from autocompress.environment import describe_environment, processor_name
from autocompress.errors import StudyMismatchError
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.probe import n_probed_examples
from autocompress.evaluate.sensitivity import ProbePlan, SensitivityCache, options_key
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.executors.job import Executor, ProbeJob
from autocompress.measurement import Measurement
from autocompress.run_record import RunRecord
from autocompress.runtime.registry import find_runtime, versions_of
from autocompress.samplers.propose import SAMPLER_REGISTRY
from autocompress.space.build import METHOD_REGISTRIES, BuiltSpace, build_space
from autocompress.space.rules import SpaceRules, load_rules
from autocompress.tasks.base import Examples, Task, TensorData
from autocompress.tasks.factory import TASK_REGISTRY, is_named, load_task
from autocompress.tasks.fingerprint import model_fingerprint, state_fingerprint
from autocompress.tasks.leakage import val_looks_seen
from autocompress.tasks.prepare import PreparedTask, prepare_task
from autocompress.tasks.trust import check_trusted
from autocompress.tasks.user_code import naming_user_code

_PROBING_SHARE = 0.15
_MOST_SHORTLISTED = 8


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

    def identity(self, *, run_seed: int, sampler: str, task: str = "") -> dict[str, Any]:
        """What must stay the same for a study to be continued, as JSON.

        Args:
            run_seed: Seed of the run.
            sampler: Name of the sampler.
            task: Spec of the task; empty if it has none.
        """
        rows: list[tuple[Registry[Any], str]] = [(SAMPLER_REGISTRY, sampler), *self.methods()]
        if is_named(task):
            rows.append((TASK_REGISTRY, task))
        return {
            "seed": run_seed,
            "sampler": sampler,
            "settings": dataclasses.asdict(self.evaluator.settings),
            "recipe": dataclasses.asdict(self.evaluator.recipe),
            "model": model_fingerprint(self.evaluator.model),
            "data": data_fingerprints(self.prepared),
            "machine": {
                **_versions_of_rows(rows),
                "processor": processor_name(),
                "precision": self.evaluator.precision,
                **versions_of(find_runtime(self.evaluator.settings.runtime)),
                "torch": importlib.metadata.version("torch"),
                **_accelerator(self.evaluator.device),
            },
        }

    @property
    def n_shortlisted(self) -> int:
        """Plans to probe at once: what a small share of a trial's work pays for.

        Counted in examples that go through the model, three passes for a training step, so that it
        does not depend on the clock.
        """
        n_trained = 3.0 * self.evaluator.recipe.epochs * len(self.prepared.train)
        n_examples = n_trained + len(self.prepared.val)
        knobs = self.built.space.knobs
        penalized = {layer for k in knobs if k.kind == "rate_price" for layer in k.targets}
        affordable = int(_PROBING_SHARE * n_examples / n_probed_examples(len(penalized)))
        return min(max(affordable, 1), _MOST_SHORTLISTED)

    def methods(self) -> Iterator[tuple[Registry[Any], str]]:
        """The methods that plans can have, by table and name."""
        space = self.built.space
        yield CRITERION_REGISTRY, self.evaluator.settings.policy.criterion
        for kind, registry in METHOD_REGISTRIES.items():
            for method in space.methods:
                if method.kind == kind:
                    yield registry, method.value
            for knob in space.knobs:
                if knob.kind == kind:
                    yield from ((registry, str(level)) for level in knob.levels)

    def info(self, spec: str, arguments: Mapping[str, str]) -> dict[str, Any]:
        """What else describes the run, as JSON."""
        return {
            "task": absolute_spec(spec),
            "arguments": dict(arguments),
            "task_name": self.prepared.task.name,
            "metric": self.prepared.task.metric_name,
            "splits": {split: len(data) for split, data in splits_of(self.prepared).items()},
            "is_val_carved": self.prepared.is_val_carved,
            "warning": self.warning,
            **describe_environment(),
        }


def open_session(
    task: Task,
    space: str | Path | SpaceRules,
    settings: EvaluationSettings,
) -> Session:
    """Prepare a task, profile its model and build its search space.

    Args:
        task: What the user brings.
        space: Search-space file, name of a shipped one, or rules.
        settings: How to tune and measure; the space decides the policy, and the fields of the
            recipe that the settings leave open.

    Raises:
        InputError: If the task, the space or a setting cannot be used.
    """
    rules = space if isinstance(space, SpaceRules) else load_rules(space)
    settings = dataclasses.replace(
        settings,
        policy=PruningPolicy(**rules.pruning.model_dump()),
        recipe={**rules.recipe.model_dump(exclude_none=True), **settings.recipe},
    )
    with naming_user_code():
        prepared = prepare_task(task)
    evaluator = Evaluator(prepared, settings)
    # A study is tied to its task: a fault is said before there is one.
    evaluator.measurer.check_scores()
    evaluator.settle_integer()
    return Session(
        prepared=prepared,
        evaluator=evaluator,
        built=build_space(evaluator.profile, rules),
        warning=val_looks_seen(prepared),
    )


def comparable(run: RunRecord, measured: Measurement) -> Measurement:
    """A measurement to stand beside a run's: without times if they were taken elsewhere.

    Milliseconds are on the scale of the run's baseline; on another processor, or with another
    version of the runtime or of PyTorch, even the ratio to the original model differs.

    Args:
        run: The run.
        measured: Just now, on this machine.
    """
    for what, there in run.info.get("machine", {}).items():
        here = _here(what)
        if there and here not in (None, there):
            why = f"the run was timed on {there}, this is {here}"
            if what != "processor":
                why = f"the run was timed with {what} {there}, this is {here}"
            return measured.without_latency(why)
    return measured


def _here(what: str) -> str | None:
    """The processor or the version of a package here; None for what has no bearing on times."""
    if what == "processor":
        return processor_name()
    try:
        return importlib.metadata.version(what)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


def reopen(run: RunRecord) -> tuple[PreparedTask, Evaluator]:
    """Load a run's task again and check that it is still the same.

    Raises:
        InputError: If the task cannot be loaded, or was never searched on this machine: a run
            folder from elsewhere must not run code.
        StudyMismatchError: If its model or data have changed since.
    """
    check_trusted(run.name, run.info["task"], run.info["arguments"])
    prepared = prepare_task(load_task(run.info["task"], run.info["arguments"]))
    evaluator = Evaluator(prepared, EvaluationSettings.from_json(run.info["settings"]))
    if model_fingerprint(evaluator.model) != run.info["model"]:
        raise StudyMismatchError(
            f"The run {run.name!r} was made for another model than {run.info['task']!r} gives now.",
            "Bring back the model's weights, or search again under another `name=NAME`.",
        )
    if data_fingerprints(prepared) != run.info["data"]:
        raise StudyMismatchError(
            f"The run {run.name!r} was made with other data than {run.info['task']!r} gives now.",
            "Bring back the data, or search again under another `name=NAME`.",
        )
    return prepared, evaluator


def _versions_of_rows(rows: Iterable[tuple[Registry[Any], str]]) -> dict[str, str]:
    """Distribution -> version of all that rows of tables are made of, besides this package."""
    return {
        package: version
        for registry, name in rows
        for package, version in registry.versions_of(name).items()
    }


def _accelerator(device: torch.device) -> dict[str, str]:
    """Name of the accelerator, if candidates are trained on one."""
    return {} if device.type != "cuda" else {"accelerator": torch.cuda.get_device_name(device)}


def splits_of(prepared: PreparedTask) -> dict[str, Examples]:
    """The splits a task has, by name."""
    splits = {name: getattr(prepared, name) for name in ("train", "val", "test")}
    return {name: data for name, data in splits.items() if data is not None}


def data_fingerprints(prepared: PreparedTask) -> dict[str, str]:
    """What the task brings besides its model -> sha256 of it.

    The splits, `example_inputs` (two of train after their transform), and where there are some the
    unlabelled inputs, other teachers' weights and the weights of early in training.
    """
    data: dict[str, Examples] = {
        **splits_of(prepared),
        "example_inputs": TensorData(prepared.example_inputs, torch.zeros(2)),
    }
    if prepared.unlabelled is not None:
        n_examples = len(prepared.unlabelled[0])
        data["unlabelled"] = TensorData(prepared.unlabelled, torch.zeros(n_examples))
    prints = {name: tensors.fingerprint() for name, tensors in data.items()}
    for i, teacher in enumerate(prepared.teachers):
        prints[f"teacher_{i}"] = model_fingerprint(teacher)
    output = prepared.task.output
    if output is not None:
        prints["output"] = getattr(output, "__qualname__", None) or repr(output)
    if prepared.task.initial_state is not None:
        prints["initial_state"] = state_fingerprint(prepared.task.initial_state)
    return prints


def absolute_spec(spec: str) -> str:
    """A task spec that means the same from any folder."""
    path, separator, function = spec.partition(":")
    return f"{Path(path).absolute()}{separator}{function}" if path.endswith(".py") else spec


def sensitivity_cache(session: Session, *, has_latency: bool) -> SensitivityCache:
    """The cache of the figures that `probe_with` measures for a session.

    Args:
        session: Task, evaluator and space.
        has_latency: Whether plans are timed.
    """
    evaluator, task = session.evaluator, session.prepared.task
    settings, recipe, device = evaluator.settings, evaluator.recipe, evaluator.device
    is_cuda = device.type == "cuda"
    accelerator = {"accelerator": torch.cuda.get_device_name(device)} if is_cuda else {}
    key = options_key(
        model=model_fingerprint(evaluator.model),
        data={
            **data_fingerprints(session.prepared),
            "probe": evaluator.probe_fingerprint(),
        },
        policy=dataclasses.asdict(settings.policy),
        recipe={
            "rounding": recipe.rounding,
            "rewind": recipe.rewind,
            "distill": task.distill,
            "integer": settings.integer,
        },
        has_size=True,
        has_latency=has_latency,
        threads=settings.threads,
        runtime=_runtime(settings),
        machine={
            **_versions_of_rows(session.methods()),
            "processor": processor_name(),
            "device": device.type,
            **accelerator,
        },
    )
    return SensitivityCache(key)


def _runtime(settings: EvaluationSettings) -> dict[str, Any]:
    """What the latency of a plan depends on, besides the plan and the machine."""
    return {
        "versions": versions_of(find_runtime(settings.runtime)),
        "name": settings.runtime,
        "threads": settings.runtime_threads,
        "batch": settings.runtime_batch,
        "shapes": settings.input_shapes,
    }


def probe_with(executor: Executor, *, has_latency: bool) -> ProbePlan:
    """Measures plans for the sensitivity table: divergence and size, and latency if wanted."""
    return lambda plan: executor.probe(ProbeJob(plan=plan, has_size=True, has_latency=has_latency))
