"""`autocompress bench`: time files side by side."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autocompress.terminal.printing import echo

if TYPE_CHECKING:
    from autocompress.export.bench import BenchRow


_PLAIN_WIDTH = 140


@click.command(short_help="Time exported files side by side.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="NAME",
    help="Who runs them: onnxruntime, openvino, openvino_bf16, executorch; may be repeated, for a "
    "row each. Default: by the file's ending.",
)
@click.option("--threads", default=1, show_default=True, help="Threads inside an operator.")
@click.option("--batch", "batch_size", default=1, show_default=True, help="Examples per inference.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="INPUT=N,N,...",
    help="Shape of an input with free dimensions besides the batch; may be repeated.",
)
@click.option("--seconds", default=1.0, show_default=True, help="Time to spend on each file.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def command(
    files: tuple[Path, ...],
    runtimes: tuple[str, ...],
    threads: int,
    batch_size: int,
    shapes: tuple[str, ...],
    seconds: float,
    as_json: bool,
) -> None:
    """Time FILES (.onnx, .acz, OpenVINO's .xml, ExecuTorch's .pte), block by block in turns.

    The first is what the others are compared with, and timed twice: what it differs from itself by
    is noise. A difference counts only if the 95 % confidence interval of the median ratio lies
    beyond that. Inputs are random, integers zero. Memory is the most that loading and running took,
    beyond the runtime's own. A file that crashes its runtime spoils its own row only.
    """
    from autocompress.errors import AutocompressError, InputError
    from autocompress.export.bench import bench

    for name, value in (("threads", threads), ("batch", batch_size), ("seconds", seconds)):
        if not 0 < value < float("inf"):
            raise InputError(f"`--{name}` must be positive, but got {value:g}.")
    found = bench(
        files,
        runtimes=runtimes,
        threads=threads,
        batch_size=batch_size,
        shapes=dict(map(_parse_shape, shapes)),
        seconds=seconds,
    )
    if as_json:
        rows = [_as_json(row) for row in found.rows]
        echo(json.dumps({"noise": found.noise, "files": rows}, indent=2))
    else:
        _print(found.rows)
        echo(f"Noise: {found.noise:.1%}. Differences below it are not told.", err=True)
    failed = [row for row in found.rows if row.error]
    if failed:
        raise AutocompressError(
            f"{len(failed)} of {len(found.rows)} did not run. {failed[0].path}: {failed[0].error}"
        )


def _parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    from autocompress.errors import InputError

    name, _, sizes = text.rpartition("=")
    parts = sizes.split(",")
    if not name or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"`--shape` must look like input=1,3,32,32, but got {text!r}.")
    return name, tuple(map(int, parts))


def _as_json(row: BenchRow) -> dict[str, Any]:
    return {**dataclasses.asdict(row), "path": str(row.path)}


def _print(rows: Sequence[BenchRow]) -> None:
    from rich.table import Table

    from autocompress.terminal.printing import make_console

    table = Table(box=None, pad_edge=False)
    table.add_column("file", overflow="fold", min_width=20)
    table.add_column("runtime", no_wrap=True)
    for title in ("size", "memory", "ms", "spread", "faster", "95 %"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row.path),
            row.runtime,
            f"{row.size_bytes / 1e3:,.1f} kB",
            "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e6:.1f} MB",
            *_figures(row),
            row.verdict.replace("measurable ", ""),
        )
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    make_console(width=width, highlight=False).print(table)


def _figures(row: BenchRow) -> tuple[str, str, str, str]:
    """Milliseconds, their spread, the ratio and its interval."""
    if row.median_ms is None:
        return "", "", "", ""
    milliseconds, spread = f"{row.median_ms:.4g}", f"{row.spread_ms:.2g}"
    if row.verdict == "reference":
        return milliseconds, spread, "", ""
    interval = f"{row.speedup_low:.2f}-{row.speedup_high:.2f}"
    return milliseconds, spread, f"{row.speedup:.2f}x", interval
