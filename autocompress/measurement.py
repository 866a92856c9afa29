"""What was measured on one candidate: realised values, never requested ones."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final, Literal

from autocompress.errors import TrialError

Fidelity = Literal[0, 1, 2]

LEAST_NOISE: Final = 0.02
"""Share that two timings of one model differ by wherever their memory happens to lie."""


_MOST: Final = 2**62
# Field -> whether it is whole, and its range.
_RANGES: Final[Mapping[str, tuple[bool, float, float]]] = {
    "fidelity": (True, 0, 2),
    "accuracy": (False, 0.0, 1.0),
    "loss": (False, -_MOST, _MOST),
    **dict.fromkeys(("size_bytes", "macs", "n_params", "peak_memory_bytes"), (True, 0, _MOST)),
    **dict.fromkeys(("latency_ms", "baseline_latency_ms"), (False, 1e-9, _MOST)),
    **dict.fromkeys(
        ("latency_spread_ms", "latency_low_ms", "latency_high_ms"), (False, 0.0, _MOST)
    ),
    **dict.fromkeys(
        ("seconds", "train_images_per_s", "divergence", "untuned_divergence"), (False, 0.0, _MOST)
    ),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Figures of one candidate, taken on one machine.

    Attributes:
        fidelity: Training behind the figures: 0 none, 1 proxy fine-tune, 2 refine.
        accuracy: The task's metric of the PyTorch candidate on the validation split; higher is
            better, a share in [0, 1]. Exported files are scored themselves, by `export`.
        loss: Mean task loss on the validation split.
        divergence: Mean divergence of the outputs from the base model's on the validation split, in
            nats where outputs are classes: tells candidates of equal accuracy apart.
        untuned_divergence: The same before any tuning, on calibration data (the training-free
            score); None where there was none to take.
        size_bytes: Size of the packed file as written to disk.
        latency_ms: Time of one inference in the runtime: the measured ratio to the untouched
            model, timed in between, times `baseline_latency_ms`; None if it was not measured.
        latency_spread_ms: Interquartile range of that time.
        baseline_latency_ms: Median time of the original model; one figure for a whole run.
        latency_low_ms: Lower end of the 95 % confidence interval of `latency_ms`, from that of the
            median ratio. The original model's says how far a model is from itself, timed twice.
        latency_high_ms: Upper end.
        peak_memory_bytes: Most memory that loading and running it took, beyond the runtime's own.
        layer_bytes: How many of `size_bytes` the tensors of each of the base model's layers take, 0
            for one that is gone. What is left is the graph, its metadata, and what no layer owns.
        macs: Multiply-accumulate operations of one example, recounted on the candidate.
        n_params: Parameters of the candidate.
        seconds: Wall time of building, tuning and measuring.
        train_images_per_s: Throughput of the fine-tune; None if there was none.
        skipped: Requested techniques that were not applied, with the reason, one line each.
        has_half_batch: Whether it was tuned with half the batch, since memory had run out.
    """

    fidelity: Fidelity
    accuracy: float
    loss: float
    size_bytes: int
    latency_ms: float | None
    latency_spread_ms: float | None
    baseline_latency_ms: float | None
    macs: int
    n_params: int
    seconds: float
    train_images_per_s: float | None = None
    skipped: tuple[str, ...] = ()
    divergence: float | None = None
    untuned_divergence: float | None = None
    has_half_batch: bool = False
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None
    peak_memory_bytes: int | None = None
    layer_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse figures that are not numbers: a missing figure is None, never inf or NaN.

        Raises:
            TrialError: If a figure is NaN or infinite.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise TrialError(
                    "nonfinite_measurement", f"`{field.name}` was measured as {value}."
                )

    def without_latency(self, why: str) -> "Measurement":
        """The same without its times, which cannot be compared with others, and with the reason."""
        times = (f.name for f in dataclasses.fields(self) if "latency" in f.name)
        gone: dict[str, Any] = dict.fromkeys(times)
        note = f"latency not kept: {why}"
        return dataclasses.replace(self, **{**gone, "skipped": (*self.skipped, note)})

    @property
    def speedup(self) -> float | None:
        """Baseline latency over this latency, both taken interleaved in one run."""
        if self.latency_ms is None or self.baseline_latency_ms is None:
            return None
        return self.baseline_latency_ms / self.latency_ms

    def to_json(self) -> dict[str, Any]:
        """Plain containers only, for JSON."""
        return {**dataclasses.asdict(self), "skipped": list(self.skipped)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Measurement":
        """Inverse of `to_json`; a study may be damaged, or anybody's.

        Raises:
            ValueError: If a figure is none that can be measured.
            TypeError: If a field is missing or unknown.
        """
        found = cls(**{**data, "skipped": tuple(map(str, data.get("skipped", ())))})
        for name, (is_whole, least, most) in _RANGES.items():
            value = getattr(found, name)
            if value is None and name in _MAY_BE_MISSING:
                continue
            kinds = (int,) if is_whole else (int, float)
            is_number = isinstance(value, kinds) and not isinstance(value, bool)
            if not is_number or not least <= value <= most:
                msg = f"{name} cannot be {str(value)[:40]!r}"
                raise ValueError(msg)
        low, high = found.latency_low_ms, found.latency_high_ms
        if low is not None and high is not None and low > high:
            msg = f"the latency's interval cannot be from {low} to {high}"
            raise ValueError(msg)
        if not all(type(n) is int and 0 <= n <= _MOST for n in found.layer_bytes.values()):
            msg = "layer_bytes must hold sizes"
            raise ValueError(msg)
        return found


_MAY_BE_MISSING: Final = frozenset(
    field.name for field in dataclasses.fields(Measurement) if "None" in str(field.type)
)
