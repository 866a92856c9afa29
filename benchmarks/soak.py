"""Kill a search many times, and compare it with an uninterrupted one.

    python benchmarks/soak.py --work FOLDER [--budget 200] [--kills 20] [--seed 0]

A small net on scikit-learn's digits is searched twice with the same seed: once undisturbed, once
while its driver or its worker is killed (`kill -9`) at random moments. The table shows what was
killed and whether anything was lost, doubled or different; it is written to `results/`.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
from published import result_path

TASK = """
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from autocompress import Task

def task():
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16.0, dtype=torch.float32), torch.tensor(y)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(),
                          nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:1200]), y[:1200]).backward()
        optimizer.step()
    return Task(model=model, train=(x[:1200], y[:1200]), val=(x[1200:], y[1200:]), name="soak",
                proxy_epochs=2)
"""
_FINISHED = ("COMPLETE", "PRUNED", "FAIL")
_LEAST, _MOST = 3, 12  # trials between two kills: one that dies twice in a trial gives it up


def main() -> int:
    """Search twice, compare, and write the row; returns 1 if anything was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    (arguments.work / "soak_task.py").write_text(TASK)
    start = time.perf_counter()
    _start(arguments, "peaceful").wait()
    peaceful_s = time.perf_counter() - start
    start = time.perf_counter()
    killed = _search_and_kill(arguments)
    killed_s = time.perf_counter() - start
    peaceful, broken = (_trials(arguments.work / name) for name in ("peaceful", "killed"))
    with sqlite3.connect(arguments.work / "killed" / "study.db") as database:
        (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
    row = {
        "budget": arguments.budget,
        "drivers_killed": killed.count("driver"),
        "workers_killed": killed.count("worker"),
        "finished_trials": len(broken),
        "distinct_numbers": len({trial["number"] for trial in broken}),
        "integrity_check": verdict,
        "different_rows": sum(a != b for a, b in zip(peaceful, broken, strict=False)),
        "peaceful_s": round(peaceful_s),
        "killed_s": round(killed_s),
    }
    print(json.dumps(row, indent=2))
    pd.DataFrame([row]).to_csv(result_path("soak", "csv"), index=False, lineterminator="\n")
    is_sound = len(broken) == row["distinct_numbers"] == arguments.budget and verdict == "ok"
    return 0 if is_sound and broken == peaceful else 1


def _start(arguments: argparse.Namespace, run: str) -> subprocess.Popen[bytes]:
    command = (
        *(sys.executable, "-m", "autocompress", "search", "soak_task.py", "--run", run),
        *("--results", ".", "--budget", str(arguments.budget), "--threads", "1", "--quiet"),
        *("--objectives", "accuracy,size", "--seed", str(arguments.seed)),
    )
    with (arguments.work / f"{run}.log").open("ab") as log:
        return subprocess.Popen(command, cwd=arguments.work, stdout=log, stderr=log)


def _search_and_kill(arguments: argparse.Namespace) -> list[str]:
    chance = random.Random(arguments.seed)
    killed: list[str] = []
    process = _start(arguments, "killed")
    goal = chance.randint(_LEAST, _MOST)
    while True:
        is_due = len(killed) < arguments.kills and _n_finished(arguments.work / "killed") >= goal
        try:
            code = process.wait(chance.uniform(0.0, 0.8) if is_due else 0.2)
        except subprocess.TimeoutExpired:
            victim = _kill(process.pid, chance) if is_due else None
            if victim is not None:
                killed.append(victim)
                goal = _n_finished(arguments.work / "killed") + chance.randint(_LEAST, _MOST)
                print(f"killed {len(killed)}: {victim}", flush=True)
            continue
        if code == 0:
            return killed
        if code != -signal.SIGKILL:
            raise RuntimeError(f"The search ended with {code}: see {arguments.work}/killed.log.")
        process = _start(arguments, "killed")


def _n_finished(folder: Path) -> int:
    """Finished trials, by the run's journal: reading the study would get in the search's way."""
    journal = folder / "trials.jsonl"
    text = journal.read_text() if journal.exists() else ""
    return sum(f'"state": "{state}"' in line for line in text.splitlines() for state in _FINISHED)


def _kill(driver: int, chance: random.Random) -> str | None:
    """Kill the driver or its worker; which of them, or None if there was no worker."""
    if chance.random() < 0.5:
        os.kill(driver, signal.SIGKILL)
        return "driver"
    children = psutil.Process(driver).children()
    workers = [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
    if not workers:
        return None
    workers[0].kill()
    return "worker"


def _trials(folder: Path) -> list[dict[str, object]]:
    """The finished trials of a run, without what depends on the clock."""
    done = subprocess.run(
        (sys.executable, "-m", "autocompress", "front", str(folder), "--json", "--all"),
        capture_output=True,
        text=True,
        check=True,
    )
    trials = json.loads(done.stdout)["trials"]
    kept = ("trial", "label", "state", "plan_digest", "accuracy", "size_bytes", "reason")
    finished = [trial for trial in trials if trial["state"] != "running"]
    return [{"number": t["trial"], **{key: t[key] for key in kept if key in t}} for t in finished]


if __name__ == "__main__":
    raise SystemExit(main())
