"""Ablation of the search, and comparison with Optuna's samplers. Repeat a command to continue it.

    python benchmarks/search_quality.py compare --net digits --work FOLDER
    python benchmarks/search_quality.py full    --data FOLDER --work FOLDER
    python benchmarks/search_quality.py proxies --data FOLDER --work FOLDER
    python benchmarks/search_quality.py compare --net cifar --data FOLDER --work FOLDER
    python benchmarks/search_quality.py compare --net cifar --data FOLDER --work FOLDER --recorded
    python benchmarks/search_quality.py proposals --work FOLDER
    python benchmarks/search_quality.py tables --data FOLDER --work FOLDER
    python benchmarks/search_quality.py figure --work FOLDER

`--data` is a folder with cifar-10-batches-bin and weights of a ResNet-20. Everything runs on one
thread, so that several parts can run side by side on as many cores; seconds are CPU seconds.
`--recorded` answers from models fitted to what `compare` and `proxies` have measured, whose errors
are published with the result. `tables` writes what is there to `results/`; `figure` draws searches
on real evaluations as docs/img/search-quality.svg and needs the extra `benchmarks`.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from quality.compare import run_all
from quality.fidelity import measure_full, measure_proxies
from quality.nets import Lab
from quality.proposal_time import measure_proposals
from quality.recorded import RecordedBench
from quality.samplers import CONFIGS, register
from quality.tables import write_tables

_PARTS = ("compare", "full", "proxies", "proposals", "tables", "figure")
_FIGURE = Path(__file__).parents[1] / "docs" / "img" / "search-quality.svg"
_BUDGET = 50
_EPOCHS = {"digits": 1.25, "cifar": 0.1}  # short proxies: what is compared is how they are used


def main() -> int:
    """Run one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=_PARTS)
    parser.add_argument("--net", choices=["digits", "cifar"], default="digits")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recorded", action="store_true")
    parser.add_argument("--only", nargs="*", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--repeats", nargs="*", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    register()
    if arguments.part == "full":
        measure_full(arguments.data, arguments.work)
    elif arguments.part == "proxies":
        measure_proxies(arguments.data, arguments.work)
    elif arguments.part == "proposals":
        measure_proposals(arguments.work)
    elif arguments.part == "tables":
        write_tables(arguments.data, arguments.work)
    elif arguments.part == "figure":
        _draw(arguments.work)
    else:
        _compare(arguments)
    return 0


def _draw(work: Path) -> None:
    from quality.figure import write_figure

    nets = {"digits": "Digits", "cifar": "CIFAR-10 ResNet-20"}
    folders = {name: work / net / "searches" for net, name in nets.items()}
    write_figure({name: path for name, path in folders.items() if path.is_dir()}, _FIGURE)


def _compare(arguments: argparse.Namespace) -> None:
    lab = Lab(arguments.net, arguments.data, arguments.work, _EPOCHS[arguments.net])
    table = lab.table()
    configs = [CONFIGS[name] for name in arguments.only]
    folder = arguments.work / arguments.net / "searches"
    if not arguments.recorded:
        run_all(lab, table, configs, arguments.repeats, _BUDGET, folder)
        return
    bench = RecordedBench(lab, table)
    folder = arguments.work / arguments.net / "recorded"
    folder.mkdir(parents=True, exist_ok=True)
    bench.write_errors(folder.parent / "recorded_errors.json")
    run_all(bench, table, configs, arguments.repeats, _BUDGET, folder)


if __name__ == "__main__":
    raise SystemExit(main())
