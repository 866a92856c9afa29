"""Plan in, Measurement out: build, tune, measure. Knows no Optuna."""

import copy
import dataclasses
import math
import time
from collections import OrderedDict
from pathlib import Path
from typing import Final, Literal, TypeAlias

import torch
from torch import nn

from autocompress.analysis.profile import ModelProfile, profile_model
from autocompress.compress.importance.registry import find_criterion
from autocompress.compress.pipeline import Candidate, Construction, Structure, apply_plan
from autocompress.errors import TrialError
from autocompress.evaluate.calibration import StatisticsCollector
from autocompress.evaluate.candidate_file import load_candidate_
from autocompress.evaluate.deploy import timed_inputs
from autocompress.evaluate.dominance import Rivals
from autocompress.evaluate.measurer import Measurer, OnStage
from autocompress.evaluate.probe import Probe
from autocompress.evaluate.proxy import OnShare, Tuner
from autocompress.evaluate.settings import EvaluationSettings, recipe_for
from autocompress.measurement import Fidelity, Measurement
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.space.sensitivity_table import Figures
from autocompress.tasks.base import Inputs
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.loop import NO_TRAINING, Throughput
from autocompress.train.precision import fastest_precision, find_device, to_fast_layout_
from autocompress.train.recipe import Recipe, check_recipe
from autocompress.train.teachers import Teacher, make_teacher

_STRUCTURE_BYTES: Final = 256 * 2**20  # of trained structures that are kept
_LEAST_GAIN: Final = 0.0025  # of the baseline's accuracy, for statistics other than its own
_LEAST_EXAMPLES: Final = 3  # and at least so many more of val right
_StructureKey: TypeAlias = tuple[str, Fidelity, Recipe]


