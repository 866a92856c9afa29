"""What each step of a search costs on a study that has grown long.

    python benchmarks/long_study.py --work FOLDER [--trials 100 1000 10000] [--knobs 20]

Studies are filled with made-up trials (only time counts), and each step of a search on them is
timed: opening, proposing and writing a trial, reading the run, the report. The table is written to
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

from autocompress.executors.job import EvaluationJob, OnStage, Outcome, ProbeJob
from autocompress.measurement import Measurement
from autocompress.report.page import write_report
from autocompress.samplers.propose import distributions_of
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import SearchSpace
from autocompress.space.sensitivity_table import Figures, SensitivityTable
from autocompress.study.optimize import run_search
from autocompress.study.records import load_run
from autocompress.study.stop_rules import StopRules
from autocompress.study.strategy import SearchMethod
from autocompress.study.study import Study

_OBJECTIVES = "accuracy,size"
_ADDED = 5


def main() -> int:
    """Fill, time, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--knobs", type=int, default=20)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([_steps(arguments.work, n, arguments.knobs) for n in arguments.trials])
    print(table.to_string(index=False))
    table.to_csv(result_path("study-steps", "csv"), index=False, lineterminator="\n")
    return 0


class _MadeUp:
    """Answers at once, from what the sensitivity table says."""

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
        method = SearchMethod(sampler="guided", run_seed=0, measure_table=lambda probe: table)
        run = run_search(study, executor, method, StopRules(budget=n_trials + extra))
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
    folder: Path, space: SearchSpace, table: SensitivityTable, predictor: Predictor, n_trials: int
) -> None:
    """Write finished trials of random plans, the baseline first."""
    random = np.random.default_rng(0)
    distributions = distributions_of(space)
    with _open(folder, space) as study:
        study.keep_sensitivity_table(table)
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


if __name__ == "__main__":
    raise SystemExit(main())
