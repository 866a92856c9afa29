"""CPU seconds of one proposal by number of finished trials, which are synthetic."""

import json
import time
from pathlib import Path

import numpy as np
import optuna

from autocompress.measurement import Measurement
from autocompress.objective import Limits
from autocompress.samplers.guided.look import Look
from autocompress.samplers.propose import Guidance, distributions_of, propose_levels
from autocompress.space.option_table import Figures, Option, OptionTable
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import Knob, SearchSpace

_N_KNOBS = 60
_REPEATS = 5
_LOOKS_PER_TRIAL = 4


def measure_proposals(work: Path) -> None:
    """Write one row per sampler and number of trials: median and slowest of a few proposals."""
    space = made_up_space()
    predictor = Predictor(space, made_up_table(space))
    rows = []
    for sampler, counts in (("guided", (50, 200, 1000)), ("tpe", (50, 200, 1000))):
        for n_trials in counts:
            trials = _trials(space, predictor, n_trials)
            guidance = Guidance(
                predictor=predictor,
                costs=("size_bytes",),
                limits=Limits(),
                looks=_looks(space, predictor, _LOOKS_PER_TRIAL * n_trials),
            )
            seconds = []
            for repeat in range(_REPEATS):
                start = time.process_time()
                propose_levels(
                    space,
                    sampler,
                    ["maximize", "minimize"],
                    trials,
                    run_seed=repeat,
                    number=n_trials,
                    guidance=guidance,
                )
                seconds.append(time.process_time() - start)
            row = {
                "sampler": sampler,
                "knobs": _N_KNOBS,
                "trials": n_trials,
                "median_cpu_s": round(float(np.median(seconds)), 3),
                "slowest_cpu_s": round(max(seconds), 3),
            }
            print(row, flush=True)
            rows.append(row)
    work.mkdir(parents=True, exist_ok=True)
    (work / "proposals.json").write_text(json.dumps(rows))


def made_up_space(n_knobs: int = _N_KNOBS) -> SearchSpace:
    """Bits for two thirds of the knobs, ranks for the rest."""
    bits = (32, 8, 6, 5, 4, 3, 2)
    layers = [f"layer{i}" for i in range(n_knobs * 2 // 3)]
    groups = layers[: n_knobs - len(layers)]
    return SearchSpace(
        knobs=(
            *(Knob(kind="weight_bits", targets=(la,), levels=bits, label=la) for la in layers),
            *(
                Knob(kind="rank_ratio", targets=(la,), levels=(1.0, 0.5, 0.25), label=la)
                for la in groups
            ),
        )
    )


def made_up_table(space: SearchSpace) -> OptionTable:
    """A sensitivity table of a space like that."""
    random = np.random.default_rng(0)
    layers = {knob.targets[0]: 40_000 for knob in space.knobs}

    def figures(knob: Knob, level: int) -> Figures:
        value, full = float(knob.levels[level]), float(knob.levels[0])
        held = {**layers, knob.targets[0]: int(40_000 * value / full)}
        harm = float(np.exp(random.normal()) * (1.0 - value / full) ** 8)
        return Figures(divergence=harm, size_bytes=sum(held.values()) + 999, layer_bytes=held)

    return OptionTable(
        baseline=Figures(divergence=0.0, size_bytes=sum(layers.values()) + 999, layer_bytes=layers),
        contexts={},
        options=tuple(
            Option(knob=knob.name, level=level, figures=figures(knob, level))
            for knob in space.knobs
            for level in range(1, len(knob.levels))
        ),
        seconds=0.0,
    )


def _looks(space: SearchSpace, predictor: Predictor, n: int) -> list[Look]:
    random = np.random.default_rng(n)
    columns = [random.integers(len(knob.levels), size=n) for knob in space.knobs]
    levels = np.stack(columns, axis=1)
    sizes, harms = predictor.size_bytes(levels), predictor.divergence(levels)
    return [
        Look(
            levels={k.name: int(i) for k, i in zip(space.knobs, row, strict=True)},
            divergence=float(harm * np.exp(0.1 * random.normal())),
            size_bytes=int(size),
            has_chance=False,
        )
        for row, size, harm in zip(levels, sizes, harms, strict=True)
    ]


def _trials(space: SearchSpace, predictor: Predictor, n: int) -> list[optuna.trial.FrozenTrial]:
    random = np.random.default_rng(n)
    columns = [random.integers(len(knob.levels), size=n) for knob in space.knobs]
    levels = np.stack(columns, axis=1)
    levels[0] = 0
    harms, sizes = predictor.divergence(levels), predictor.size_bytes(levels)
    trials = []
    for row, harm, size in zip(levels, harms, sizes, strict=True):
        measured = Measurement(
            fidelity=1,
            accuracy=float(0.95 - 0.1 * harm / (1 + harm)),
            loss=float(harm),
            size_bytes=int(size),
            latency_ms=None,
            latency_spread_ms=None,
            baseline_latency_ms=None,
            macs=1,
            n_params=1,
            seconds=1.0,
            divergence=float(harm * np.exp(0.3 * random.normal())),
            untuned_divergence=float(harm),
        )
        trials.append(
            optuna.trial.create_trial(
                params={k.name: int(i) for k, i in zip(space.knobs, row, strict=True)},
                distributions=distributions_of(space),
                values=[measured.accuracy, measured.size_bytes],
                user_attrs={"measurement": measured.to_json()},
            )
        )
    return trials
