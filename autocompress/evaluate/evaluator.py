"""Plan in, Measurement out: build, tune, measure. Knows no Optuna."""

import copy
import dataclasses
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autocompress.analysis.macs import count_macs
from autocompress.analysis.profile import ModelProfile, profile_model
from autocompress.compress.importance.table import find_criterion
from autocompress.compress.input_quantizer import InputQuantizer
from autocompress.compress.pipeline import Candidate, Construction, apply_plan
from autocompress.compress.policy import PruningPolicy
from autocompress.compress.quantizers.base import WeightQuantizer
from autocompress.errors import InputError
from autocompress.evaluate.candidate_file import load_candidate_, save_candidate
from autocompress.evaluate.deploy import deploy
from autocompress.evaluate.evidence import EvidenceCollector
from autocompress.evaluate.latency_scale import LatencyScale
from autocompress.evaluate.proxy import Tuner
from autocompress.evaluate.scoring import score
from autocompress.measurement import Fidelity, Measurement
from autocompress.packing.packed import write_packed
from autocompress.plan import CompressionPlan
from autocompress.runtime.latency_cache import Latency
from autocompress.runtime.onnx_export import ExportedGraph
from autocompress.tasks.base import Inputs
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.precision import fastest_precision, find_device, to_fast_layout_
from autocompress.train.recipe import Recipe, check_recipe
from autocompress.train.teachers import Teacher, make_teacher, outputs_on

