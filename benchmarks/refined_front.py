"""What ships after equal time: a search with refinement against refining what needs no search.

    python benchmarks/refined_front.py --net resnet20 --system search --seed 0 --data FOLDER
    python benchmarks/refined_front.py --table [--out FILE.csv]

Three systems have the same time, all of it counted, on one thread:

- `search`: `autocompress search --time T`.
- `penalties`: T spent refining four plans of one rate penalty each (0.015, 0.03, 0.055, 0.1).
- `depth`: T spent refining 8-bit integers without, and with the one, two and three blocks of least
  divergence dropped.

Each ships at most six points. They are chosen on val, exported, scored once on test and timed in
fresh processes. Figures: hypervolume on test (see docs/concepts.md), and the smallest and fastest
point within 0.5 and 1 point of the baseline. A run that was stopped goes on; one that is finished
is not repeated. `--table` puts all finished ones together.
"""

import argparse
import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import autocompress as ac
from autocompress.accuracy_scale import accuracy_scale
from autocompress.pareto import hypervolume
from autocompress.run_record import TrialRecord

_EXAMPLES = Path(__file__).parents[1] / "examples"
_NETS: dict[str, tuple[str, dict[str, str], float]] = {
    # name: (task, arguments, minutes)
    "resnet20": ("02_cifar10_resnet20.py", {}, 30.0),
    "resnet56": ("02_cifar10_resnet20.py", {"depth": "56"}, 90.0),
    "vit": ("07_vit.py", {}, 30.0),
}
_SYSTEMS = ("search", "penalties", "depth")
_MOST_SHIPPED = 6
_DROPS = (0.005, 0.01)
_PENALTIES = """version: 1
rules:
  - match: {name: "*"}
    weight_bits: [8]
    activation_bits: [8]
    rate_price: [0.015, 0.03, 0.055, 0.1]
    shared: [weight_bits, activation_bits, rate_price]
"""
_DEPTH = """version: 1
rules:
  - match: {name: "*"}
    drop_block: true
    weight_bits: [8]
    activation_bits: [8]
    shared: [weight_bits, activation_bits]
"""


def run(net: str, system: str, seed: int, minutes: float, data: Path, folder: Path) -> None:
    """Do one run, or the rest of it, and write what it ships."""
    task, arguments, _ = _NETS[net]
    name = f"{net}-{system}-{seed}"
    report = folder / f"{name}.json"
    if report.is_file():
        print(f"{report} is there already.")
        return
    where: dict[str, Any] = {
        "results": folder,
        "name": name,
        "seed": seed,
        "threads": 1,
        "arguments": {"data": str(data), **arguments},
    }
    start = time.process_time() + _child_seconds()
    found = _search(system, str(_EXAMPLES / task), 60.0 * minutes, folder, where)
    seconds = time.process_time() + _child_seconds() - start
    points = [_shipped(found, trial) for trial in _choose(found)]
    base = found.run.baseline
    assert base is not None
    document = {
        "net": net,
        "system": system,
        "seed": seed,
        "minutes": minutes,
        "cpu_seconds_of_last_session": seconds,
        "baseline": points[0]["baseline"],
        "points": points,
    }
    report.write_text(json.dumps(document, indent=1))
    print(json.dumps(_row(document)))


def _child_seconds() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _search(
    system: str, task: str, seconds: float, folder: Path, where: dict[str, Any]
) -> ac.Result:
    if system == "search":
        return ac.search(task, budget=1000, time=seconds, **where)
    space = folder / f"{system}.yaml"
    space.write_text(_PENALTIES if system == "penalties" else _DEPTH)
    labels = ("rate penalty", "int8, ", "uniform 7 bit", "uniform 8 bit")
    budget, left_out = 2, {"initial_design", "early_stopping", "surrogate"}
    while True:  # controls take turns with proposals, which are of no use here
        found = ac.search(task, budget=budget, space=space, without=left_out, **where)
        trials = [
            t for t in found.run.trials
            if t.role == "control" and t.measurement and t.label.startswith(labels)
            and t.label != "int8 post-training"
            and (system == "depth") != t.label.startswith("rate penalty")
        ]  # fmt: skip
        if len(trials) >= 4 or budget > 14:
            break
        budget += 1
    minutes = (seconds - found.run.seconds) / 60.0 / len(trials)
    return found.refine(*(t.number for t in trials), minutes=minutes, seed=where["seed"])


