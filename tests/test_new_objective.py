"""A new objective is one row of `OBJECTIVES`: everything else must read that row.

An option for its limit is a field of `SearchOptions`, as every option is.
"""

import json
import subprocess
import sys
from pathlib import Path

# A process of its own: some modules read the rows when they are imported.
SCRIPT = """
import dataclasses, importlib.util, json, sys
from autocompress import objective
from autocompress.quantities import COUNT

objective.OBJECTIVES["macs"] = objective.Objective(
    name="macs", field="macs", direction="minimize", quantity=COUNT, ratio="fewer_macs",
    better="less work", worse="more work", even="the same work", best="least work",
    lowest="fewest MACs", excess="too many", axis="MACs of one example",
    limit_help="Most MACs of one example, such as 40M.", meaning="products and sums.",
)
spec = importlib.util.spec_from_file_location("report_runs", sys.argv[1])
runs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runs)
limits = objective.Limits(max_macs=35_000_000, max_drop=0.03)
run = dataclasses.replace(
    runs.make_synthetic_run(20, objectives="accuracy,size,latency,macs"), limits=limits
)

from click.testing import CliRunner
from rich.console import Console
from autocompress.cli.search import command
from autocompress.report.compare import compare_runs
from autocompress.report.compare_page import render_comparison
from autocompress.report.page import render_page, render_parts
from autocompress.report.pictures import all_figures
from autocompress.report.tables import csv_text, trials_table
from autocompress.report.wording import nothing_feasible, violation_words
from autocompress.runs.tracking.tracker import METRICS, PROGRESS, progress_of
from autocompress.terminal.tables import front_summary

console = Console(width=160, record=True, file=open("/dev/null", "w"))
console.print(front_summary(run))
other = dataclasses.replace(run, name="other", folder=run.folder / "other")
worst = max(run.complete, key=lambda t: t.measurement.macs)
print(json.dumps({
    "axes": [objective.name for objective in run.objectives],
    "limits": limits.to_json(),
    "breaks": violation_words(run, worst),
    "n_kept": len(run.feasible),
    "n_columns": len(run.costs(run.complete)[0]),
    "page": render_page(run),
    "figures": sorted(all_figures(run)),
    "csv": csv_text(trials_table(run)).splitlines()[0],
    "terminal": console.export_text(),
    "compared": render_comparison(compare_runs([run, other])),
    "progress": {name: value for name, value in progress_of(run, {*range(99)}).items()},
    "tracked": [*METRICS, *PROGRESS],
    "help": CliRunner().invoke(command, ["--help"]).output,
}))
"""


def test_a_row_is_all_that_a_new_objective_needs():
    runs = Path(__file__).parent / "report" / "conftest.py"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(runs)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["axes"] == ["accuracy", "size", "latency", "macs"]
    assert found["limits"] == {"max_drop": 0.03, "max_macs": 35_000_000}
    assert found["breaks"] == ["5.81 M too many"]
    assert found["n_kept"] > 0
    assert found["n_columns"] == 4
    assert {"size", "latency", "macs", "gain_macs"} <= set(found["figures"])
    for words in ("Accuracy against macs", "least work within 1 pt", "products and sums"):
        assert words.lower() in found["page"].lower()
    assert "fewer_macs" in found["csv"].split(",")
    assert "less work" in found["terminal"]
    assert "Accuracy against macs" in found["compared"]
    assert "least work_within_1pt" in found["progress"]
    assert {"macs", "fewer_macs", "least work_within_1pt"} <= set(found["tracked"])
    assert "size, latency, macs" in " ".join(found["help"].split())
