"""Run the whole conformance suite and write docs/conformance.md.

Every technique, every pair and a sample of triples, on every net of the zoo.

    python scripts/conformance_table.py [--singles]
"""

import argparse
import importlib.util
import random
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

import torch

ROOT = Path(__file__).parents[1]
PATH = ROOT / "docs" / "conformance.md"
_TRIPLES_PER_NET = 20


def applicability_table(rows: Iterable[tuple[object, Mapping[str, str]]]) -> str:
    """Techniques down, nets across; a number refers to the reason that `analyze` prints."""
    rows = list(rows)
    nets = list(rows[0][1])
    notes: dict[str, int] = {}
    lines = [
        "| technique | row | " + " | ".join(name.replace("_", " ") for name in nets) + " |",
        "|---|---|" + ":-:|" * len(nets),
    ]
    for technique, reasons in rows:
        cells = [
            "✓" if not reason else f"[{notes.setdefault(reason, len(notes) + 1)}]"
            for reason in reasons.values()
        ]
        lines.append(f"| {technique.name} | {technique.row} | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {reason}" for reason, number in notes.items())]
    return "\n".join(lines)


def main() -> int:
    """Run everything; returns the number of failures, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--singles", action="store_true", help="no pairs and triples")
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    suite = _load("conformance_suite", ROOT / "tests" / "conformance" / "suite.py")
    zoo = _load("zoo", ROOT / "tests" / "zoo.py")
    nets = {name: suite.make_net(name, *zoo.build(name)) for name in sorted(zoo.ZOO)}
    sets = [(technique,) for technique in suite.TECHNIQUES]
    if not arguments.singles:
        sets += suite.pairs()
    counts, failures = {1: [0, 0], 2: [0, 0], 3: [0, 0]}, []
    start = time.perf_counter()
    for name, net in nets.items():
        triples = [] if arguments.singles else _triples(suite, random.Random(name))
        for techniques in (*sets, *triples):
            counts[len(techniques)][1] += 1
            try:
                counts[len(techniques)][0] += suite.run(net, *techniques) == ""
            except Exception:  # noqa: BLE001 - collected and shown
                failures.append(
                    (name, [t.name for t in techniques], traceback.format_exc(limit=-3))
                )
                print(failures[-1][0], failures[-1][1], failures[-1][2], file=sys.stderr)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    if not failures and not arguments.singles:
        table = applicability_table(suite.applicability(nets))
        PATH.write_text(_page(table, counts), encoding="utf-8")
    print(f"{len(failures)} failures; (applied, run) by number of techniques: {counts}")
    return min(1, len(failures))


def _page(table: str, counts: Mapping[int, list[int]]) -> str:
    (alone, n_alone), (paired, n_pairs), (_, n_triples) = (counts[n] for n in (1, 2, 3))
    return f"""# What works on what

Written by `scripts/conformance_table.py`; do not edit. Every technique of the search space is
applied to every net of the test zoo: built, trained, exported to ONNX, packed, unpacked and run;
the file must compute what the candidate computes. ✓ means that it holds; a number refers to the
reason below, as `autocompress analyze` prints it.

Alone: {alone} of {n_alone} combinations of technique and net apply, and hold. Pairs: {n_pairs} were
run; in {paired} of them at least one technique has something to do, and all hold. Triples: a sample
of {n_triples} was run, and all hold.

{table}
"""


def _triples(suite: ModuleType, rng: random.Random) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    while len(found) < _TRIPLES_PER_NET:
        triple = tuple(rng.sample(suite.TECHNIQUES, 3))
        if suite.rules_of(*triple) is not None:
            found.append(triple)
    return found


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    raise SystemExit(main())
