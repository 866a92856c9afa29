"""Plan in, Measurement out: build, tune, measure. Knows no Optuna."""

import copy
import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from autocompress.analysis.macs import count_macs
from autocompress.analysis.profile import ModelProfile, profile_model
from autocompress.compress.importance.table import find_criterion
from autocompress.compress.input_quantizer import InputQuantizer
from autocompress.compress.pipeline import Candidate, Construction, apply_plan
from autocompress.compress.quantizers.base import WeightQuantizer
from autocompress.errors import InputError
from autocompress.evaluate.candidate_file import load_candidate_, save_candidate
from autocompress.evaluate.deploy import deploy
from autocompress.evaluate.dominance import Rivals
from autocompress.evaluate.evidence import EvidenceCollector
from autocompress.evaluate.latency_scale import LatencyScale
from autocompress.evaluate.packed_size import packed_size
from autocompress.evaluate.probe import Probe
from autocompress.evaluate.proxy import Tuner
from autocompress.evaluate.scoring import divergence_of, score
from autocompress.evaluate.settings import EvaluationSettings, recipe_for
from autocompress.measurement import Fidelity, Measurement
from autocompress.plan import CompressionPlan
from autocompress.runtime.latency_cache import Latency
from autocompress.runtime.onnx_export import ExportedGraph
from autocompress.space.option_table import Figures
from autocompress.tasks.base import Inputs
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.precision import fastest_precision, find_device, to_fast_layout_
from autocompress.train.recipe import check_recipe
from autocompress.train.teachers import Teacher, make_teacher, outputs_on

_logger = logging.getLogger(__name__)
OnStage = Callable[[str, float], None]


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
        self.recipe = recipe_for(prepared, settings)
        self._evidence = EvidenceCollector(
            self.model,
            prepared,
            settings.policy.criterion,
            is_rewound=self.recipe.rewind,
        )
        self._probe = Probe(
            self.model,
            prepared,
            layers={layer.name: layer.kind for layer in self.profile.layers},
            build=self.build,
            time_graph=self.latency,
            rounding=self.recipe.rounding,
            device=self.device,
        )
        self._val_outputs: Tensor | None = None
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
        rivals: Rivals | None = None,
        on_stage: OnStage | None = None,
    ) -> Measurement:
        """Build, tune and measure one candidate.

        An untouched plan is measured as it is, without training: it is the baseline.

        Args:
            plan: What to build.
            seed: Decides everything random; equal seeds give equal candidates.
            fidelity: 0 re-estimates statistics only, 1 also tunes briefly.
            keep: Where to write the candidate's weights; None for nowhere.
            rivals: What the candidate must have a chance against before it is tuned.
            on_stage: Called with (stage, share of it that is done).

        Raises:
            TrialError: If the candidate cannot be built, trained, exported or measured, or, with
                reason `dominated`, has no chance against its rivals.
        """
        start = time.perf_counter()
        tell = on_stage or (lambda stage, share: None)
        tell("build", 0.0)
        untuned = self._screen(plan, rivals) if fidelity > 0 and not _is_untouched(plan) else None
        candidate, images_per_s = self._tuned(plan, fidelity, seed, tell)
        model = candidate.model
        tell("score", 0.0)
        val = self.prepared.val
        outputs = outputs_on(model.eval(), val, self.device, "fp32")
        accuracy, loss = score(self.prepared.task, outputs, val.targets)
        divergence = divergence_of(self.prepared.task, self._base_outputs_on_val(), outputs)
        tell("export", 0.0)
        model = model.to("cpu")
        exported = deploy(model, self.prepared)
        size_bytes = packed_size(exported, plan)
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
            divergence=divergence,
            untuned_divergence=untuned,
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

    def probe(
        self, plan: CompressionPlan, *, has_size: bool = False, has_latency: bool = False
    ) -> Figures:
        """Look at a plan without training; see `Probe.measure`."""
        return self._probe.measure(plan, has_size=has_size, has_latency=has_latency)

    def probe_fingerprint(self) -> str:
        """sha256 in hex over the examples that `probe` looks at."""
        return self._probe.fingerprint()

    def _screen(self, plan: CompressionPlan, rivals: Rivals | None) -> float:
        """The training-free score of a plan, if it has a chance against its rivals."""
        if rivals is None:
            return self.probe(plan).divergence
        figures = self.probe(plan, has_size=True, has_latency=rivals.has_latency)
        rivals.check(figures)
        return figures.divergence

    def _base_outputs_on_val(self) -> Tensor:
        if self._val_outputs is None:
            model = to_fast_layout_(copy.deepcopy(self.model), self.device)
            self._val_outputs = outputs_on(model, self.prepared.val, self.device, "fp32")
        return self._val_outputs

    def _tuned(
        self, plan: CompressionPlan, fidelity: Fidelity, seed: int, tell: OnStage
    ) -> tuple[Candidate, float | None]:
        """A candidate as a fidelity promises it, and the images per second of its training."""
        if _is_untouched(plan):
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


def _is_untouched(plan: CompressionPlan) -> bool:
    return plan.effective == CompressionPlan()


def _not_in_graph(layer: str) -> str:
    return f"weight_bits of {layer!r} not stored: its weight was not found in the exported graph"


def _not_integer(layer: str) -> str:
    return f"activation_bits of {layer!r} not used: its weight is no int8 grid, so it stays float"


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
