"""The training-free score of a plan: how far it moves the outputs before anything is trained.

Statistics are re-estimated before outputs are compared, without which the score does not rank
(EagleEye; Li et al. 2020).
"""

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from autocompress.analysis.refusals import LayerKind
from autocompress.compress.error_compensation import compensate_
from autocompress.compress.output_damage import N_EXAMPLES
from autocompress.compress.pipeline import Candidate
from autocompress.evaluate.packed_size import packed_bytes
from autocompress.evaluate.scoring import divergence_of
from autocompress.plan import CompressionPlan
from autocompress.runtime.base import Shipment
from autocompress.runtime.latency import Latency
from autocompress.space.sensitivity_table import Figures
from autocompress.tasks.base import Inputs
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.precision import keep_freed_memory, to_device, to_fast_layout_
from autocompress.train.recalibrate import calibration_batches, recalibrate_

# On single options of a CIFAR-10 ResNet-20 Kendall's tau to figures of ten times as many examples
# is 0.93 with these numbers and 0.90 with half as many compared; twice the statistics add nothing.
_N_STATISTICS: Final = 256
_N_COMPARED: Final = 512
_N_RECENT: Final = 64  # a plan that a search probed is probed again when it is tuned
_BATCH_SIZE: Final = 128  # larger ones are no faster, and take memory
_SEED: Final = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sample:
    """What every plan is measured on: fixed, in memory, on the device.

    Attributes:
        statistics: Augmented batches that batch-norm and activation grids are re-estimated on.
        compared: Batches, not augmented, on which outputs are compared.
        base_outputs: Of the base model on those.
    """

    statistics: tuple[Inputs, ...]
    compared: tuple[Inputs, ...]
    base_outputs: Tensor


class Probe:
    """Probes plans without training, always on the same few examples.

    Statistics come from augmented examples of train, outputs are compared on plain ones of val.

    Args:
        model: The base model, on the CPU, in eval mode; not modified.
        prepared: Supplies the examples, and says what outputs mean.
        layers: Names of the base model's layers and what they are.
        build: Applies a plan to a copy of the base model, on the CPU.
        deploy: Brings a candidate into the forms that runtimes take.
        time_candidate: Times a candidate.
        compensates_all: Whether rounding makes up for its errors also where bits have no price.
        device: Where outputs are computed.
    """

    def __init__(
        self,
        model: nn.Module,
        prepared: PreparedTask,
        *,
        layers: Mapping[str, LayerKind],
        build: Callable[[CompressionPlan], Candidate],
        deploy: Callable[[nn.Module], Shipment],
        time_candidate: Callable[[Shipment], Latency],
        compensates_all: bool,
        device: torch.device,
    ) -> None:
        self._model = model
        self._prepared = prepared
        self._layers = layers
        self._build = build
        self._deploy = deploy
        self._time_candidate = time_candidate
        self._compensates_all = compensates_all
        self._device = device
        self._kept: _Sample | None = None
        self._recent: dict[tuple[str, bool, bool], Figures] = {}

    def measure(
        self, plan: CompressionPlan, *, has_size: bool = False, has_latency: bool = False
    ) -> Figures:
        """Build a plan's candidate, re-estimate its statistics and measure what it does.

        The base model's statistics are re-estimated on the same examples, and its outputs then are
        what a candidate's are compared with: statistics of a few hundred examples differ from those
        of training, by more than 4-bit weights of a layer do, and this cancels. The untouched plan
        diverges by 0. Everything is computed in float32: bfloat16 adds 1e-5 nats, ten times what
        8-bit weights of a layer do.

        Args:
            plan: What to build.
            has_size: Whether to export and pack it.
            has_latency: Whether to time it, which takes its size as well.

        Raises:
            TrialError: If the candidate does not run, has outputs that are not finite, or cannot
                be exported or timed.
        """
        key = (plan.effective.digest, has_size or has_latency, has_latency)
        if key not in self._recent:
            while len(self._recent) >= _N_RECENT:
                del self._recent[next(iter(self._recent))]
            self._recent[key] = self._probe(plan, has_size=has_size, has_latency=has_latency)
        return self._recent[key]

    def _probe(self, plan: CompressionPlan, *, has_size: bool, has_latency: bool) -> Figures:
        sample = self._sample()
        model = to_fast_layout_(self._build(plan).model, self._device)
        self._settle_(model, plan, sample.statistics)
        outputs = _outputs(model, sample.compared)
        task, base = self._prepared.task, sample.base_outputs
        divergence = divergence_of(task, base, outputs)
        halves = None
        if len(outputs) > 1:
            halves = (
                divergence_of(task, base[::2], outputs[::2]),
                divergence_of(task, base[1::2], outputs[1::2]),
            )
        if not (has_size or has_latency):
            return Figures(divergence=divergence, halves=halves)
        shipment = self._deploy(model.to("cpu"))
        size_bytes, layer_bytes = packed_bytes(shipment.graph, plan, self._layers)
        return Figures(
            divergence=divergence,
            size_bytes=size_bytes,
            layer_bytes=layer_bytes,
            latency_ratio=self._time_candidate(shipment).ratio if has_latency else None,
            halves=halves,
        )

    def fingerprint(self) -> str:
        """sha256 in hex over the examples that plans are measured on, as the model sees them."""
        digest = hashlib.sha256()
        for inputs in (*self._statistics(), *self._compared()):
            for tensor in inputs:
                digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
                digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _sample(self) -> _Sample:
        if self._kept is None:
            keep_freed_memory()
            statistics = tuple(to_device(inputs, self._device) for inputs in self._statistics())
            compared = tuple(to_device(inputs, self._device) for inputs in self._compared())
            base = to_fast_layout_(copy.deepcopy(self._model), self._device)
            recalibrate_(base, statistics)
            self._kept = _Sample(
                statistics=statistics, compared=compared, base_outputs=_outputs(base, compared)
            )
        return self._kept

    def _statistics(self) -> Iterator[Inputs]:
        n_batches = _N_STATISTICS // _BATCH_SIZE
        return calibration_batches(self._prepared, _BATCH_SIZE, n_batches, _SEED)

    def _compared(self) -> Iterator[Inputs]:
        """Inputs of val: those of train the model may have memorised; no label is looked at."""
        val = self._prepared.val
        order = torch.randperm(len(val), generator=torch.Generator().manual_seed(_SEED))
        chosen = order[:_N_COMPARED]
        return (val.batch(indices)[0] for indices in chosen.split(_BATCH_SIZE))

    def _settle_(
        self, model: nn.Module, plan: CompressionPlan, statistics: tuple[Inputs, ...]
    ) -> None:
        """Do what a candidate gets before any training, in place; see `Tuner.make`."""
        recalibrate_(model, statistics)
        if self._compensates_all or plan.has_prices:
            compensate_(model, iter(statistics), only_priced=not self._compensates_all)
            recalibrate_(model, statistics)


def _outputs(model: nn.Module, batches: tuple[Inputs, ...]) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(*inputs).float().cpu() for inputs in batches])


def n_probed_examples(n_penalized: int) -> int:
    """Examples that go through a model when a plan is probed.

    Args:
        n_penalized: Layers that may have a rate penalty: what each does to the outputs is measured.
    """
    return _N_STATISTICS + _N_COMPARED + N_EXAMPLES * n_penalized
