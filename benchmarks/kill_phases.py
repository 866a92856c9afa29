"""Kill commands in each of their phases, go on, and compare with what an undisturbed one gives.

    python benchmarks/kill_phases.py --work FOLDER [--kills 10] [--seed 0] [--phase NAME ...]

A small net is searched, refined and exported. Each command is stopped with SIGKILL and with SIGTERM
while a function of one phase runs: at a random call of it, after a random part of a tenth of a
second, of a third of a millisecond between renames. The same command then goes on. A row for each
phase and signal says how many were stopped there, what was lost, and what differs; the table is
written to `results/`.
"""

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pandas as pd
from published import result_path
from soak import TASK

BUDGET: Final = 10  # the first proposal is trial 7
SEARCH: Final = (
    *("search", "soak_task.py", "--run", "r", "--budget", str(BUDGET), "--threads", "1"),
    *("--objectives", "accuracy,size", "--executor", "inline", "--quiet"),
)
REFINE: Final = ("refine", "r", "--trial", "3", "--recipe", "epochs=3", "--quiet")
EXPORT: Final = ("export", "r", "--trial", "3", "-o", "bundle")
KILLED: Final = """
import functools, importlib, json, os, sys, threading

module, name, nth, delay_s, number = json.loads(sys.argv[1])
owner = importlib.import_module(module)
*classes, name = name.split(".")
for each in classes:
    owner = getattr(owner, each)
real, n_calls = getattr(owner, name), 0

@functools.wraps(real)
def watched(*args, **kwargs):
    global n_calls
    n_calls += 1
    if n_calls == nth:
        threading.Timer(delay_s, os.kill, (os.getpid(), number)).start()
    return real(*args, **kwargs)

setattr(owner, name, watched)
from autocompress.cli.main import main
main(sys.argv[2:])
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """Something that a command does, and the function that does it."""

    command: tuple[str, ...]
    module: str
    function: str
    n_calls: int
    seconds: float = 0.1


PHASES: Final = {
    "sensitivity table": Phase(
        command=SEARCH, module="autocompress.evaluate.sensitivity", function="_probe", n_calls=20
    ),
    "proposal": Phase(
        command=SEARCH,
        module="autocompress.samplers.guided.guided_sampler",
        function="GuidedSampler.propose",
        n_calls=1,
    ),
    "training": Phase(
        command=SEARCH, module="autocompress.train.loop", function="Training.run", n_calls=3
    ),
    "packing": Phase(
        command=SEARCH, module="autocompress.packing.packed", function="_encode", n_calls=20
    ),
    "report": Phase(
        command=SEARCH, module="autocompress.report.page", function="render_page", n_calls=1
    ),
    "refine checkpoint": Phase(
        command=REFINE,
        module="autocompress.runs.refine.checkpoint",
        function="write_checkpoint",
        n_calls=3,
    ),
    "between export's renames": Phase(
        command=EXPORT,
        module="pathlib",
        function="Path.rename",
        n_calls=2,
        seconds=0.0003,
    ),
}


def main() -> int:
    """Kill, go on, compare, and write the table; returns 1 if anything was lost or differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phase", choices=PHASES, action="append")
    parser.add_argument("--out", type=Path, help="instead of a file in results/")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    whole = arguments.work.absolute() / "whole"
    whole.mkdir(parents=True)
    (whole / "soak_task.py").write_text(TASK)
    for command in (SEARCH, REFINE, EXPORT):
        done = _run(whole, command)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
    expected = _results(whole, has_bundle=True)
    chance, rows = random.Random(arguments.seed), []
    for name in arguments.phase or PHASES:
        for number in (signal.SIGKILL, signal.SIGTERM):
            faults = [
                _fault(whole, PHASES[name], number, chance, expected)
                for _ in range(arguments.kills)
            ]
            rows.append(
                {
                    "phase": name,
                    "signal": number.name,
                    "runs": len(faults),
                    "stopped": sum(f["is_stopped"] for f in faults),
                    "lost": sum(f["n_lost"] for f in faults),
                    "different": sum(f["n_different"] for f in faults),
                    "failed_to_go_on": sum(f["has_failed"] for f in faults),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    table = pd.DataFrame(rows)
    path = arguments.out or result_path("kill-phases", "csv")
    table.to_csv(path, index=False, lineterminator="\n")
    return int(table[["lost", "different", "failed_to_go_on"]].to_numpy().sum() > 0)


def _fault(
    whole: Path, phase: Phase, number: int, chance: random.Random, expected: dict[str, Any]
) -> dict[str, Any]:
    """Stop a command in a phase of its own, let it go on, and say what is not as it should be."""
    folder = whole.with_name("stopped")
    shutil.rmtree(folder, ignore_errors=True)
    if phase.command == SEARCH:
        folder.mkdir()
        shutil.copy(whole / "soak_task.py", folder)
        if phase.function != "_probe":  # the table, which the cache keeps, is another phase
            shutil.copytree(whole / "cache", folder / "cache")
    else:
        shutil.copytree(whole, folder)
        if phase.command == REFINE:
            shutil.rmtree(folder / "results" / "r" / "refined")
            (folder / "results" / "r" / "refinements.json").unlink()
    at = [phase.module, phase.function, chance.randint(1, phase.n_calls)]
    at.append(chance.uniform(0, phase.seconds))
    code = (sys.executable, "-c", KILLED, json.dumps([*at, int(number)]))
    stopped = _run(folder, phase.command, code)
    is_stopped = stopped.returncode in (-number, 128 + number)
    done = _run(folder, phase.command)
    found = _results(folder, has_bundle=phase.command == EXPORT)
    if done.returncode != 0 or (not is_stopped and stopped.returncode != 0):
        print(at, stopped.returncode, stopped.stderr[-600:], done.stderr[-600:], flush=True)
    return {
        "is_stopped": is_stopped,
        "has_failed": done.returncode != 0,
        "n_lost": len(expected.keys() - found.keys() - _not_asked_for(phase)),
        "n_different": sum(found[key] != expected[key] for key in found.keys() & expected.keys()),
    }


def _not_asked_for(phase: Phase) -> set[str]:
    """What a command does not give."""
    if phase.command == SEARCH:
        return {"refined", "verified"}
    return set() if phase.command == EXPORT else {"verified"}


def _results(folder: Path, *, has_bundle: bool) -> dict[str, Any]:
    """All trials, the refined one and the bundle, without what depends on the clock."""
    front = _run(folder, ("front", "r", "--json", "--all"))
    if front.returncode != 0:
        return {}
    document = json.loads(front.stdout)
    kept = ("trial", "label", "state", "plan_digest", "accuracy", "loss", "size_bytes", "reason")

    def shown(trial: dict[str, Any]) -> dict[str, Any]:
        return {key: trial[key] for key in kept if key in trial}

    found: dict[str, Any] = {f"trial {t['trial']}": shown(t) for t in document["trials"]}
    if document["refined"]:
        found["refined"] = [shown(trial) for trial in document["refined"]]
    page = folder / "results" / "r" / "report.html"
    if page.exists():
        found["report is whole"] = page.read_text(encoding="utf-8").rstrip().endswith("</html>")
    if has_bundle:
        found["verified"] = _run(folder, ("verify", "bundle")).returncode
    doctor = _run(folder, ("doctor", "r"))
    found["doctor"] = (doctor.returncode, "BAD" in doctor.stdout)
    return found


def _run(
    folder: Path,
    command: tuple[str, ...],
    program: tuple[str, ...] = (sys.executable, "-m", "autocompress"),
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "AUTOCOMPRESS_CACHE": str(folder / "cache")}
    return subprocess.run(
        [*program, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    raise SystemExit(main())
