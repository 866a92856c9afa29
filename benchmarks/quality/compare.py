"""One search of 50 trials on the bench: the same parts as `autocompress search`, in one process.

Evaluations come from a `Lab`, which trains a plan once per repeat and remembers what it took, so
that all searches of a repeat see the same figures for the same plan.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import Protocol

import numpy as np
import optuna

import autocompress
from autocompress.atomic_file import write_atomically
from autocompress.errors import TrialError
from autocompress.evaluate.dominance import Rival, Rivals
from autocompress.executors.job import ProbeJob
from autocompress.measurement import Measurement
from autocompress.objective import Limits
from autocompress.pareto import hypervolume, non_dominated
from autocompress.plan import CompressionPlan
from autocompress.samplers.guided.look import Look
from autocompress.samplers.initial_design import make_seeds, next_seed, swept_levels
from autocompress.samplers.propose import Guidance, distributions_of, propose_levels
from autocompress.space.option_table import Figures, OptionTable
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import SearchSpace
from autocompress.study.strategy import judged, look_at
from quality.samplers import Config

REGION = 0.1
"""Accuracy counts down to this share below the baseline's."""


class Bench(Protocol):
    """Where evaluations come from."""

    space: SearchSpace
    n_shortlisted: int

    def evaluate(self, plan: CompressionPlan, seed: int, fidelity: int = 1) -> Measurement: ...

    def probe(self, plan: CompressionPlan) -> tuple[Figures | None, float]: ...


def volume(points: list[Measurement], base: Measurement) -> float:
    """Mean halvings of the file over all accuracies down to 10 % below the baseline's.

    The hypervolume over accuracy and log2(size), divided by the width of the accuracy range.
    """
    width = REGION * base.accuracy
    costs = [[-m.accuracy, np.log2(m.size_bytes / base.size_bytes)] for m in points]
    return hypervolume(np.array(costs), np.array([width - base.accuracy, 0.0])) / width


def linear_volume(points: list[Measurement], base: Measurement) -> float:
    """Hypervolume over accuracy and size as shares of the baseline's, down to accuracy 0."""
    costs = [[-m.accuracy / base.accuracy, m.size_bytes / base.size_bytes] for m in points]
    return hypervolume(np.array(costs), np.array([0.0, 1.0]))


def run_search(
    bench: Bench, table: OptionTable, config: Config, repeat: int, budget: int
) -> list[dict]:
    """One row per trial: what was measured, the hypervolume and the seconds so far."""
    space = bench.space
    predictor = Predictor(space, table)
    uses_table = config.has_table or config.has_seeds
    swept = swept_levels(predictor, Limits(), has_latency=False) if config.has_seeds else []
    upcoming, last = list(make_seeds(space, swept)), None
    spent = table.seconds if uses_table else 0.0
    tuned: list[Measurement] = []
    finished, stopped, rows = [], [], []
    looks: list[Look] = []
    for number in range(budget):
        seed = next_seed(upcoming, last)
        fidelity, label, is_proposed = 1, f"trial {number}", seed is None
        last = "search" if seed is None else seed.role
        start = time.process_time()
        looked: list[float] = []  # what looks took when they were taken, and what they took here
        inside: list[float] = []
        if seed is not None:
            upcoming.remove(seed)
            levels, fidelity, label = dict(seed.levels), seed.fidelity, seed.label
        else:
            looking = (
                _looking(bench, looked, inside, looks, _rivals(tuned))
                if config.has_ladder
                else None
            )
            guidance = Guidance(
                predictor=predictor if config.has_table else None,
                costs=("size_bytes",),
                limits=Limits(),
                is_learning=config.is_learning,
                looks=tuple(looks),
                look_at=looking,
                n_shortlisted=bench.n_shortlisted,
            )
            levels = propose_levels(
                space,
                config.sampler,
                ["maximize", "minimize"],
                finished,
                run_seed=repeat,
                number=number,
                failed=[
                    *stopped,
                    *(look.levels for look in looks if look.divergence is None),
                    *(dict(seed.levels) for seed in upcoming),
                ],
                guidance=guidance,
            )
            if levels is None:
                break
        proposing = time.process_time() - start - sum(inside)
        plan = space.decode(levels)
        rivals = _rivals(tuned) if config.has_ladder and is_proposed else None
        is_looked_at = any(look.levels == levels for look in looks)
        result, seconds = _evaluate(bench, plan, repeat, fidelity, rivals, is_looked_at)
        spent += seconds + sum(looked) + proposing
        if result is None:
            stopped.append(levels)
        elif fidelity == 1:
            tuned.append(result)
            finished.append(_trial(space, levels, result))
        rows.append(
            {
                "trial": number,
                "label": label,
                "accuracy": result and result.accuracy,
                "size_bytes": result and result.size_bytes,
                "volume": volume(tuned, tuned[0]),
                "linear_volume": linear_volume(tuned, tuned[0]),
                "seconds": spent,
                "table_seconds": table.seconds if uses_table else 0.0,
            }
        )
    return rows


