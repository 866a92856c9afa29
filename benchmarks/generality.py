"""Which architectures autocompress can analyze, compress, export and pack. Resumable.

    python benchmarks/generality.py [--only NAME ...] [--again] [--processes 2] [--limit 60]

Some 90 architectures of `transformers` (vision, text, causal language models, audio, series), built
small from their configurations with random weights, and 12 nets written by hand. Each goes, in a
process of its own with a time limit, through: analyze, prune (half of every channel group),
factorize (half the rank of every layer), quantize (8 bit), and then, with everything of these that
applies to it at once, one step of training in each phase, export to ONNX, the packed file, and
whether the unpacked file computes in ONNX Runtime what the candidate computes in PyTorch.

`n/a` is a technique for which autocompress itself finds nothing to do; `reasons` quotes what
`autocompress analyze` says of it. `tracebacks` counts what was raised and is no AutocompressError.
`analyze_s` and `analyze_peak_mb` are processor seconds and additional memory of `analyze` alone;
`pruned_share` is the share of parameters that pruning removed.

Rows that are already in the table are measured again only with `--again`.
"""

import argparse
import csv
import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent))

from architectures import checks, hub, written
from published import result_path

_COLUMNS: Final = (
    *("name", "kind", "outcome", *checks.STEPS, "tracebacks", "n_params", "pruned_share"),
    *("n_layers", "n_groups", "n_refused_groups", "n_blocks", "analyze_s", "analyze_peak_mb"),
    *("seconds", "peak_mb", "float_bytes", "packed_bytes", "difference", "reasons"),
)
_IMPORTED_ONCE: Final = (  # two seconds that each of a hundred processes would spend
    *("autocompress.evaluate.deploy", "autocompress.evaluate.calibration", "onnxruntime"),
    *("autocompress.evaluate.proxy", "autocompress.export.load", "autocompress.space.build"),
    *("transformers.modeling_utils", "transformers.models.bert.modeling_bert", "torch._dynamo"),
    *("transformers.models.vit.modeling_vit", "transformers.models.llama.modeling_llama"),
)
_WALL_FACTOR: Final = 10


def main() -> int:
    """Run what is missing in the table; returns 1 if an architecture does not pass."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = {**hub.names(), **dict.fromkeys(written.NETS, "written by hand")}
    parser.add_argument("--only", nargs="+", choices=sorted(every), metavar="NAME")
    parser.add_argument("--again", action="store_true", help="even if the table has it")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=int, default=60, help="processor seconds for each")
    parser.add_argument("--out", type=Path, default=result_path("generality", "csv"))
    arguments = parser.parse_args()
    rows = _read(arguments.out)
    wanted = [name for name in every if name in (arguments.only or every)]
    missing = [name for name in wanted if arguments.again or name not in rows]
    for row in _run({name: every[name] for name in missing}, arguments):
        rows[row["name"]] = row
        _write(arguments.out, [rows[name] for name in every if name in rows])
        print(f"{row['outcome']:5} {row['name']:24} {row['reasons'][:150]}", flush=True)
    passing = [row for row in rows.values() if row["outcome"] == "pass"]
    tracebacks = sum(int(row["tracebacks"]) > 0 for row in rows.values())
    print(f"{len(passing)} of {len(rows)} pass all that applies; {tracebacks} with a traceback")
    return int(len(passing) < len(rows))


def _run(kinds: Mapping[str, str], arguments: argparse.Namespace) -> Any:
    """Rows, as they are finished."""
    context = multiprocessing.get_context("forkserver")  # imports are done once, before the forks
    context.set_forkserver_preload(list(_IMPORTED_ONCE))
    waiting, running = list(kinds), {}
    limit = arguments.limit
    try:
        while waiting or running:
            while waiting and len(running) < arguments.processes:
                name = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                child = context.Process(target=_child, args=(theirs, name, kinds[name], limit))
                child.start()
                theirs.close()
                running[name] = (child, ours, time.monotonic())
            for name, (child, pipe, start) in list(running.items()):
                row = _result(name, kinds[name], child, pipe, time.monotonic() - start, arguments)
                if row is not None:
                    child.join()
                    del running[name]
                    yield row
            time.sleep(0.05)
    finally:
        for child, _, _ in running.values():
            child.kill()


def _result(
    name: str, kind: str, child: Any, pipe: Connection, seconds: float, arguments: Any
) -> dict[str, Any] | None:
    """The row of a child that is done, None while it works."""
    row: dict[str, Any] = {"name": name, "kind": kind, "tracebacks": 0, "outcome": "fail"}
    if pipe.poll():
        try:
            row.update(pipe.recv())
        except EOFError:
            child.join()
            if child.exitcode == -signal.SIGXCPU:
                return {**row, "reasons": f"not done within {arguments.limit} processor seconds"}
            return {**row, "tracebacks": 1, "reasons": f"the process died ({child.exitcode})"}
        failed = any(row[step] not in ("pass", "n/a") for step in checks.STEPS)
        return {**row, "outcome": "fail" if failed else "pass"}
    if seconds > _WALL_FACTOR * arguments.limit:  # it waits for something, or the machine is full
        child.kill()
        return {**row, "reasons": f"not done within {_WALL_FACTOR * arguments.limit} s"}
    return None


def _child(pipe: Connection, name: str, kind: str, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    build = written.build if name in written.NETS else hub.build
    pipe.send(checks.check(name, kind, build))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    unfinished.replace(path)


if __name__ == "__main__":
    sys.exit(main())
