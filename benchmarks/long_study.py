"""What a study costs besides training and measuring: per trial, and when it has grown long.

    python benchmarks/long_study.py steps --work FOLDER [--trials 100 1000 10000] [--knobs 20]
    python benchmarks/long_study.py overhead --work FOLDER [--seconds 5] [--budget 24]

`steps` fills studies with made-up trials (only time counts) and times each step of a search on
them: opening, proposing, writing a trial, reading the run, the report. `overhead` searches
scikit-learn's digits for real with 1 and 2 jobs, where each trial is made to last some seconds by
waiting, and measures how long workers had nothing to do between trials. Both write a table to
`results/`.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from published import result_path
from quality.proposal_time import made_up_space, made_up_table

from autocompress.evaluate.sensitivity import measure_options
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.measurement import Measurement
from autocompress.report.page import write_report
from autocompress.search.driver import run_search
from autocompress.search.executors.job import EvaluationJob, Executor, OnStage, Outcome, ProbeJob
from autocompress.search.executors.table import Resources, make_executor
from autocompress.search.executors.worker import WorkerSpec
from autocompress.search.options import option_cache
from autocompress.search.records import load_run
from autocompress.search.sampler import distributions_of
from autocompress.search.session import open_session
from autocompress.search.study import Study
from autocompress.space.option_table import Figures, OptionTable
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import SearchSpace
from autocompress.tasks.factory import load_task

_OBJECTIVES = "accuracy,size"
_ADDED = 5


def main() -> int:
    """Run one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["steps", "overhead"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--knobs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--budget", type=int, default=24)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.part == "steps":
        rows = [_steps(arguments.work, n, arguments.knobs) for n in arguments.trials]
        name = "study-steps"
    else:
        rows = [
            _overhead(arguments.work, jobs, arguments.seconds, arguments.budget) for jobs in (1, 2)
        ]
        name = "search-overhead"
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    table.to_csv(result_path(name, "csv"), index=False, lineterminator="\n")
    return 0


# -- a study that has grown long


class _MadeUp:
    """Answers at once, from what the option table says."""

    n_slots = 1

    def __init__(self, predictor: Predictor, space: SearchSpace) -> None:
        self._predictor, self._space = predictor, space
        self._outcome: Outcome | None = None

    def submit(self, number: int, job: EvaluationJob) -> None:
        levels = self._space.encode(job.plan)
        self._outcome = Outcome(
            number=number, result=_measured(self._predictor, self._space, levels)
        )

    def wait(self, on_stage: OnStage, timeout_s: float | None = None) -> Outcome | None:
        return self._outcome

    def probe(self, job: ProbeJob) -> Figures:
        return _figures(self._predictor, self._space, self._space.encode(job.plan))

    def close(self) -> None:
        pass


def _figures(predictor: Predictor, space: SearchSpace, levels: Mapping[str, int]) -> Figures:
    row = np.array([[levels[knob.name] for knob in space.knobs]])
    return Figures(
        divergence=float(predictor.divergence(row)[0]),
        size_bytes=int(predictor.size_bytes(row)[0]),
        layer_bytes={},
    )


def _measured(predictor: Predictor, space: SearchSpace, levels: Mapping[str, int]) -> Measurement:
    figures = _figures(predictor, space, levels)
    assert figures.size_bytes is not None
    return Measurement(
        fidelity=1,
        accuracy=max(0.1, 0.95 - 0.05 * figures.divergence**0.6),
        loss=0.2,
        size_bytes=figures.size_bytes,
        latency_ms=None,
        latency_spread_ms=None,
        baseline_latency_ms=None,
        macs=1,
        n_params=1,
        seconds=1.0,
        divergence=figures.divergence,
        untuned_divergence=2.0 * figures.divergence,
    )


def _steps(work: Path, n_trials: int, n_knobs: int) -> dict[str, Any]:
    """Seconds of each step on a study of so many finished trials."""
    space = made_up_space(n_knobs)
    table = made_up_table(space)
    predictor = Predictor(space, table)
    folder = work / f"steps-{n_trials}"
    shutil.rmtree(folder, ignore_errors=True)
    _fill(folder, space, table, predictor, n_trials)

    row: dict[str, Any] = {"trials": n_trials, "knobs": n_knobs}
    start = time.perf_counter()
    study = _open(folder, space)
    study.__enter__()
    row["open_s"] = time.perf_counter() - start
    executor = _MadeUp(predictor, space)
    steps = []
    for extra in range(1, _ADDED + 1):
        start = time.perf_counter()
        run = run_search(
            study, executor, budget=n_trials + extra, sampler="guided", run_seed=0,
            measure_table=lambda probe: table,
        )  # fmt: skip
        steps.append(time.perf_counter() - start)
    assert run.n_finished == n_trials + _ADDED
    row["first_step_s"], row["step_s"] = steps[0], float(np.median(steps[1:]))
    study.__exit__()
    row["read_s"] = _seconds(lambda: load_run(folder))
    row["report_s"] = _seconds(lambda: write_report(run, folder / "report.html", ()))
    row["report_mb"] = (folder / "report.html").stat().st_size / 1e6
    row["study_mb"] = (folder / "study.db").stat().st_size / 1e6
    print(row, flush=True)
    return {
        key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()
    }


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _open(folder: Path, space: SearchSpace) -> Study:
    info = {"task": "made-up", "task_name": "made-up", "arguments": {}, "options": {}}
    return Study(folder, space, _OBJECTIVES, {"seed": 0, "sampler": "guided"}, info)


def _fill(
    folder: Path, space: SearchSpace, table: OptionTable, predictor: Predictor, n_trials: int
) -> None:
    """Write finished trials of random plans, the baseline first."""
    random = np.random.default_rng(0)
    distributions = distributions_of(space)
    with _open(folder, space) as study:
        study.keep_option_table(table)
        for number in range(n_trials):
            levels = {
                knob.name: int(random.integers(len(knob.levels))) if number else 0
                for knob in space.knobs
            }
            measured = _measured(predictor, space, levels)
            study._study.add_trial(
                optuna.trial.create_trial(
                    values=[measured.accuracy, measured.size_bytes],
                    params=levels,
                    distributions=distributions,
                    user_attrs={
                        "role": "search" if number else "baseline",
                        "label": f"trial {number}" if number else "baseline",
                        "fidelity": 1,
                        "attempts": 1,
                        "plan": space.decode(levels).to_json(),
                        "measurement": measured.to_json(),
                    },
                )
            )


# -- what a search adds to trials of some seconds


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
    """An executor whose trials and looks are timed."""

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
            run = run_search(
                study, executor, budget=budget, sampler="guided", run_seed=0,
                measure_table=lambda probe: measure_options(
                    study.space, probe, option_cache(session, has_latency=False)
                ),
                n_shortlisted=session.n_shortlisted,
            )  # fmt: skip
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


if __name__ == "__main__":
    raise SystemExit(main())
