"""Size of the report of a long run, and the time a browser takes to open it.

    python benchmarks/report_size.py --work FOLDER [--trials 50 500 2000] [--knobs 60]

Runs are synthetic (only their size counts). Each page is written, and opened from its file in
headless Chromium several times, each in a context of its own: until the first two charts are drawn
and the page answers, and until all of them are. On a busy machine wall time
says little, so the CPU seconds of the page's own thread are given as well. The table is written to
`results/`.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from published import result_path
from quality.proposal_time import made_up_space, made_up_table

from autocompress.measurement import Measurement
from autocompress.objective import parse_objectives
from autocompress.report.page import write_report
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import SearchSpace
from autocompress.space.sensitivity_table import SensitivityTable

_OPENINGS = 5
_BASE_MS = 0.75


def main() -> int:
    """Write, open, and tabulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--trials", type=int, nargs="+", default=[50, 500, 2000])
    parser.add_argument("--knobs", type=int, default=60)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([_row(arguments.work, n, arguments.knobs) for n in arguments.trials])
    print(table.to_string(index=False))
    table.to_csv(result_path("report-size", "csv"), index=False, lineterminator="\n")
    return 0


def _row(work: Path, n_trials: int, n_knobs: int) -> dict[str, Any]:
    """Size of one page, seconds to write it, and medians over openings."""
    run = made_up_run(n_trials, n_knobs)
    path = work / f"report-{n_trials}.html"
    start = time.process_time()
    write_report(run, path)
    row: dict[str, Any] = {
        "trials": n_trials,
        "knobs": len(run.knobs),
        "front": len(run.front()),
        "write_cpu_s": time.process_time() - start,
        "page_mb": path.stat().st_size / 1e6,
    }
    openings = pd.DataFrame(_openings(path))
    row |= {name: float(openings[name].median()) for name in openings}
    row["ready_max_s"] = float(openings["ready_s"].max())
    row["load_per_core"] = os.getloadavg()[0] / (os.cpu_count() or 1)  # above 1 seconds say little
    print(row, flush=True)
    return {key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}


def _openings(path: Path) -> list[Mapping[str, float]]:
    """Seconds from the address to a page that answers, and to its last chart."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for _ in range(_OPENINGS):
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            start = time.perf_counter()
            page.goto(path.absolute().as_uri(), wait_until="commit")
            page.wait_for_selector("html[data-ready]", state="attached", timeout=120_000)
            ready_s = time.perf_counter() - start
            ready_cpu_s = _thread_seconds(session)
            page.wait_for_selector("html[data-drawn=all]", state="attached", timeout=120_000)
            found.append({
                "ready_s": ready_s,
                "ready_cpu_s": ready_cpu_s,
                "all_drawn_s": time.perf_counter() - start,
                "all_drawn_cpu_s": _thread_seconds(session),
            })  # fmt: skip
            page.context.close()
        browser.close()
    return found


def _thread_seconds(session: Any) -> float:
    """CPU seconds of the page's main thread so far."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))


def made_up_run(n_trials: int, n_knobs: int) -> RunRecord:
    """A run of random plans with the figures its sensitivity table predicts."""
    space = made_up_space(n_knobs)
    table = made_up_table(space)
    random, predictor = np.random.default_rng(0), Predictor(space, table)
    trials = [_trial(n, space, predictor, table, random) for n in range(n_trials)]
    return RunRecord(
        name=f"made-up-{n_trials}",
        folder=Path("results") / f"made-up-{n_trials}",
        objectives=parse_objectives("accuracy,size,latency"),
        knobs=space.knobs,
        trials=tuple(trials),
        info={"task": "made up", "seed": 0, "budget": n_trials},
        options=table,
    )


def _trial(
    number: int,
    space: SearchSpace,
    predictor: Predictor,
    table: SensitivityTable,
    random: np.random.Generator,
) -> TrialRecord:
    bias = random.uniform(0.02, 0.9) if number else 0.0
    levels = {knob.name: int(random.binomial(len(knob.levels) - 1, bias)) for knob in space.knobs}
    array = np.array([list(levels.values())], dtype=np.int64)
    lost = float(predictor.divergence(array)[0]) + abs(float(random.normal(0, 0.002))) * bool(
        number
    )
    latency_ms = _BASE_MS * float(predictor.latency_ratio(array)[0]) * random.uniform(0.98, 1.02)
    measurement = Measurement(
        fidelity=1,
        accuracy=float(np.clip(0.93 - 0.02 * lost, 0.1, 1.0)),
        loss=0.2 + lost,
        divergence=lost,
        size_bytes=int(predictor.size_bytes(array)[0]),
        latency_ms=latency_ms,
        latency_spread_ms=0.01,
        latency_low_ms=0.99 * latency_ms,
        latency_high_ms=1.01 * latency_ms,
        baseline_latency_ms=_BASE_MS,
        macs=40_000_000,
        n_params=270_000,
        seconds=30.0,
        layer_bytes=dict(
            zip(predictor.layers, map(int, predictor.layer_bytes(array)[0]), strict=True)
        ),
    )
    return TrialRecord(
        number=number,
        role="search" if number else "baseline",
        label=f"trial {number}" if number else "baseline",
        state="complete",
        levels=levels,
        plan=space.decode(levels),
        measurement=measurement,
        reason=None,
    )


if __name__ == "__main__":
    raise SystemExit(main())