def _looking(
    bench: Bench, looked: list[float], inside: list[float], looks: list[Look], rivals: Rivals
):
    def probe(job: ProbeJob) -> Figures:
        start = time.process_time()
        figures, seconds = bench.probe(job.plan)
        inside.append(time.process_time() - start)
        looked.append(seconds)
        if figures is None:
            raise TrialError("probe", "It could not be built.")
        return figures

    def looking(plans):
        for levels in plans:
            look = next((look for look in looks if look.levels == levels), None)
            look = look or look_at(levels, bench.space.decode(levels), probe)
            looks.append(judged(look, rivals))
        return looks[-len(plans) :]

    return looking


def _evaluate(
    bench: Bench,
    plan: CompressionPlan,
    repeat: int,
    fidelity: int,
    rivals: Rivals | None,
    is_looked_at: bool,
) -> tuple[Measurement | None, float]:
    """Measure a plan, unless it is hopeless; and the seconds that took.

    An evaluation probes the plan, too, but without packing it; so the whole probe is counted on
    top, which is more than it takes, once.
    """
    seconds = 0.0
    if rivals is not None:
        figures, spent = bench.probe(plan)
        seconds = 0.0 if is_looked_at else spent
        if figures is not None:
            try:
                rivals.check(figures)
            except TrialError:
                return None, seconds
    try:
        result = bench.evaluate(plan, repeat, fidelity)
    except TrialError:
        return None, seconds
    return result, seconds + result.seconds


def _rivals(tuned: list[Measurement]) -> Rivals:
    costs = np.array([[-m.accuracy, m.size_bytes] for m in tuned])
    front = [m for m, kept in zip(tuned, non_dominated(costs), strict=True) if kept]
    return Rivals(
        front=tuple(
            Rival(label="front", accuracy=m.accuracy, size_bytes=m.size_bytes, latency_ratio=None)
            for m in front
        ),
        history=tuple(
            (m.untuned_divergence, m.accuracy) for m in tuned if m.untuned_divergence is not None
        ),
        has_latency=False,
    )


def _trial(space: SearchSpace, levels: dict[str, int], result: Measurement):
    return optuna.trial.create_trial(
        params=levels,
        distributions=distributions_of(space),
        values=[result.accuracy, result.size_bytes],
        user_attrs={"measurement": result.to_json()},
    )


def code_digest() -> str:
    """sha256 in hex, 12 digits, over the sources that decide a search."""
    root = Path(autocompress.__file__).parent
    digest = hashlib.sha256()
    for room in ("compress", "evaluate", "packing", "search/guided", "space", "train"):
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def run_all(
    bench: Bench,
    table: OptionTable,
    configs: list[Config],
    repeats: list[int],
    budget: int,
    folder: Path,
) -> None:
    """Run what is missing: one JSON file per config and repeat."""
    folder.mkdir(parents=True, exist_ok=True)
    for repeat in repeats:
        for config in configs:
            path = folder / f"{config.name.replace(' ', '_')}-{repeat}.json"
            if path.exists():
                continue
            start = time.perf_counter()
            rows = run_search(bench, table, config, repeat, budget)
            search = {"config": config.name, "repeat": repeat, "code": code_digest(), "rows": rows}
            write_atomically(path, json.dumps(search))
            print(
                f"{config.name:32} {repeat} volume {rows[-1]['volume']:.3f} "
                f"after 10: {rows[min(9, len(rows) - 1)]['volume']:.3f} "
                f"{rows[-1]['seconds']:.0f} s, here {time.perf_counter() - start:.0f} s",
                flush=True,
            )
