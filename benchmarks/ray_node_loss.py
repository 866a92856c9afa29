"""Kill a node of a Ray cluster during a search, and check what happens to its trials.

    python benchmarks/ray_node_loss.py --work FOLDER [--budget 12] [--seconds 4]

A cluster of two nodes (of one core each, on this machine) evaluates two trials at once, each made
to last some seconds by waiting. After a third of the trials one node is killed with a trial on it.
The row shows how many finished, and how long it took until both running trials had.
"""

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from published import result_path
from search_overhead import N_BATCHES, WAITING_TASK

_FINISHED = ("COMPLETE", "PRUNED", "FAIL")


def main() -> int:
    """Search, kill, and write the row; returns 1 if a trial was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--budget", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    (arguments.work / "waiting_task.py").write_text(WAITING_TASK)
    # The cluster is reached by the machine's address, so it must be protected.
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    from ray.cluster_utils import Cluster  # which reads that once

    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    try:
        row = _search(arguments, cluster, nodes[1])
    finally:
        cluster.shutdown()
    print(json.dumps(row, indent=2))
    pd.DataFrame([row]).to_csv(
        result_path("ray-node-loss", "csv"), index=False, lineterminator="\n"
    )
    return 0 if row["complete_trials"] == arguments.budget else 1


def _search(arguments: argparse.Namespace, cluster: Any, doomed: Any) -> dict[str, Any]:
    command = (
        *(sys.executable, "-m", "autocompress", "search", "waiting_task.py", "--run", "ray"),
        *("--results", ".", "--budget", str(arguments.budget), "--threads", "1", "--quiet"),
        *("--objectives", "accuracy,size", "--executor", "ray", "--jobs", "2"),
        *("--ray-address", cluster.address, "--without", "table,ladder"),
        *("--task-arg", f"pause={arguments.seconds / N_BATCHES}"),
    )
    journal = arguments.work / "ray" / "trials.jsonl"
    with (arguments.work / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=arguments.work, stdout=log, stderr=log)
    while _n_finished(journal) < arguments.budget // 3 or len(_under_way(journal)) < 2:
        if process.poll() is not None:
            raise RuntimeError((arguments.work / "log").read_text())
        time.sleep(0.1)
    time.sleep(arguments.seconds / 2)  # in the middle of both
    under_way, began = _under_way(journal), time.monotonic()
    cluster.remove_node(doomed, allow_graceful=False)
    while under_way & _under_way(journal):
        time.sleep(0.1)
    both_s = time.monotonic() - began
    code = process.wait()
    if code:
        raise RuntimeError((arguments.work / "log").read_text())
    trials = _trials(journal)
    measured = [t["attributes"].get("measurement", {}).get("seconds") for t in trials]
    return {
        "nodes": 2,
        "budget": arguments.budget,
        "complete_trials": sum(trial["state"] == "COMPLETE" for trial in trials),
        "median_trial_s": round(sorted(s for s in measured if s)[len(trials) // 2], 1),
        "under_way_when_killed": len(under_way),
        "both_finished_after_s": round(both_s, 1),
        "all_finished_after_s": round(time.monotonic() - began, 1),
    }


def _trials(journal: Path) -> list[dict[str, Any]]:
    """What each trial is, by the last line of the journal about it."""
    trials: dict[int, dict[str, Any]] = {}
    for line in journal.read_text().splitlines() if journal.exists() else ():
        content = json.loads(line)
        if "number" in content:
            trials[content["number"]] = content
    return list(trials.values())


def _n_finished(journal: Path) -> int:
    return sum(_is_finished(trial) for trial in _trials(journal))


def _is_finished(trial: dict[str, Any]) -> bool:
    return trial["state"] in _FINISHED


def _under_way(journal: Path) -> set[int]:
    return {trial["number"] for trial in _trials(journal) if not _is_finished(trial)}


if __name__ == "__main__":
    raise SystemExit(main())
