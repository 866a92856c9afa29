"""Turn a finished run into the files that are published under results/.

    python benchmarks/publish_run.py results/digits [--bundle results/digits/exports/trial_00014]

Writes, with hardware and torch version in the file names: every trial as CSV; the front, the
controls and how the run was made as JSON; and the manifest of each given bundle. Nothing is
measured here, and nothing is left out: the table includes failed trials and lost comparisons.
"""

import argparse
import json
import re
from pathlib import Path

from autocompress.atomic_file import write_atomically
from autocompress.report.search_gain import search_gain
from autocompress.report.tables import front_json, trials_table, write_csv
from autocompress.run_record import RunRecord
from autocompress.study.records import load_run

_PRIVATE = ("task", "arguments")  # paths of the machine it ran on


def file_stem(run: RunRecord) -> str:
    """`digits-50trials-intel-xeon-2cores-torch2.13.0`."""
    hardware, versions = run.info["hardware"], run.info["versions"]
    processor = re.sub(r"\(R\)|\(TM\)|processor|cpu|@.*", " ", hardware["processor"], flags=re.I)
    parts = [
        run.name,
        f"{len(run.trials)}trials",
        "-".join(processor.lower().split()),
        f"{hardware['n_cores']}cores",
        f"torch{versions['torch'].partition('+')[0]}",
    ]
    return "-".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--bundle", type=Path, action="append", default=[])
    parser.add_argument("--results", type=Path, default=Path(__file__).parent.parent / "results")
    options = parser.parse_args()
    run = load_run(options.run)
    stem = file_stem(run)
    write_csv(trials_table(run), options.results / f"{stem}.csv")
    info = {key: value for key, value in run.info.items() if key not in _PRIVATE}
    gain = search_gain(run)
    document = {
        **front_json(run),
        "search_gain": None if gain is None else gain.to_json(),
        "info": info,
    }
    write_atomically(options.results / f"{stem}.json", json.dumps(document, indent=2) + "\n")
    for bundle in options.bundle:
        manifest = (bundle / "manifest.json").read_text(encoding="utf-8")
        number = json.loads(manifest)["trial"]
        write_atomically(options.results / f"{stem}-export{number}.json", manifest)
    print(stem)


if __name__ == "__main__":
    main()
