"""Overhead of a search per trial, besides training and measuring.

    python benchmarks/search_overhead.py --work FOLDER [--seconds 5] [--budget 24]

scikit-learn's digits are searched for real with 1 and 2 jobs; each trial is made to last some
seconds by waiting. The table shows how long workers were idle between two trials, probes not
counted; it is written to `results/`.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from published import result_path

from autocompress.evaluate.sensitivity import measure_levels
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.executors.job import EvaluationJob, Executor, OnStage, Outcome, ProbeJob
from autocompress.executors.registry import Resources, make_executor
from autocompress.executors.worker import WorkerSpec
from autocompress.measurement import Measurement
from autocompress.space.sensitivity_table import Figures
from autocompress.study.optimize import run_search
from autocompress.study.session import open_session, sensitivity_cache
from autocompress.study.stop_rules import StopRules
from autocompress.study.strategy import SearchMethod
from autocompress.study.study import Study
from autocompress.tasks.factory import load_task

_OBJECTIVES = "accuracy,size"
WAITING_TASK = """
import time
import torch
from sklearn.datasets import load_digits
from torch import nn
from autocompress import Task

def task(pause):
    def wait(inputs, generator):
        time.sleep(float(pause))
        return inputs
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16.0, dtype=torch.float32), torch.tensor(y)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(),
                          nn.Linear(32, 10))
    return Task(model=model, train=(x[:1280], y[:1280]), val=(x[1280:], y[1280:]), name="waits",
                batch_size=64, augment=wait, proxy_epochs=1)
"""
N_BATCHES = 20
"""Batches of one of its trials, each of which waits for `pause` seconds."""


class _Watched:
    """An executor whose trials and probes are timed."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.n_slots = executor.n_slots
        self.gaps: list[float] = []
        self.looks: list[float] = []
        self.seconds: list[float] = []
        self._began: dict[int, float] = {}
        self._ends: list[float] = []
        self._looked_s = 0.0

    def submit(self, number: int, job: EvaluationJob) -> None:
        now = time.perf_counter()
        if self._ends:  # the slot that has been free for the longest time
            self.gaps.append(now - self._ends.pop(0) - self._looked_s)
            self.looks.append(self._looked_s)
        self._looked_s = 0.0
        self._began[number] = now
        self._executor.submit(number, job)

    def wait(self, on_stage: OnStage, timeout_s: float | None = None) -> Outcome | None:
        outcome = self._executor.wait(on_stage, timeout_s)
        if outcome is not None:
            end = time.perf_counter()
            if isinstance(outcome.result, Measurement):
                self.seconds.append(outcome.result.seconds)
                end = min(end, self._began[outcome.number] + outcome.result.seconds)
            self._ends = sorted([*self._ends, end])
        return outcome

    def probe(self, job: ProbeJob) -> Figures:
        start = time.perf_counter()
        try:
            return self._executor.probe(job)
        finally:
            self._looked_s += time.perf_counter() - start

    def close(self) -> None:
        self._executor.close()


def _overhead(work: Path, jobs: int, seconds: float, budget: int) -> dict[str, Any]:
    """Search for real; how long workers had nothing to do between two trials."""
    path = work / "waiting_task.py"
    path.write_text(WAITING_TASK)
    arguments = {"pause": str(seconds / N_BATCHES)}
    settings = EvaluationSettings(threads=1, has_latency=False)
    session = open_session(load_task(str(path), arguments), "default", settings)
    identity = session.identity(run_seed=0, sampler="guided")
    worker = WorkerSpec(
        task=str(path), arguments=arguments, settings=settings, model=identity["model"]
    )
    executor = _Watched(make_executor("local", session.evaluator, worker, Resources(jobs=jobs)))
    folder = work / f"overhead-{jobs}"
    shutil.rmtree(folder, ignore_errors=True)
    info = session.info(str(path), arguments)
    try:
        with Study(folder, session.built.space, _OBJECTIVES, identity, info) as study:
            method = SearchMethod(
                sampler="guided",
                run_seed=0,
                measure_table=lambda probe: measure_levels(
                    study.space, probe, sensitivity_cache(session, has_latency=False)
                ),
                n_shortlisted=session.n_shortlisted,
            )
            run = run_search(study, executor, method, StopRules(budget=budget))
    finally:
        executor.close()
    gaps, looks = np.array(executor.gaps), np.array(executor.looks)
    trial_s = float(np.median(executor.seconds))
    proposed = gaps[-(budget // 2) :]
    return {
        "jobs": jobs,
        "trials": run.n_finished,
        "knobs": len(session.built.space.knobs),
        "median_trial_s": round(trial_s, 2),
        "median_overhead_s": round(float(np.median(proposed)), 3),
        "slowest_overhead_s": round(float(proposed.max()), 3),
        "overhead_percent": round(100.0 * float(proposed.mean()) / trial_s, 2),
        "median_looks_s": round(float(np.median(looks[-(budget // 2) :])), 3),
    }


def main() -> int:
    """Search with 1 and 2 jobs, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--budget", type=int, default=24)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = [_overhead(arguments.work, jobs, arguments.seconds, arguments.budget) for jobs in (1, 2)]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    table.to_csv(result_path("search-overhead", "csv"), index=False, lineterminator="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
