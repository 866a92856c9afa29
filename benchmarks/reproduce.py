"""The README's table of searches from nothing: several seeds, medians and ranges.

    python benchmarks/reproduce.py [--task digits] [--seeds 5] [--budget 50] [--data FOLDER]
    python benchmarks/reproduce.py --table

Each seed is a search of its own with an empty cache, so that nothing is known from the one before:
a second run on one machine repeats the first, since timings of structures are kept. For each seed
the smallest and the fastest point within 0.5 and 1 point of the baseline are chosen on val, and
beside each the best control: the curve of one rate penalty, uniform bits, uniform pruning, dropped
blocks. The search's own are exported and scored once on test. What is finished is not repeated.
"""

import argparse
import csv
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import autocompress as ac
from autocompress.objective import LATENCY, SIZE, Objective
from autocompress.report.findings import cheapest_within, gain
from autocompress.run_record import RunRecord, TrialRecord

_TASKS = {
    "digits": ("digits", {}),
    "resnet20": (str(Path(__file__).parents[1] / "examples" / "02_cifar10_resnet20.py"), {}),
}
_DROPS = (0.005, 0.01)
_COLUMNS = (
    *("task", "seed", "n_trials", "minutes", "processor", "cost", "within_points"),
    *("search", "best_control", "control", "val_points_lost", "test_points_lost"),
)


def run(name: str, seed: int, budget: int, data: Path | None, folder: Path) -> None:
    """Search with one seed, or go on with it, and write its rows."""
    report = folder / f"{name}-{seed}.json"
    if report.is_file():
        return
    os.environ["AUTOCOMPRESS_CACHE"] = str((folder / f"cache-{name}-{seed}").resolve())
    task, arguments = _TASKS[name]
    if data is not None:
        arguments = {**arguments, "data": str(data.resolve())}
    start = time.monotonic()
    found = ac.search(
        task,
        budget=budget,
        seed=seed,
        threads=1,
        results=folder,
        name=f"{name}-{seed}",
        arguments=arguments,
    )
    minutes = (time.monotonic() - start) / 60.0
    rows = [
        _row(found, cost, drop, {"task": name, "seed": seed, "minutes": round(minutes, 1)})
        for cost in (SIZE, LATENCY)
        for drop in _DROPS
    ]
    report.write_text(json.dumps(rows, indent=1))


def _row(found: ac.Result, cost: Objective, drop: float, facts: dict[str, Any]) -> dict[str, Any]:
    run = found.run
    searched = [t for t in run.feasible if t.role == "search"]
    controls = [t for t in run.controls if run.is_feasible(t)]
    ours, theirs = (cheapest_within(run, ts, cost, drop) for ts in (searched, controls))
    row = {
        **facts,
        "n_trials": run.n_finished,
        "processor": run.info["hardware"]["processor"],
        "cost": cost.name,
        "within_points": 100.0 * drop,
        "search": _ratio(run, ours, cost),
        "best_control": _ratio(run, theirs, cost),
        "control": "" if theirs is None else theirs.label,
        "val_points_lost": None,
        "test_points_lost": None,
    }
    if ours is not None:
        assert run.baseline is not None
        assert run.baseline.measurement is not None
        assert ours.measurement is not None
        lost = run.baseline.measurement.accuracy - ours.measurement.accuracy
        manifest = found.export(ours.number).manifest
        on_test = manifest["baseline"]["test_accuracy"] - manifest["measurements"]["test_accuracy"]
        row |= {
            "val_points_lost": round(100.0 * lost, 2),
            "test_points_lost": round(100.0 * on_test, 2),
        }
    return row


def _ratio(run: RunRecord, trial: TrialRecord | None, cost: Objective) -> float | None:
    ratio = None if trial is None else gain(run, trial, cost)
    return None if ratio is None else round(ratio, 2)


def table(folder: Path) -> None:
    """Print medians and ranges, and write all rows beside the runs."""
    rows = [row for path in sorted(folder.glob("*-*.json")) for row in json.loads(path.read_text())]
    kinds = dict.fromkeys((r["task"], r["cost"], r["within_points"]) for r in rows)
    for kind in kinds:
        alike = [r for r in rows if (r["task"], r["cost"], r["within_points"]) == kind]
        print(
            f"{kind[0]}, {kind[1]} within {kind[2]:g} pt, {len(alike)} seeds: "
            f"search {_spread(alike, 'search')}, best control {_spread(alike, 'best_control')}; "
            f"points lost on test {_spread(alike, 'test_points_lost')}"
        )
    with (folder / "reproduce.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _spread(rows: list[dict[str, Any]], column: str) -> str:
    known = [row[column] for row in rows if row[column] is not None]
    if not known:
        return "none"
    missing = f", none in {len(rows) - len(known)}" if len(known) < len(rows) else ""
    return f"{statistics.median(known):.2f} ({min(known):.2f} to {max(known):.2f}{missing})"


def main() -> int:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=_TASKS, default="digits")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("results/reproduce"))
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not arguments.table:
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            run(arguments.task, seed, arguments.budget, arguments.data, arguments.folder)
    table(arguments.folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
