"""Run the whole conformance suite and write docs/conformance.md.

Every technique, every pair and a sample of triples, on every net of the zoo.

    python scripts/conformance_table.py [--singles] [--added TECHNIQUE ...]

With `--added` only what contains these techniques is run, alone and in pairs, and counted with what
the page says of the others: for a technique that was added and changed nothing else.
"""

import argparse
import importlib.util
import multiprocessing
import random
import re
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from types import ModuleType

import torch

ROOT = Path(__file__).parents[1]
PATH = ROOT / "docs" / "conformance.md"
_TRIPLES_PER_NET = 40


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


def read_table(page: str) -> dict[str, dict[str, str]]:
    """Technique -> net -> why it is not applicable, or "": what `applicability_table` wrote."""
    notes = dict(re.findall(r"^(\d+)\. (.+)$", page, flags=re.MULTILINE))
    header, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("|")
    )
    nets = [name.replace(" ", "_") for name in header[2:]]
    return {
        technique: {
            net: "" if cell == "✓" else notes[cell.strip("[]")]
            for net, cell in zip(nets, cells, strict=True)
        }
        for technique, _, *cells in rows
    }


def main() -> int:
    """Run everything; returns 1 if anything fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--singles", action="store_true", help="no pairs and triples")
    parser.add_argument("--added", nargs="+", default=[], metavar="TECHNIQUE")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    suite, zoo = _load_suite()
    unknown = set(arguments.added) - {technique.name for technique in suite.TECHNIQUES}
    if unknown:
        parser.error(f"no such technique: {', '.join(sorted(unknown))}")
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with context.Pool(arguments.processes, maxtasksperchild=1) as pool:
        added = frozenset(arguments.added)
        work = [(name, arguments.singles, added) for name in sorted(zoo.ZOO)]
        results = pool.map(_run_net, work, chunksize=1)
    counts = {n: sum(result[0][n] for result in results) for n in (1, 2, 3)}
    failures = [failure for result in results for failure in result[1]]
    print(*failures, sep="\n")
    print(f"{len(failures)} failures; runs by number of techniques: {counts}")
    if not failures and not arguments.singles:
        nets = {name: suite.make_net(name, *zoo.build(name)) for name in sorted(zoo.ZOO)}
        table = applicability_table(suite.applicability(nets))
        if added:
            counts = {n: counts[n] + before for n, before in _counts_in_page().items()}
        PATH.write_text(_page(table, counts), encoding="utf-8")
    return min(1, len(failures))


def _counts_in_page() -> dict[int, int]:
    """How many sets of each size the page says have been run."""
    found = re.search(
        r"held: ([\d,]+) .* ([\d,]+) pairs and a sample of ([\d,]+)", PATH.read_text()
    )
    assert found is not None
    return {n: int(found[n].replace(",", "")) for n in (1, 2, 3)}


def _run_net(work: tuple[str, bool, Set[str]]) -> tuple[dict[int, int], list[str]]:
    """All sets of techniques that apply to one net: how many of each size, and what failed."""
    name, is_alone, added = work
    start = time.perf_counter()
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    suite, zoo = _load_suite()
    net = suite.make_net(name, *zoo.build(name))
    apply = {t.name: suite.build(net, suite.rules_of(t))[0] is not None for t in suite.TECHNIQUES}
    sets = [(technique,) for technique in suite.TECHNIQUES]
    if not is_alone:
        sets += [*suite.pairs(), *_triples(suite, random.Random(name))]
    if added:
        sets = [s for s in sets if len(s) < 3 and any(technique.name in added for technique in s)]
    counts, failures = {1: 0, 2: 0, 3: 0}, []
    for techniques in sets:
        if not all(apply[t.name] for t in techniques):
            continue  # what is left of it is a smaller set
        counts[len(techniques)] += 1
        try:
            suite.run(net, *techniques)
        except Exception:  # noqa: BLE001 - collected and shown
            names = [t.name for t in techniques]
            failures.append(f"{name} {names}\n{traceback.format_exc(limit=-3)}")
    print(f"{name}: {time.perf_counter() - start:.0f} s, {len(failures)} failures", flush=True)
    return counts, failures


def _load_suite() -> tuple[ModuleType, ModuleType]:
    suite = _load("conformance_suite", ROOT / "tests" / "conformance" / "suite.py")
    return suite, _load("zoo", ROOT / "tests" / "zoo.py")


def _page(table: str, counts: Mapping[int, int]) -> str:
    return f"""# What works on what

Written by `scripts/conformance_table.py`; do not edit. Every technique of the search space is
applied to every net of the test zoo: built, trained, exported to ONNX, packed, unpacked and run;
the file must compute what the candidate computes. ✓ means that it holds; a number refers to the
reason below, as `autocompress analyze` prints it.

Run, and held: {counts[1]:,} techniques alone, {counts[2]:,} pairs and a sample of {counts[3]:,}
triples, of those that apply to the net and do not exclude each other.

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
