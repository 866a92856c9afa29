"""How candidates are tuned and measured: one setting for all trials of a run."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from autocompress.compress.prune import PruningPolicy
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.recipe import Recipe


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """How candidates are tuned and measured; equal for all trials of a run.

    Attributes:
        threads: Threads of training and scoring. Part of the result: other counts sum floats in
            another order.
        runtime: Runtime whose latency is measured, a name in `runtime.table`.
        runtime_threads: Its threads.
        runtime_batch: Examples of an inference that is timed.
        integer: How layers with 8-bit activations find their grids at run time: `static`, the
            trained ones, or `dynamic`, one for each inference (ONNX Runtime only; not for
            convolutions). `auto` is what an `Evaluator` decides by measuring, see
            `Evaluator.settle_integer`.
        input_shapes: Shape of one timed example for each input, without the batch; None leaves them
            as the task gives them.
        proxy_epochs: Passes over the training data; None takes the task's.
        learning_rate: Peak learning rate of the fine-tune; None takes the task's.
        policy: How channels and weights are chosen.
        recipe: Other fields of `train.recipe.Recipe` that differ from the task's and its defaults.
        has_latency: Whether latency is measured.
        device: Where to train, such as `cpu` or `cuda:0`.
        seed: What the training of structures is derived from, which several trials share.
    """

    threads: int
    runtime: str = "onnxruntime"
    runtime_threads: int = 1
    integer: Literal["auto", "static", "dynamic"] = "static"
    runtime_batch: int = 1
    input_shapes: tuple[tuple[int, ...], ...] | None = None
    proxy_epochs: float | None = None
    learning_rate: float | None = None
    policy: PruningPolicy = dataclasses.field(default_factory=PruningPolicy)
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    has_latency: bool = True
    device: str = "cpu"
    seed: int = 0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "EvaluationSettings":
        """Inverse of `dataclasses.asdict`, after JSON made lists of tuples."""
        shapes = data.get("input_shapes")
        kept = {
            **data,
            "policy": PruningPolicy(**data["policy"]),
            "input_shapes": None if shapes is None else tuple(map(tuple, shapes)),
        }
        return cls(**kept)


def recipe_for(prepared: PreparedTask, settings: EvaluationSettings) -> Recipe:
    """The brief fine-tune behind a trial: the task's, where the settings say nothing else."""
    task = prepared.task
    of_task = {"batch_size": task.batch_size, "distill": task.distill}
    return Recipe(
        epochs=settings.proxy_epochs or task.proxy_epochs,
        learning_rate=settings.learning_rate or task.learning_rate,
        **{**of_task, **settings.recipe},
    )