def _choose(found: ac.Result) -> list[TrialRecord]:
    """At most six trials that together dominate most on val, refined ones by those figures."""
    run = found.run
    refined = {trial.number: trial for trial in run.refined}
    left = [refined.get(t.number, t) for t in run.front() if t.role != "baseline"]
    left += [t for t in run.refined if t.number not in {x.number for x in left}]
    chosen: list[TrialRecord] = []
    while left and len(chosen) < _MOST_SHIPPED:
        volumes = [run.hypervolume((*chosen, trial)) for trial in left]
        chosen.append(left.pop(int(np.argmax(volumes))))
    return chosen


def _shipped(found: ac.Result, trial: TrialRecord) -> dict[str, Any]:
    bundle = found.export(trial.number)
    measured, base = bundle.manifest["measurements"], bundle.manifest["baseline"]
    return {
        "trial": trial.number,
        "label": trial.label,
        "fidelity": bundle.manifest["fidelity"],
        "plan": trial.plan.to_json(),
        "baseline": base,
        "accuracy": measured["test_accuracy"],
        "size_bytes": measured["size_bytes"],
        "latency_ratio": measured["latency_ms"] / measured["baseline_latency_ms"],
    }


def _row(document: dict[str, Any]) -> dict[str, Any]:
    base, points = document["baseline"], document["points"]
    scale = accuracy_scale(base["test_accuracy"])
    figures = np.array(
        [
            (
                1.0 - float(scale.worth(np.array(p["accuracy"]))),
                np.log2(p["size_bytes"] / base["size_bytes"]),
                np.log2(p["latency_ratio"]),
            )
            for p in points
        ]
    )
    corner = np.array([1.0, 1.0, 1.0])
    untouched = np.zeros((1, 3))
    volume = hypervolume(np.concatenate([untouched, figures]), corner)
    row: dict[str, Any] = {key: document[key] for key in ("net", "system", "seed", "minutes")}
    row["n_points"] = len(points)
    row["hypervolume"] = round(volume - hypervolume(untouched, corner), 3)
    for drop in _DROPS:
        fine = [p for p in points if base["test_accuracy"] - p["accuracy"] <= drop + 1e-9]
        within = f"within_{100 * drop:g}_pt"
        row[f"smaller_{within}"] = _best(base["size_bytes"] / p["size_bytes"] for p in fine)
        row[f"faster_{within}"] = _best(1.0 / p["latency_ratio"] for p in fine)
    return row


def _best(ratios: Iterator[float]) -> float | str:
    found = max(ratios, default=None)
    return "none" if found is None else round(found, 2)


def main() -> int:
    """Do one run, or print the table of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", choices=_NETS)
    parser.add_argument("--system", choices=_SYSTEMS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("results/refined-front"))
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not arguments.table:
        if None in (arguments.net, arguments.system, arguments.data):
            parser.error("--net, --system and --data must be given, or --table")
        torch.set_num_threads(1)
        arguments.folder.mkdir(parents=True, exist_ok=True)
        minutes = arguments.minutes or _NETS[arguments.net][2]
        run(
            *(arguments.net, arguments.system, arguments.seed, minutes),
            *(arguments.data.resolve(), arguments.folder),
        )
        return 0
    rows = [_row(json.loads(p.read_text())) for p in sorted(arguments.folder.glob("*-*-*.json"))]
    for row in rows:
        print(*row.values(), sep=",")
    if arguments.out is not None and rows:
        with arguments.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
