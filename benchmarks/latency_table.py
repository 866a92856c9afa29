"""How well the sensitivity table predicts latency, and how long a candidate's graph takes.

    python benchmarks/latency_table.py table results/RUN    # the table against whole plans
    python benchmarks/latency_table.py table results/RUN --again    # measured again, here
    python benchmarks/latency_table.py graphs results/RUN   # graphs derived, against exported

Results are merged into results/latency-table-*.csv and results/graph-derivation-*.csv.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from latency import publish
from torch import Tensor

from autocompress.evaluate.sensitivity import OptionCache, measure_options
from autocompress.run_record import RunRecord
from autocompress.runtime.onnx_export import export_onnx, make_templates
from autocompress.space.option_table import OptionTable
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import Method, SearchSpace
from autocompress.study.records import load_run
from autocompress.study.session import reopen


def table_rows(folder: Path, *, is_again: bool) -> Iterator[dict[str, Any]]:
    """Measured latency of every trial against the sensitivity table's prediction for its plan."""
    run = load_run(folder)
    predictor = measured_again(run) if is_again else predictor_of(run)
    errors = []
    for trial in run.complete:
        figures = trial.measurement
        if trial.role == "baseline" or figures is None or figures.speedup is None:
            continue
        levels = predictor.space.encode(trial.plan)
        position = np.array([[levels[k.name] for k in run.knobs]])
        est = float(predictor.latency_ratio(position)[0])
        errors.append(abs(est * figures.speedup - 1.0))
        yield {
            "net": run.info["task_name"],
            "trial": trial.number,
            "label": trial.label,
            "latency_ratio": 1.0 / figures.speedup,
            "est_latency_ratio": est,
        }
    print(f"{len(errors)} trials: median absolute error {statistics.median(errors):.1%}")


def predictor_of(run: RunRecord) -> Predictor:
    """Predictions of the run's own sensitivity table."""
    storage = f"sqlite:///{run.folder / 'study.db'}"
    (name,) = optuna.get_all_study_names(storage)
    kept = optuna.load_study(study_name=name, storage=storage).user_attrs["option_table"]
    return Predictor(_space(run), OptionTable.from_json(kept))


def measured_again(run: RunRecord) -> Predictor:
    """What a table says that is measured now: the run's own may be of older code, or a busy day."""
    _, evaluator = reopen(run)
    torch.set_num_threads(evaluator.settings.threads)
    space = _space(run)
    with tempfile.TemporaryDirectory() as scratch:
        table = measure_options(
            space,
            lambda plan: evaluator.probe(plan, has_size=True, has_latency=True),
            OptionCache("again", Path(scratch) / "options.jsonl"),
            on_progress=lambda n, n_plans, label: print(f"{n} of {n_plans} {label}", flush=True),
        )
    return Predictor(space, table)


def _space(run: RunRecord) -> SearchSpace:
    methods = run.info.get("methods", ())
    return SearchSpace(knobs=run.knobs, methods=tuple(Method(**method) for method in methods))


def graph_rows(folder: Path, n_times: int = 5) -> Iterator[dict[str, Any]]:
    """Seconds to get a candidate's graph: exported, and derived from a template."""
    run = load_run(folder)
    prepared, evaluator = reopen(run)
    model = evaluator.model
    x: tuple[Tensor, ...] = prepared.example_inputs
    templates = make_templates()
    export_onnx(model, x, {}, templates)
    exported, derived = [], []
    for _ in range(n_times):
        start = time.perf_counter()
        export_onnx(model, x, {})
        exported.append(time.perf_counter() - start)
        start = time.perf_counter()
        export_onnx(model, x, {}, templates)
        derived.append(time.perf_counter() - start)
    assert templates.n_derived == n_times
    ratios = [a / b for a, b in zip(exported, derived, strict=True)]
    yield {
        "net": run.info["task_name"],
        "exported_s": statistics.median(exported),
        "derived_s": statistics.median(derived),
        "faster": statistics.median(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["table", "graphs"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--again", action="store_true", help="measure the table on this machine")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    if given.what == "table":
        publish(
            "latency-table", list(table_rows(given.folder, is_again=given.again)), ["net", "trial"]
        )
    else:
        publish("graph-derivation", list(graph_rows(given.folder)), ["net"])


if __name__ == "__main__":
    main()
