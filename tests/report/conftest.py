"""Synthetic runs: figures shaped like those of ResNet-20, drawn from a seeded generator."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autocompress.measurement import Fidelity, Measurement
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.space.sensitivity_table import Figures, MeasuredLevel, SensitivityTable
from tests import builders
from tests.builders import make_measurement, make_trial

INFO = {
    "task": "examples/02_cifar10_resnet20.py",
    "seed": 0,
    "budget": 50,
    "threads": 2,
    "versions": {"autocompress": "0.1.0", "torch": "2.13.0", "onnxruntime": "1.31.0"},
    "hardware": {"cpu": "x86-64, 2 cores", "features": ["avx512f", "amx_bf16"]},
    "splits": {"train": 45000, "val": 5000, "test": 10000, "is_val_carved": True},
    "fingerprints": {"model": "3f" * 32, "data": "a1" * 32, "space": "0c" * 32},
}
BASE = {"accuracy": 0.9173, "size_bytes": 1_079_000, "latency_ms": 0.75}
BLOCKS = [f"layer{i}.{j}" for i in (1, 2, 3) for j in (0, 1, 2)]
LAYERS = ("conv1", *(f"{block}.conv{k}" for block in BLOCKS for k in (1, 2)), "fc")


def space_of(layers: tuple[str, ...]) -> SearchSpace:
    groups = tuple(f"{layer}#out" for layer in layers[1:-1:2])
    bits = [
        Knob(kind="weight_bits", targets=(n,), levels=(32, 8, 6, 4, 3, 2), label=n) for n in layers
    ]
    ratios = [
        Knob(kind="pruning_ratio", targets=(g,), levels=(0.0, 0.25, 0.5), label=g) for g in groups
    ]
    shared = Knob(kind="activation_bits", targets=layers, levels=(32, 8), label="all layers")
    ranks = [Knob(kind="rank_ratio", targets=(layers[-1],), levels=(1.0, 0.5), label=layers[-1])]
    return SearchSpace(knobs=(*ratios, *ranks, *bits, shared))


def measure(
    rng: np.random.Generator, space: SearchSpace, levels: dict[str, int], fidelity: Fidelity = 1
) -> Measurement:
    """Figures that follow the plan roughly: fewer bits are smaller and, below 4, less accurate."""
    picked = {knob.name: knob.levels[levels[knob.name]] for knob in space.knobs}
    bits = np.array([v for n, v in picked.items() if n.startswith("weight_bits")])
    cut = np.array([v for n, v in picked.items() if n.startswith("pruning_ratio")])
    rank = next(v for n, v in picked.items() if n.startswith("rank_ratio"))
    keeps = float(np.mean(1 - cut) ** 2)
    loss_pt = float(np.mean(0.3 * np.exp2(4.0 - bits)) * 3 + 12 * np.mean(cut) ** 2)
    is_int8 = picked["activation_bits:all layers"] == 8
    touched = loss_pt > 1e-5
    accuracy = BASE["accuracy"] - (loss_pt + rng.normal(0, 0.15)) / 100 if touched else 0.9173
    latency = BASE["latency_ms"] * keeps**0.5 * (0.54 if is_int8 and bits.max() <= 8 else 1.0)
    return make_measurement(
        fidelity=fidelity,
        accuracy=round(float(np.clip(accuracy, 0.1, 1.0)), 4),
        loss=0.3 + loss_pt / 30,
        size_bytes=int(BASE["size_bytes"] * keeps * bits.mean() / 32) + 9000 * touched,
        latency_ms=round(latency * float(rng.normal(1, 0.01)), 4) if touched else 0.75,
        latency_spread_ms=0.012,
        baseline_latency_ms=0.75,
        macs=int(40_813_184 * keeps),
        n_params=int(272_474 * keeps),
        seconds=72.4,
        train_images_per_s=914.0 if touched else None,
        skipped=("rank_ratio: would not shrink it",) if rank < 1 else (),
        layer_bytes={knob.label: 1000 * picked[knob.name] for knob in _bit_knobs(space)},
    )


def _bit_knobs(space: SearchSpace) -> list[Knob]:
    return [knob for knob in space.knobs if knob.kind == "weight_bits"]


def make_synthetic_run(
    n_search: int = 20,
    *,
    objectives: str = "accuracy,size,latency",
    n_failed: int = 2,
    with_baseline: bool = True,
    with_controls: bool = True,
    name: str = "resnet20",
    layers: tuple[str, ...] = LAYERS,
    reason: str = "timeout: no answer after 600 s",
    label: str = "trial {}",
    seed: int = 0,
) -> RunRecord:
    rng, space = np.random.default_rng(seed), space_of(layers)
    untouched = {knob.name: 0 for knob in space.knobs}
    jobs: list[tuple[str, str, dict[str, int]]] = []
    if with_baseline:
        jobs.append(("baseline", "baseline", untouched))
    if with_controls:
        for bits, level in ((8, 1), (4, 3), (3, 4), (2, 5)):
            chosen = {n: level * n.startswith("weight_bits") for n in untouched}
            jobs.append(("control", f"uniform {bits} bit", chosen))
        chosen = {n: int(n.startswith(("weight_bits", "activation"))) for n in untouched}
        jobs.append(("control", "int8 post-training", chosen))
        chosen = {n: int(n.startswith("pruning")) for n in untouched}
        jobs.append(("control", "uniform pruning 25 %", chosen))
    for _ in range(n_search):
        bias = rng.uniform(0.1, 0.9)
        chosen = {
            k.name: int(min(len(k.levels) - 1, rng.binomial(len(k.levels) - 1, bias)))
            for k in space.knobs
        }
        jobs.append(("search", label, chosen))
    trials = []
    for number, (role, text, levels) in enumerate(jobs):
        measurement = measure(rng, space, levels, 0 if text == "int8 post-training" else 1)
        if "latency" not in objectives:
            measurement = dataclasses.replace(
                measurement, latency_ms=None, latency_spread_ms=None, baseline_latency_ms=None
            )
        trials.append(
            make_trial(
                number,
                measurement,
                role=role,
                label=text.format(number),
                levels=levels,
                plan=space.decode(levels),
            )
        )
    for number in range(len(jobs), len(jobs) + n_failed):
        trials.append(
            make_trial(
                number, role="search", label=label.format(number), levels=untouched, reason=reason
            )
        )
    return builders.make_run(
        *trials,
        objectives=objectives,
        name=name,
        folder=Path("results") / "resnet20",
        knobs=space.knobs,
        info=INFO,
    )


def with_longer_training(run: RunRecord) -> RunRecord:
    """The same run with its two smallest searched points refined, and the third validated."""
    searched = sorted(
        (t for t in run.complete if t.role == "search"),
        key=lambda t: (t.measurement.size_bytes, t.number),
    )

    def again(trial: TrialRecord, label: str, fidelity: Fidelity) -> TrialRecord:
        better = dataclasses.replace(
            trial.measurement,
            fidelity=fidelity,
            accuracy=min(1.0, trial.measurement.accuracy + 0.01),
        )
        return dataclasses.replace(trial, label=f"{trial.label}, {label}", measurement=better)

    return dataclasses.replace(
        run,
        refined=tuple(again(t, "refined", 2) for t in searched[:2]),
        validated=tuple(again(t, "40 epochs", 1) for t in searched[2:3]),
    )


def with_options(run: RunRecord) -> RunRecord:
    """The same run with a sensitivity table: stronger levels diverge more and are smaller."""
    layers = {target: 8000 for knob in run.knobs for target in knob.targets}
    base = Figures(divergence=0.0, size_bytes=9000 + sum(layers.values()), layer_bytes=layers,
                   latency_ratio=1.0)  # fmt: skip
    options = []
    for place, knob in enumerate(run.knobs):
        for level in range(1, len(knob.levels)):
            kept = {**layers, **dict.fromkeys(knob.targets, 8000 // (level + 1))}
            figures = Figures(divergence=1e-3 * 3.0**level / (1 + place), layer_bytes=kept,
                              size_bytes=9000 + sum(kept.values()), latency_ratio=0.9)  # fmt: skip
            options.append(MeasuredLevel(knob=knob.name, level=level, figures=figures))
    options[-1] = dataclasses.replace(options[-1], figures=None, reason="no kernel for <b>this</b>")
    # what does nothing alone was measured with 8-bit weights
    context = dataclasses.replace(base, divergence=2e-3)
    contexts = {k.name: context for k in run.knobs if k.kind == "activation_bits"}
    table = SensitivityTable(baseline=base, contexts=contexts, options=tuple(options), seconds=12.0)
    return dataclasses.replace(run, options=table)


@pytest.fixture
def add_options() -> Callable[[RunRecord], RunRecord]:
    """Gives a run a sensitivity table."""
    return with_options


@pytest.fixture
def train_longer() -> Callable[[RunRecord], RunRecord]:
    """Gives a run refined and validated trials."""
    return with_longer_training


@pytest.fixture
def make_run() -> Callable[..., RunRecord]:
    """The factory of synthetic runs."""
    return make_synthetic_run