_logger = logging.getLogger(__name__)
OnStage = Callable[[str, float], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """How candidates are tuned and measured; equal for all trials of a run.

    Attributes:
        threads: Threads of training and scoring. Part of the result: other counts sum floats in
            another order.
        runtime_threads: Threads of the runtime whose latency is measured.
        proxy_epochs: Passes over the training data; None takes the task's.
        learning_rate: Peak learning rate of the fine-tune; None takes the task's.
        policy: How channels and weights are chosen.
        recipe: Fields of `train.recipe.Recipe` that differ from its defaults.
        has_latency: Whether latency is measured.
        device: Where to train, such as `cpu` or `cuda:0`.
    """

    threads: int
    runtime_threads: int = 1
    proxy_epochs: float | None = None
    learning_rate: float | None = None
    policy: PruningPolicy = dataclasses.field(default_factory=PruningPolicy)
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    has_latency: bool = True
    device: str = "cpu"


class Evaluator:
    """Evaluates plans for one task; holds the base model and everything computed once from it.

    Args:
        prepared: The task. Its model is copied, put in eval mode and never changed.
        settings: How to tune and measure.

    Raises:
        InputError: If the device does not exist, the importance criterion is unknown, or the recipe
            asks for something that it or the task cannot give.
    """

    def __init__(self, prepared: PreparedTask, settings: EvaluationSettings) -> None:
        torch.set_num_threads(settings.threads)
        find_criterion(settings.policy.criterion)
        self.prepared = prepared
        self.settings = settings
        self.device = find_device(settings.device)
        self.precision = fastest_precision(self.device)
        self.model = copy.deepcopy(prepared.task.model).eval()
        self.profile: ModelProfile = profile_model(self.model, self.example_inputs)
        self.recipe = _recipe(prepared, settings)
        self._evidence = EvidenceCollector(
            self.model,
            prepared,
            settings.policy.criterion,
            is_rewound=self.recipe.rewind,
        )
        self._teacher: Teacher | None = None
        self._baseline: ExportedGraph | None = None
        self._scale: LatencyScale | None = None
        check_recipe(self.recipe, prepared)

    @property
    def example_inputs(self) -> Inputs:
        """Inputs of two training examples."""
        return self.prepared.example_inputs

    def evaluate(
        self,
        plan: CompressionPlan,
        *,
        seed: int,
        fidelity: Fidelity = 1,
        keep: Path | None = None,
        on_stage: OnStage | None = None,
    ) -> Measurement:
        """Build, tune and measure one candidate.

        An untouched plan is measured as it is, without training: it is the baseline.

        Args:
            plan: What to build.
            seed: Decides everything random; equal seeds give equal candidates.
            fidelity: 0 re-estimates statistics only, 1 also tunes briefly.
            keep: Where to write the candidate's weights; None for nowhere.
            on_stage: Called with (stage, share of it that is done).

        Raises:
            TrialError: If the candidate cannot be built, trained, exported or measured.
        """
        start = time.perf_counter()
        tell = on_stage or (lambda stage, share: None)
        tell("build", 0.0)
        candidate, images_per_s = self._tuned(plan, fidelity, seed, tell)
        model = candidate.model
        tell("score", 0.0)
        val = self.prepared.val
        outputs = outputs_on(model.eval(), val, self.device, "fp32")
        accuracy, loss = score(self.prepared.task, outputs, val.targets)
        tell("export", 0.0)
        model = model.to("cpu")
        exported = deploy(model, self.prepared)
        size_bytes = _packed_size(exported, plan)
        tell("latency", 0.0)
        latency = self.latency(exported) if self.settings.has_latency else None
        if keep is not None:
            _keep(keep, model, plan)
        return Measurement(
            fidelity=fidelity,
            accuracy=accuracy,
            loss=loss,
            size_bytes=size_bytes,
            latency_ms=latency.median_ms if latency else None,
            latency_spread_ms=latency.spread_ms if latency else None,
            baseline_latency_ms=latency.baseline_median_ms if latency else None,
            macs=count_macs(model, self.example_inputs).get("", 0),
            n_params=_count_parameters(model),
            seconds=time.perf_counter() - start,
            train_images_per_s=images_per_s,
            skipped=(
                *candidate.skipped,
                *map(_not_in_graph, exported.unmatched),
                *map(_not_integer, exported.not_integer),
            ),
        )

    def build(self, plan: CompressionPlan) -> Candidate:
        """Apply a plan to a copy of the base model, on the CPU, untuned.

        Raises:
            TrialError: If the candidate does not run.
        """
        return apply_plan(
            self.model,
            plan,
            self.profile.groups,
            self.example_inputs,
            self.settings.policy,
            self._evidence.for_plan(plan),
            self.profile.blocks,
        )

    def _tuned(
        self, plan: CompressionPlan, fidelity: Fidelity, seed: int, tell: OnStage
    ) -> tuple[Candidate, float | None]:
        """A candidate as a fidelity promises it, and the images per second of its training."""
        if plan.effective == CompressionPlan():
            candidate = self.build(plan)
            to_fast_layout_(candidate.model, self.device)
            return candidate, None
        tuner = Tuner(
            prepared=self.prepared,
            teacher=self.teacher(),
            recipe=self.recipe,
            device=self.device,
            precision=self.precision,
        )
        n_steps = tuner.n_steps(plan)
        construction = Construction(
            self.model,
            plan,
            self.profile.groups,
            self.example_inputs,
            self.settings.policy,
            self._evidence.for_plan(plan),
            max(1, n_steps),
            self.profile.blocks,
        )
        candidate, cost = tuner.make(
            construction,
            fidelity=fidelity,
            seed=seed,
            n_steps=n_steps,
            on_share=lambda share: tell("tune", share),
        )
        return candidate, cost.images_per_s

    def rebuild(self, plan: CompressionPlan, weights: Path) -> nn.Module:
        """Build a plan's candidate and load the tuned weights that `evaluate` kept.

        Raises:
            InputError: If the weights are damaged or belong to another plan or model.
        """
        model = self.build(plan).model
        load_candidate_(weights, model, plan)
        return model

    def teacher(self) -> Teacher:
        """What candidates learn from: the task's teacher, or the base model; made once."""
        if self._teacher is None:
            self._teacher = make_teacher(
                self.prepared,
                self.model,
                self.recipe,
                device=self.device,
                precision=self.precision,
            )
        return self._teacher

    def baseline_graph(self) -> ExportedGraph:
        """The untouched model as the runtime runs it; exported once."""
        if self._baseline is None:
            self._baseline = deploy(self.model, self.prepared)
        return self._baseline

    def latency(self, exported: ExportedGraph, *, fresh: bool = False) -> Latency:
        """Time a candidate's graph; see `LatencyScale.measure`."""
        if self._scale is None:
            self._scale = LatencyScale(
                self.baseline_graph(), self.example_inputs, threads=self.settings.runtime_threads
            )
        return self._scale.measure(exported, fresh=fresh)


def _not_in_graph(layer: str) -> str:
    return f"weight_bits of {layer!r} not stored: its weight was not found in the exported graph"


def _not_integer(layer: str) -> str:
    return f"activation_bits of {layer!r} not used: its weight is no int8 grid, so it stays float"


def _recipe(prepared: PreparedTask, settings: EvaluationSettings) -> Recipe:
    """The brief fine-tune behind a trial."""
    task = prepared.task
    return Recipe(
        epochs=settings.proxy_epochs or task.proxy_epochs,
        learning_rate=settings.learning_rate or task.learning_rate,
        batch_size=task.batch_size,
        distill=task.distill,
        **settings.recipe,
    )


def _keep(path: Path, model: nn.Module, plan: CompressionPlan) -> None:
    try:
        save_candidate(path, model, plan)
    except InputError as error:  # export tunes again where weights are missing
        _logger.warning("The weights were not kept: %s", error)


def _count_parameters(model: nn.Module) -> int:
    """Parameters of a candidate, without the learned steps of its quantizers."""
    quantizers = (m for m in model.modules() if isinstance(m, WeightQuantizer | InputQuantizer))
    steps = {id(p) for quantizer in quantizers for p in quantizer.parameters()}
    return sum(p.numel() for p in model.parameters() if id(p) not in steps)


def _packed_size(exported: ExportedGraph, plan: CompressionPlan) -> int:
    with tempfile.TemporaryDirectory(prefix="autocompress-") as folder:
        path = Path(folder) / "model.acz"
        return write_packed(path, exported.model, exported.quantized, {"plan": plan.to_json()})
