"""`autocompress quantize`: an ONNX file in, a smaller one out, without training."""

from pathlib import Path
from typing import Any

import click

from autocompress import option_readers as read
from autocompress.cli.options import print_json
from autocompress.quantities import parse_share
from autocompress.terminal.printing import echo, echo_line


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
    "--timeout",
    default="10min",
    show_default=True,
    metavar="TIME",
    help="Time that one run of the model may take.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="Memory that all of it may take, such as 4GB; default: 80 % of what is free.",
)
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
    timeout: str,
    memory: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Quantize the ONNX file MODEL: no PyTorch model, no training.

    Weights become integers with a scale per channel. Of three forms (weights only, integer kernels
    on calibrated grids, integer kernels on grids of their own) the fastest is taken whose decisions
    stay what they were on enough of the examples; a decision is the largest output, or whether a
    single one is above one half. Weights with which decisions change stay float. Writes
    OUTPUT/model.onnx, which runs wherever MODEL runs, and OUTPUT/model.acz, which is smaller still.
    MODEL runs in a process of its own, which is ended if it hangs or takes too much memory.
    """
    from autocompress.errors import InputError
    from autocompress.export.quantize_process import quantize_apart
    from autocompress.terminal.progress_bar import StepLine

    if not 2 <= bits <= 8:
        raise InputError(f"`--bits` must be in 2 to 8, but got {bits}.")
    if threads < 1:
        raise InputError(f"`--threads` must be positive, but got {threads}.")
    output = output or model.parent / f"{model.stem}-quantized"
    with StepLine(f"Quantizing {model.name}") as line:
        found = quantize_apart(
            model,
            data,
            output,
            patience_s=read.SECONDS("timeout", timeout),
            memory_bytes=None if memory is None else read.SIZE("memory", memory),
            on_step=line.tell,
            state=dict(map(_parse_state, states)),
            bits=bits,
            least_agreement=parse_share("--min-agreement", min_agreement),
            threads=threads,
        )
    if as_json:
        print_json(found)
        return
    _print(found["forms"])
    if found["left_float"]:
        echo_line(f"Left as floats: {', '.join(found['left_float'])}", err=True)
    smaller = found["original_bytes"] / found["packed_bytes"]
    echo(
        f"{found['original_bytes']:,} bytes before; model.onnx {found['onnx_bytes']:,}, model.acz "
        f"{found['packed_bytes']:,} ({smaller:.1f}x smaller)",
        err=True,
    )
    echo(str(output))


def _parse_state(text: str) -> tuple[str, str]:
    from autocompress.errors import InputError

    source, separator, target = text.partition("=")
    if not (source and separator and target):
        raise InputError(f"`--state` must look like output=input, but got {text!r}.")
    return source, target


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
            echo_line(f"{row['form']}: {row['refused']}", err=True)
