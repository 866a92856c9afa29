"""`autocompress bench`: time files side by side."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from autocompress.export.bench import BenchRow


@click.command(short_help="Time ONNX and packed files side by side.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--threads", default=1, show_default=True, help="Threads inside an operator.")
@click.option("--batch", default=1, show_default=True, help="Examples per inference.")
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
    threads: int,
    batch: int,
    shapes: tuple[str, ...],
    seconds: float,
    as_json: bool,
) -> None:
    """Time FILES (.onnx, .acz) in ONNX Runtime, block by block in turns.

    The first is what the others are compared with, and timed twice: what it differs from itself by
    is noise. A difference counts only if the 95 % confidence interval of the median ratio lies
    beyond that. Inputs are random, integers zero.
    """
    from autocompress.errors import InputError
    from autocompress.export.bench import bench

    for name, value in (("threads", threads), ("batch", batch), ("seconds", seconds)):
        if not 0 < value < float("inf"):
            raise InputError(f"`--{name}` must be positive, but got {value:g}.")
    found = bench(
        files,
        threads=threads,
        batch_size=batch,
        shapes=dict(map(_parse_shape, shapes)),
        seconds=seconds,
    )
    if as_json:
        rows = [_as_json(row) for row in found.rows]
        click.echo(json.dumps({"noise": found.noise, "files": rows}, indent=2))
    else:
        _print(found.rows)
        click.echo(f"Noise: {found.noise:.1%}. Differences below it are not told.", err=True)


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
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("file", overflow="fold")
    for title in ("size", "ms", "spread", "faster", "95 %"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        is_first = row.verdict == "reference"
        interval = f"{row.speedup_low:.2f}-{row.speedup_high:.2f}"
        table.add_row(
            str(row.path),
            f"{row.size_bytes / 1e3:,.1f} kB",
            f"{row.median_ms:.4g}",
            f"{row.spread_ms:.2g}",
            "" if is_first else f"{row.speedup:.2f}x",
            "" if is_first else interval,
            row.verdict.replace("measurable ", ""),
        )
    Console(highlight=False).print(table)
