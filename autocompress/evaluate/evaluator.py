"""Plan in, Measurement out: build, tune, measure. Knows no Optuna."""

import copy
import dataclasses
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from autocompress.analysis.macs import count_macs
from autocompress.analysis.profile import ModelProfile, profile_model
from autocompress.compress.importance import NEEDS_GRADIENTS, Gradients, find_criterion
from autocompress.compress.pipeline import Candidate, PruningPolicy, apply_plan
from autocompress.compress.quantize import InputQuantizer, WeightQuantizer
from autocompress.errors import InputError
from autocompress.evaluate.candidate_file import load_candidate_, save_candidate
from autocompress.evaluate.deploy import deploy
from autocompress.evaluate.proxy import tune_
from autocompress.evaluate.scoring import predict, score
from autocompress.measurement import Fidelity, Measurement
from autocompress.packing.packed import write_packed
from autocompress.plan import CompressionPlan
from autocompress.runtime.latency import measure_latency
from autocompress.runtime.latency_cache import Latency, LatencyCache
from autocompress.runtime.onnx_export import ExportedGraph
from autocompress.runtime.structure import structure_digest
from autocompress.tasks.base import Inputs
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.loop import Recipe, Teacher
from autocompress.train.precision import fastest_precision, find_device, to_fast_layout_

_logger = logging.getLogger(__name__)
_GRADIENT_BATCHES = 8
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
        policy: How channels are chosen.
        has_latency: Whether latency is measured.
        device: Where to train, such as `cpu` or `cuda:0`.
    """

    threads: int
    runtime_threads: int = 1
    proxy_epochs: float | None = None
    learning_rate: float | None = None
    policy: PruningPolicy = dataclasses.field(default_factory=PruningPolicy)
    has_latency: bool = True
    device: str = "cpu"


class Evaluator:
    """Evaluates plans for one task; holds the base model and everything computed once from it.

    Args:
        prepared: The task. Its model is copied, put in eval mode and never changed.
        settings: How to tune and measure.

    Raises:
        InputError: If the device does not exist or the importance criterion is unknown.
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
        self._teacher: Teacher | None = None
        self._gradients: Gradients | None = None
        self._baseline: ExportedGraph | None = None
        self._baseline_latency: Latency | None = None

    @property
    def example_inputs(self) -> Inputs:
        """Inputs of two training examples."""
        return self.prepared.example_inputs

    @property
    def recipe(self) -> Recipe:
        """The brief fine-tune behind a trial."""
        task, settings = self.prepared.task, self.settings
        return Recipe(
            epochs=settings.proxy_epochs or task.proxy_epochs,
            learning_rate=settings.learning_rate or task.learning_rate,
            batch_size=task.batch_size,
            distill=task.distill,
        )

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
        candidate = self.build(plan)
        model = to_fast_layout_(candidate.model, self.device)
        images_per_s = None
        if plan != CompressionPlan():
            images_per_s = tune_(
                model,
                self.prepared,
                self.teacher(),
                self.recipe,
                fidelity=fidelity,
                seed=seed,
                device=self.device,
                precision=self.precision,
                on_step=lambda step, n_steps: tell("tune", step / n_steps),
            ).images_per_s
        tell("score", 0.0)
        val = self.prepared.val
        accuracy, loss = score(self.prepared.task, predict(model, val, self.device), val.targets)
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
            skipped=(*candidate.skipped, *map(_not_in_graph, exported.unmatched)),
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
            self.gradients() if self.settings.policy.criterion in NEEDS_GRADIENTS else None,
        )

    def rebuild(self, plan: CompressionPlan, weights: Path) -> nn.Module:
        """Build a plan's candidate and load the tuned weights that `evaluate` kept.

        Raises:
            InputError: If the weights are damaged or belong to another plan or model.
        """
        model = self.build(plan).model
        load_candidate_(weights, model, plan)
        return model

    def teacher(self) -> Teacher:
        """The base model, with its outputs on the training data if no augmentation changes it."""
        if self._teacher is None:
            model = to_fast_layout_(copy.deepcopy(self.model), self.device).requires_grad_(False)
            needs_outputs = self.prepared.task.augment is None and self.recipe.distill != "none"
            cached = (
                predict(model, self.prepared.train, self.device, self.precision)
                if needs_outputs
                else None
            )
            self._teacher = Teacher(model=model, cached=cached)
        return self._teacher

    def gradients(self) -> Gradients:
        """Mean gradient of the task's loss at the base model, over a few batches of train."""
        if self._gradients is None:
            model = copy.deepcopy(self.model).requires_grad_(True)
            batches = self._gradient_batches()
            for inputs, targets in batches:
                loss = self.prepared.task.loss(model(*inputs), targets)
                (loss / len(batches)).backward()
            self._gradients = {
                name: p.grad for name, p in model.named_parameters() if p.grad is not None
            }
        return self._gradients

    def _gradient_batches(self) -> list[tuple[Inputs, torch.Tensor]]:
        order = torch.randperm(len(self.prepared.train), generator=torch.Generator().manual_seed(0))
        batches = order.split(self.prepared.task.batch_size)[:_GRADIENT_BATCHES]
        return [self.prepared.train.batch(indices) for indices in batches]

    def baseline_graph(self) -> ExportedGraph:
        """The untouched model as the runtime runs it; exported once."""
        if self._baseline is None:
            self._baseline = deploy(self.model, self.prepared)
        return self._baseline

    def latency(self, exported: ExportedGraph, *, fresh: bool = False) -> Latency:
        """Time a candidate's graph against the baseline's, on the scale of one baseline figure.

        A machine is faster at one time than at another, so milliseconds taken at different times
        do not compare; ratios to a baseline timed in between do. All milliseconds here are such a
        ratio times one and the same figure of the baseline.

        Args:
            exported: What to time.
            fresh: Measure anew; otherwise a structure that this machine has timed is not timed
                again, so that equal structures have equal figures and searches can be repeated.
        """
        if self._baseline_latency is None or fresh:
            self._baseline_latency = self._measure_latency(self.baseline_graph(), fresh)
        reference_ms = self._baseline_latency.median_ms
        if structure_digest(exported.model) == structure_digest(self.baseline_graph().model):
            ratio, measured = 1.0, self._baseline_latency
        else:
            measured = self._measure_latency(exported, fresh)
            ratio = measured.ratio
        return dataclasses.replace(
            measured,
            median_ms=ratio * reference_ms,
            spread_ms=measured.spread_ms * reference_ms / measured.baseline_median_ms,
            baseline_median_ms=reference_ms,
            ratio=ratio,
        )

    def _measure_latency(self, exported: ExportedGraph, fresh: bool) -> Latency:
        example = tuple(np.ascontiguousarray(t[:1].numpy()) for t in self.example_inputs)
        return measure_latency(
            exported.model,
            self.baseline_graph().model,
            example,
            threads=self.settings.runtime_threads,
            cache=LatencyCache(),
            fresh=fresh,
        )


def _not_in_graph(layer: str) -> str:
    return f"weight_bits of {layer!r} not stored: its weight was not found in the exported graph"


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