class Evaluator:
    """Evaluates plans for one task; holds the base model and everything computed once from it.

    Args:
        prepared: The task. Its model is copied, put in eval mode and never changed.
        settings: How to tune and measure.

    Raises:
        InputError: If the device does not exist, the importance criterion is unknown, or the recipe
            asks for something that it or the task cannot give, or a timed shape does not fit.
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
        self._statistics = StatisticsCollector(
            self.model,
            prepared,
            settings.policy.criterion,
            is_rewound=self.recipe.rewind,
        )
        timed_inputs(self.example_inputs, 1, settings.input_shapes)  # shapes that do not fit raise
        layers = {layer.name: layer.kind for layer in self.profile.layers}
        self.measurer = Measurer(self.model, prepared, layers, settings, self.device)
        self._probe = Probe(
            self.model,
            prepared,
            layers=layers,
            build=self.build,
            deploy=self.measurer.deploy,
            time_candidate=self.measurer.latency,
            compensates_all=self.recipe.rounding == "compensated",
            device=self.device,
        )
        self._teacher: Teacher | None = None
        self._structures: OrderedDict[_StructureKey, tuple[Structure, int]] = OrderedDict()
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
        has_half_batch: bool = False,
        on_stage: OnStage | None = None,
    ) -> Measurement:
        """Build, tune and measure one candidate.

        An untouched plan is measured without training: it is the baseline. Its batch-norm
        statistics are re-estimated, as every candidate's are, where that is clearly better on val.

        Args:
            plan: What to build.
            seed: Decides everything random; equal seeds give equal candidates.
            fidelity: 0 re-estimates statistics only, 1 also tunes briefly.
            keep: Where to write the candidate's weights; None for nowhere.
            rivals: What the candidate must have a chance against before it is tuned.
            has_half_batch: Whether to train with half the recipe's batch; the measurement says so.
            on_stage: Called with (stage, share of it that is done).

        Raises:
            HopelessError: If the candidate has no chance against its rivals.
            TrialError: If it cannot be built, trained, exported or measured.
        """
        start = time.perf_counter()
        tell = on_stage or (lambda stage, share: None)
        tell("build", 0.0)
        untuned = self._screen(plan, rivals) if fidelity > 0 and not _is_untouched(plan) else None
        recipe = _with_half_batch(self.recipe) if has_half_batch else self.recipe
        candidate, images_per_s = self.tuned(plan, fidelity, seed, tell, recipe)
        if has_half_batch:
            note = f"batches of {self.recipe.batch_size}: memory ran out; {recipe.batch_size} used"
            candidate = dataclasses.replace(candidate, skipped=(*candidate.skipped, note))
        measured = self.measurer.measure(
            candidate,
            plan,
            fidelity=fidelity,
            start=start,
            untuned=untuned,
            images_per_s=images_per_s,
            keep=keep,
            on_stage=tell,
        )
        return dataclasses.replace(measured, has_half_batch=has_half_batch)

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
            self._statistics.for_plan(plan),
            self.profile.blocks,
        )

    def settle_integer(self) -> None:
        """Decide what `integer: auto` means for this model, by measuring; settings say it then.

        All layers that can be are made 8-bit, and timed in both forms. Dynamic grids are taken if
        they are faster by more than the noise; never with other runtimes than ONNX Runtime, nor
        in models without sequences, whose products have a static kernel that is as fast.
        """
        if self.settings.integer == "auto":
            self.settings = dataclasses.replace(self.settings, integer=self._faster_integer())
            self.measurer.settings = self.settings

    def _faster_integer(self) -> Literal["static", "dynamic"]:
        layers = {
            layer.name: LayerPlan(weight_bits=8, activation_bits=8)
            for layer in self.profile.layers
            if not {"weight_bits", "activation_bits"} & layer.refusals.keys()
        }
        is_possible = self.settings.has_latency and self.settings.runtime == "onnxruntime"
        has_sequences = any(
            layer.kind == "recurrent"
            or (
                layer.kind == "linear"
                and layer.macs > layer.n_calls * math.prod(layer.weight_shape)
            )
            for layer in self.profile.layers
            if layer.name in layers
        )
        if not has_sequences or not is_possible:
            return "static"
        try:
            candidate, _ = self.tuned(CompressionPlan(layers=layers), 0, 0, lambda *_: None)
            is_faster = self.measurer.is_faster_dynamic(candidate.model.to("cpu"))
        except TrialError:
            return "static"
        return "dynamic" if is_faster else "static"

    def probe(
        self, plan: CompressionPlan, *, has_size: bool = False, has_latency: bool = False
    ) -> Figures:
        """Probe a plan without training; see `Probe.measure`."""
        return self._probe.measure(plan, has_size=has_size, has_latency=has_latency)

    def probe_fingerprint(self) -> str:
        """sha256 in hex over the examples that `probe` probes."""
        return self._probe.fingerprint()

    def _screen(self, plan: CompressionPlan, rivals: Rivals | None) -> float:
        """The training-free score of a plan, if it has a chance against its rivals."""
        if rivals is None:
            return self.probe(plan).divergence
        figures = self.probe(plan, has_size=True)
        if rivals.depends_on_latency(figures):
            figures = self.probe(plan, has_size=True, has_latency=True)
        rivals.check(figures)
        return figures.divergence

    def tuned(
        self,
        plan: CompressionPlan,
        fidelity: Fidelity,
        seed: int,
        on_stage: OnStage,
        recipe: Recipe | None = None,
    ) -> tuple[Candidate, float | None]:
        """A candidate as a fidelity promises it, and the images per second of its training.

        Its model is on the evaluator's device.

        Raises:
            TrialError: If it cannot be built or trained.
        """
        tuner = Tuner(
            prepared=self.prepared,
            teacher=self.teacher(),
            recipe=recipe or self.recipe,
            device=self.device,
            precision=self.precision,
            score=self._goodness,
        )
        if _is_untouched(plan):
            candidate = self.build(plan)
            to_fast_layout_(candidate.model, self.device)
            margin = max(_LEAST_GAIN, _LEAST_EXAMPLES / len(self.prepared.val))
            return tuner.reestimate(candidate, seed, margin), None
        epochs = tuner.epochs(plan)
        first = epochs[0] / max(sum(epochs), 1e-9)  # share of the training
        structure, before = self._structure(
            plan.structure, tuner, fidelity, lambda share: on_stage("tune", first * share)
        )
        candidate, after = tuner.make(
            structure,
            plan,
            fidelity=fidelity,
            seed=seed,
            on_share=lambda share: on_stage("tune", first + (1.0 - first) * share),
        )
        return candidate, (after if after.n_images else before).images_per_s

    def _goodness(self, model: nn.Module) -> tuple[float, float]:
        accuracy, loss, _ = self.measurer.score(model)
        return accuracy, -loss

    def _structure(
        self, plan: CompressionPlan, tuner: Tuner, fidelity: Fidelity, on_share: OnShare
    ) -> tuple[Structure, Throughput]:
        """A structure of its own to round; one that was trained before is not trained again."""
        key = (plan.digest, fidelity, tuner.recipe)
        if key in self._structures:
            self._structures.move_to_end(key)
            structure, _ = self._structures[key]
            return structure.copy(), NO_TRAINING
        # the same in every trial and every process, so that it is no matter who trains it
        seed = (int(plan.digest, 16) + self.settings.seed) % 2**32
        n_steps = tuner.n_steps(plan)
        construction = Construction(
            self.model,
            plan,
            self.profile.groups,
            self.example_inputs,
            self.settings.policy,
            self._statistics.for_plan(plan),
            max(1, n_steps),
            self.profile.blocks,
        )
        structure, cost = tuner.make_structure(
            construction,
            fidelity=fidelity,
            seed=seed,
            n_steps=n_steps,
            on_share=on_share,
        )
        if fidelity > 0 and plan.loses_weights:
            structure.model.to("cpu")
            self._keep_structure(key, structure)
            structure = structure.copy()
        return structure, cost

    def _keep_structure(self, key: _StructureKey, structure: Structure) -> None:
        n_bytes = sum(t.nbytes for t in structure.model.state_dict().values())
        self._structures[key] = (structure, n_bytes)
        while len(self._structures) > 1 and (
            sum(n for _, n in self._structures.values()) > _STRUCTURE_BYTES
        ):
            self._structures.popitem(last=False)

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


def _is_untouched(plan: CompressionPlan) -> bool:
    return plan.effective == CompressionPlan()


def _with_half_batch(recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, batch_size=max(1, recipe.batch_size // 2))
