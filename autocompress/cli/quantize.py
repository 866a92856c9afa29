"""`autocompress quantize`: an ONNX file in, a smaller one out, without training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autocompress.quantities import parse_share
from autocompress.terminal.printing import echo

if TYPE_CHECKING:
    from autocompress.export.post_training import PostTraining


@click.command(short_help="Quantize an ONNX file without training.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Examples: a .npz file, input name -> array with examples in dimension 0.",
)
@click.option(
    "--state",
    "states",
    multiple=True,
    metavar="OUTPUT=INPUT",
    help="An output that the next example takes as an input, which starts at zero; repeatable.",
)
@click.option(
    "--bits",
    default=7,
    show_default=True,
    help="Bits of stored weights, 2 to 8. With 8, integer kernels saturate on x86 without VNNI.",
)
@click.option(
    "--min-agreement",
    default="99%",
    show_default=True,
    metavar="SHARE",
    help="Share of examples whose decision must stay what it was.",
)
@click.option("--threads", default=1, show_default=True, help="Threads of the runtime.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to; default: MODEL-quantized beside it.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def command(
    model: Path,
    data: Path,
    states: tuple[str, ...],
    bits: int,
    min_agreement: str,
    threads: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Quantize the ONNX file MODEL: no PyTorch model, no training.

    Weights become integers with a scale per channel. Of three forms (weights only, integer kernels
    on calibrated grids, integer kernels on grids of their own) the fastest is taken whose decisions
    stay what they were on enough of the examples; a decision is the largest output, or whether a
    single one is above one half. Weights with which decisions change stay float. Writes
    OUTPUT/model.onnx, which runs wherever MODEL runs, and OUTPUT/model.acz, which is smaller still.
    """
    from autocompress.errors import InputError
    from autocompress.export.post_training import quantize_file

    if not 2 <= bits <= 8:
        raise InputError(f"`--bits` must be in 2 to 8, but got {bits}.")
    if threads < 1:
        raise InputError(f"`--threads` must be positive, but got {threads}.")
    output = output or model.parent / f"{model.stem}-quantized"
    result = quantize_file(
        model,
        data,
        output,
        state=dict(map(_parse_state, states)),
        bits=bits,
        least_agreement=parse_share("--min-agreement", min_agreement),
        threads=threads,
    )
    rows = list(_rows(result))
    if as_json:
        facts = {
            "original_bytes": result.original_bytes,
            "packed_bytes": result.packed_bytes,
            "left_float": list(result.left_float),
            "forms": rows,
        }
        echo(json.dumps(facts, indent=2))
        return
    _print(rows)
    if result.left_float:
        echo(f"Left as floats: {', '.join(result.left_float)}", err=True)
    smaller = result.original_bytes / result.packed_bytes
    echo(
        f"{result.original_bytes:,} bytes before; model.onnx {result.chosen.n_bytes:,}, model.acz "
        f"{result.packed_bytes:,} ({smaller:.1f}x smaller)",
        err=True,
    )
    echo(str(output))


def _parse_state(text: str) -> tuple[str, str]:
    from autocompress.errors import InputError

    source, separator, target = text.partition("=")
    if not (source and separator and target):
        raise InputError(f"`--state` must look like output=input, but got {text!r}.")
    return source, target


def _rows(result: PostTraining) -> Iterator[dict[str, Any]]:
    """What a table says about each form, as JSON."""
    for made in result.forms:
        yield {
            "form": made.form,
            "chosen": made is result.chosen,
            "onnx_bytes": made.n_bytes,
            "smaller": result.original_bytes / made.n_bytes,
            "agreement": made.agreement,
            "largest_error": made.error,
            "latency_ms": made.latency.median_ms,
            "speedup": 1.0 / made.latency.ratio,
            "speedup_low": 1.0 / made.latency.ratio_high,
            "speedup_high": 1.0 / made.latency.ratio_low,
            "integer_nodes": made.n_integer_nodes,
        }
    for form, why in result.refused.items():
        yield {"form": form, "chosen": False, "refused": why}


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from autocompress.terminal.printing import make_console

    table = Table(box=None, pad_edge=False)
    for title in ("form", "smaller", "decisions", "error", "ms", "faster", "95 %"):
        table.add_column(title, justify="left" if title == "form" else "right")
    table.add_column("int nodes", justify="right")
    for row in rows:
        if "refused" in row:
            continue
        table.add_row(
            f"{row['form']} {'(taken)' if row['chosen'] else ''}",
            f"{row['smaller']:.2f}x",
            f"{row['agreement']:.2%}",
            f"{row['largest_error']:.2g}",
            f"{row['latency_ms']:.4g}",
            f"{row['speedup']:.2f}x",
            f"{row['speedup_low']:.2f}-{row['speedup_high']:.2f}",
            str(row["integer_nodes"]),
        )
    make_console(highlight=False).print(table)
    for row in rows:
        if "refused" in row:
            echo(f"{row['form']}: {row['refused']}", err=True)
