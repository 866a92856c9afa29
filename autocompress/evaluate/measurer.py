"""What a tuned candidate is worth: accuracy, bytes of its file, milliseconds in the runtime."""

import contextlib
import copy
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from autocompress.analysis.profile import count_macs
from autocompress.analysis.refusals import LayerKind
from autocompress.compress.input_quantizer import InputQuantizer
from autocompress.compress.pipeline import Candidate
from autocompress.compress.quantizers.base import WeightQuantizer
from autocompress.errors import InputError, TrialError
from autocompress.evaluate.candidate_file import save_candidate
from autocompress.evaluate.deploy import deploy, reshaped, timed_inputs
from autocompress.evaluate.packed_size import packed_bytes
from autocompress.evaluate.scoring import divergence_of, score
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.evaluate.shipped_graph import check_shipped
from autocompress.measurement import LEAST_NOISE, Fidelity, Measurement
from autocompress.onnx_graph.structure import structure_digest
from autocompress.plan import CompressionPlan
from autocompress.runtime.base import Arrays, Shipment
from autocompress.runtime.latency import Latency, LatencyCache, measure_latency
from autocompress.runtime.onnx_export import make_templates
from autocompress.runtime.registry import find_runtime
from autocompress.tasks.prepare import PreparedTask
from autocompress.tasks.user_code import describe_error
from autocompress.train.precision import to_fast_layout_
from autocompress.train.teachers import outputs_on


class LatencyScale:
    """Times candidates against the original model.

    A machine is faster at one time than at another, so milliseconds taken at different times
    do not compare; ratios to a baseline timed in between do. All milliseconds here are such a
    ratio times one and the same figure of the baseline.

    Args:
        baseline: The original model as the runtime runs it.
        example: Inputs of one inference, see `timed_inputs`.
        runtime: Name of the runtime.
        threads: Threads of the runtime.

    Raises:
        InputError: If there is no such runtime, or it is not installed.
    """

    def __init__(self, baseline: Shipment, example: Arrays, *, runtime: str, threads: int) -> None:
        self._baseline = baseline
        self._example = example
        self._runtime = find_runtime(runtime)
        self._threads = threads
        self._reference: Latency | None = None

    def measure(self, candidate: Shipment, *, fresh: bool = False) -> Latency:
        """Time a candidate.

        Args:
            candidate: What to time.
            fresh: Measure anew; otherwise a structure that this machine has timed is not timed
                again, so that equal structures have equal figures and searches can be repeated.
        """
        if self._reference is None or fresh:
            self._reference = self._interleaved(self._baseline, fresh)
        reference_ms = self._reference.median_ms
        if structure_digest(candidate.graph.model) == structure_digest(self._baseline.graph.model):
            measured = dataclasses.replace(self._reference, ratio=1.0)  # its interval is the noise
        else:
            measured = self._interleaved(candidate, fresh)
        return dataclasses.replace(
            measured,
            median_ms=measured.ratio * reference_ms,
            spread_ms=measured.spread_ms * reference_ms / measured.baseline_median_ms,
            baseline_median_ms=reference_ms,
        )

    def _interleaved(self, candidate: Shipment, fresh: bool) -> Latency:
        return measure_latency(
            candidate,
            self._baseline,
            self._example,
            runtime=self._runtime,
            threads=self._threads,
            cache=LatencyCache(),
            fresh=fresh,
        )


_logger = logging.getLogger(__name__)
_N_TRIED: Final = 32
_N_SHIPPED: Final = 32  # examples on which the graph is held against the candidate
OnStage = Callable[[str, float], None]


