"""Start several searches of one run at once: in one folder one works, on a server all share.

    python benchmarks/crowd.py folder --work FOLDER [--times 20] [--processes 4]
    python benchmarks/crowd.py server --work FOLDER --storage URL [--budget 40] [--processes 4]

`folder`: a fresh run again and again; one process must work, the others end with 75 and name it.
`server`: an empty database; together they must finish exactly the budget, no plan twice. The small
net of `soak.py` is searched. Both write a row to `results/`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from published import result_path
from soak import TASK

_BUSY = 75


def main() -> int:
    """Run one part; returns 1 if it did not come out as it must."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["folder", "server"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--storage")
    parser.add_argument("--budget", type=int, default=40)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    (arguments.work / "soak_task.py").write_text(TASK)
    row, is_sound = _folder(arguments) if arguments.part == "folder" else _server(arguments)
    print(json.dumps(row, indent=2))
    path = result_path(f"crowd-{arguments.part}", "csv")
    pd.DataFrame([row]).to_csv(path, index=False, lineterminator="\n")
    return 0 if is_sound else 1


def _folder(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    worked, refused, named, others = 0, 0, 0, 0
    for time_ in range(arguments.times):
        processes = [_start(arguments, f"run{time_}", 6) for _ in range(arguments.processes)]
        said = [process.communicate()[1] for process in processes]
        codes = [process.returncode for process in processes]
        worked += codes.count(0) == 1
        refused += codes.count(_BUSY)
        named += sum("is driven by process" in text for text in said)
        others += sum(code not in (0, _BUSY) for code in codes)
        n_finished = len(_trials(arguments, f"run{time_}"))
        print(f"{time_ + 1}: exit codes {sorted(codes)}, {n_finished} trials", flush=True)
        if n_finished != 6:
            raise RuntimeError(f"The run must hold 6 trials, but has {n_finished}.")
    row = {
        "starts": arguments.times,
        "processes": arguments.processes,
        "one_worked": worked,
        "refused_with_75": refused,
        "said_who_drives": named,
        "other_codes": others,
    }
    expected = arguments.times * (arguments.processes - 1)
    return row, worked == arguments.times and refused == named == expected and others == 0


def _server(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    start = time.perf_counter()
    extra = ("--storage", arguments.storage)
    processes = [
        _start(arguments, "shared", arguments.budget, *extra) for _ in range(arguments.processes)
    ]
    said = [process.communicate()[1] for process in processes]
    codes = [process.returncode for process in processes]
    if any(codes):
        raise RuntimeError(f"Exit codes {codes}: {said}")
    trials = _trials(arguments, "shared")
    searched = [trial["plan_digest"] for trial in trials if trial["role"] == "search"]
    row = {
        "drivers": arguments.processes,
        "budget": arguments.budget,
        "finished_trials": len(trials),
        "distinct_numbers": len({trial["trial"] for trial in trials}),
        "searched_plans": len(searched),
        "distinct_searched_plans": len(set(searched)),
        "seconds": round(time.perf_counter() - start),
    }
    is_exact = len(trials) == row["distinct_numbers"] == arguments.budget
    return row, is_exact and len(set(searched)) == len(searched)


def _start(
    arguments: argparse.Namespace, run: str, budget: int, *extra: str
) -> subprocess.Popen[str]:
    command = (
        *(sys.executable, "-m", "autocompress", "search", "soak_task.py", "--run", run),
        *("--results", ".", "--budget", str(budget), "--threads", "1", "--quiet"),
        *("--objectives", "accuracy,size", *extra),
    )
    return subprocess.Popen(
        command, cwd=arguments.work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _trials(arguments: argparse.Namespace, run: str) -> list[dict[str, Any]]:
    """Finished trials, as the command line prints them."""
    command = [sys.executable, "-m", "autocompress", "front", run, "--results", ".", "--json"]
    environment = dict(os.environ)
    if arguments.storage:
        environment["AUTOCOMPRESS_STORAGE"] = arguments.storage
    done = subprocess.run(
        [*command, "--all"],
        cwd=arguments.work,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [t for t in json.loads(done.stdout)["trials"] if t["state"] != "running"]


if __name__ == "__main__":
    raise SystemExit(main())
