"""Time and memory of each stage for models of realistic size.

    python benchmarks/scale.py [resnet50|bert_base]     # both: about 15 minutes on a quiet machine

Each stage is a process of its own: `analyze`; `search` with the baseline and two trials of two
training steps each, without a sensitivity table (one probe for each level); `export` and
`verify`. Weights are random, so accuracies say nothing; times and memory are those of trained ones.
Written to results/scale-*.csv.
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from published import result_path

TASKS = ("resnet50", "bert_base")
FILE = Path(__file__).with_name("scale_task.py")
SEARCH = ("--budget", "3", "--executor", "inline", "--threads", "2", "--run", "scale", "--quiet")
LEAN = ("--without", "table,ladder", "--objectives", "accuracy,size,latency")


def main() -> None:
    rows = []
    for task in sys.argv[1:] or TASKS:
        for stage, seconds, peak in stages(task):
            rows.append({"task": task, "stage": stage, "seconds": seconds, "peak_mb": peak})
            print(f"{task} {stage}: {seconds} s, {peak:,} MB", flush=True)
    path = result_path("scale", "csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(path)


def stages(task: str) -> Iterator[tuple[str, float, int]]:
    """Stage, seconds of wall time, and the most megabytes its processes held at once."""
    spec = f"{FILE}:{task}"
    with tempfile.TemporaryDirectory() as folder:
        results = ("--results", folder)
        yield "analyze", *measured("analyze", spec)
        yield "search, 3 trials", *measured("search", spec, *SEARCH, *LEAN, *results)
        yield "export", *measured("export", "scale", "--trial", "1", *results)
        bundle = str(Path(folder) / "scale" / "exports" / "trial_00001")
        yield "verify", *measured("verify", bundle, codes=(0, 14))  # 14: latency alone


def measured(*arguments: str, codes: tuple[int, ...] = (0,)) -> tuple[float, int]:
    """Wall time of a command, and the largest sum of its processes' resident memory seen."""
    start, peak = time.perf_counter(), 0
    command = [sys.executable, "-m", "autocompress", *arguments]
    environment = {**os.environ, "COLUMNS": "120"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, held(root))
            time.sleep(0.1)
    if process.returncode not in codes:
        sys.exit(f"autocompress {' '.join(arguments)} ended with {process.returncode}")
    return round(time.perf_counter() - start, 1), round(peak / 1e6)


def held(root: psutil.Process) -> int:
    """Bytes that a process and its children hold."""
    total = 0
    try:
        for process in (root, *root.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


if __name__ == "__main__":
    main()