class Measurer:
    """Measures the candidates of one base model.

    Args:
        model: The base model, in eval mode, on the CPU; not modified.
        prepared: Examples to score and calibrate with.
        layers: Names of the base model's layers and what they are.
        settings: What is measured, and on how many threads.
        device: Where candidates are scored.
    """

    def __init__(
        self,
        model: nn.Module,
        prepared: PreparedTask,
        layers: Mapping[str, LayerKind],
        settings: EvaluationSettings,
        device: torch.device,
    ) -> None:
        self._model = model
        self._prepared = prepared
        self._layers = layers
        self.settings = settings
        self._device = device
        self._templates = make_templates()
        self._val_outputs: Tensor | None = None
        self._baseline: Shipment | None = None
        self._scale: LatencyScale | None = None

    def measure(
        self,
        candidate: Candidate,
        plan: CompressionPlan,
        *,
        fidelity: Fidelity,
        start: float,
        untuned: float | None = None,
        images_per_s: float | None = None,
        keep: Path | None = None,
        on_stage: OnStage = lambda stage, share: None,
    ) -> Measurement:
        """Measure a candidate that has been tuned.

        Args:
            candidate: On the device; its model is left on the CPU in eval mode.
            plan: What it was built from.
            fidelity: How it was tuned.
            start: When work on it began, in seconds of `time.perf_counter`.
            untuned: Its training-free score.
            images_per_s: Training examples per second.
            keep: Where to write its weights; None for nowhere.
            on_stage: Called with (stage, share of it that is done).

        Raises:
            TrialError: If it cannot be scored, exported or measured, or its graph computes
                something else.
        """
        model, inputs = candidate.model, self._prepared.example_inputs
        on_stage("score", 0.0)
        accuracy, loss, divergence = self.score(model)
        on_stage("export", 0.0)
        model = model.to("cpu")
        shipment = self.deploy(model)
        check_shipped(shipment, model, self._prepared.val.batch(slice(0, _N_SHIPPED))[0])
        size_bytes, layer_bytes = packed_bytes(shipment.graph, plan, self._layers)
        on_stage("latency", 0.0)
        latency = self.latency(shipment) if self.settings.has_latency else None
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
            latency_low_ms=latency.low_ms if latency else None,
            latency_high_ms=latency.high_ms if latency else None,
            peak_memory_bytes=latency.peak_memory_bytes if latency else None,
            macs=count_macs(model, inputs).get("", 0),
            n_params=_count_parameters(model),
            seconds=time.perf_counter() - start,
            train_images_per_s=images_per_s,
            skipped=(
                *candidate.skipped,
                *map(_not_in_graph, shipment.graph.unmatched),
                *map(_not_integer, shipment.graph.not_integer),
            ),
            divergence=divergence,
            untuned_divergence=untuned,
            layer_bytes=layer_bytes,
        )

    def score(self, model: nn.Module) -> tuple[float, float, float | None]:
        """Accuracy, loss and divergence from the base model on val, of a model on the device."""
        val, task = self._prepared.val, self._prepared.task
        outputs = outputs_on(model.eval(), val, self._device, "fp32")
        accuracy, loss = score(task, outputs, val.targets)
        return accuracy, loss, divergence_of(task, self._base_outputs_on_val(), outputs)

    def check_scores(self) -> None:
        """Check that the model runs on val, and that metric and loss can judge it.

        A few examples are enough to see that they do. They prove no fault, as a good metric may
        need more of them, so that where in doubt all of val decides.

        Raises:
            InputError: If one of them cannot; it names the user's file and line.
        """
        val, task = self._prepared.val, self._prepared.task
        try:
            with torch.no_grad():
                inputs, targets = val.batch(slice(None, None, -(-len(val) // _N_TRIED)))
                outputs = self._model(*inputs).float()
        except Exception as error:
            message = f"The model must run on a batch of val, but raised {describe_error(error)}."
            raise InputError(message) from error
        with contextlib.suppress(TrialError):
            score(task, outputs, targets)
            return
        try:
            score(task, self._base_outputs_on_val(), val.targets)
        except TrialError as error:
            if error.reason not in ("metric", "loss"):
                return  # the model's fault, which its measurement tells
            hint = f"It is called once with outputs and targets of all {len(val):,} examples."
            raise InputError(error.message, hint) from error.__cause__

    def deploy(self, model: nn.Module) -> Shipment:
        """A candidate as runtimes run it; see `evaluate.deploy`."""
        is_dynamic = self.settings.integer == "dynamic"
        return deploy(model, self._prepared, self._templates, is_dynamic=is_dynamic)

    def is_faster_dynamic(self, model: nn.Module) -> bool:
        """Whether a quantized model is faster with dynamic activation grids than with its own."""
        static, dynamic = (
            deploy(model, self._prepared, self._templates, is_dynamic=is_dynamic)
            for is_dynamic in (False, True)
        )
        digests = {structure_digest(made.graph.model) for made in (static, dynamic)}
        if len(digests) == 1:
            return False
        settings = self.settings
        latency = measure_latency(
            dynamic,
            static,
            self._example(),
            runtime=find_runtime(settings.runtime),
            threads=settings.runtime_threads,
            cache=LatencyCache(),
        )
        return latency.ratio_high < 1.0 / (1.0 + LEAST_NOISE)

    def _example(self) -> Arrays:
        settings = self.settings
        return timed_inputs(
            self._prepared.example_inputs, settings.runtime_batch, settings.input_shapes
        )

    def baseline(self) -> Shipment:
        """The original model as the runtime runs it; exported once."""
        if self._baseline is None:
            self._baseline = self.deploy(self._model)
        return self._baseline

    def latency(self, candidate: Shipment, *, fresh: bool = False) -> Latency:
        """Time a candidate; see `LatencyScale.measure`."""
        if self._scale is None:
            settings = self.settings
            self._scale = LatencyScale(
                self._as_timed(self.baseline()),
                self._example(),
                runtime=settings.runtime,
                threads=settings.runtime_threads,
            )
        return self._scale.measure(self._as_timed(candidate), fresh=fresh)

    def _as_timed(self, shipment: Shipment) -> Shipment:
        """A candidate for inputs of the size that is timed."""
        shapes = self.settings.input_shapes
        is_dynamic = self.settings.integer == "dynamic"
        return shipment if shapes is None else reshaped(shipment, shapes, is_dynamic=is_dynamic)

    def _base_outputs_on_val(self) -> Tensor:
        if self._val_outputs is None:
            model = to_fast_layout_(copy.deepcopy(self._model), self._device)
            self._val_outputs = outputs_on(model, self._prepared.val, self._device, "fp32")
        return self._val_outputs


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
