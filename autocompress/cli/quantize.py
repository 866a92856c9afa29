"""`autocompress quantize`: an ONNX file in, a smaller one out, without training."""

from pathlib import Path
from typing import Any, Final

import click

from autocompress import option_readers as read
from autocompress.cli.options import print_json
from autocompress.quantities import parse_share
from autocompress.terminal.printing import echo, echo_line

_HARDLY: Final = 0.95  # of the original's bytes


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
    "--judge",
    "judges",
    multiple=True,
    metavar="OUTPUT=KIND",
    help="How an output is judged: classes, threshold, values, cosine or equal; repeatable. "
    "Default: by what it looks like.",
)
@click.option(
    "--labels",
    metavar="FILE",
    help="Labels of the examples, a .npy file: the accuracy of each form is told.",
)
@click.option(
    "--metric",
    metavar="SPEC",
    help="file.py:function(outputs, labels) that returns it; default: share of right classes.",
)
@click.option(
    "--by",
    default="latency",
    show_default=True,
    type=click.Choice(["latency", "size", "download"]),
    help="Take the fastest form, that of the smallest file, or of the smallest compressed file.",
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
    help="Share of decisions or values that must stay what they were, in each output.",
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
    judges: tuple[str, ...],
    labels: str | None,
    metric: str | None,
    by: str,
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
    on calibrated grids, integer kernels on grids of their own) the fastest is taken whose outputs
    stay what they were. Each output is judged by what it is: `classes` by the largest value at each
    place, `threshold` by the side of one half (of 0 beyond [0, 1]), `values` by 5 % of their
    column's spread, embeddings by a `cosine` of 0.99, integers by being `equal`. Shares that sum to
    1 and vectors are taken for classes, vectors of length 1 for embeddings, single values in [0, 1]
    for decisions, everything else for values. Weights that change outputs stay float. Writes
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
            state=dict(_pair("state", "input", text) for text in states),
            judges=dict(_pair("judge", "kind", text) for text in judges),
            labels=labels,
            metric=metric,
            by=by,
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
    judged = ", ".join(f"{name} by {kind}" for name, kind in found["judged"].items())
    echo_line(f"Judged: {judged}", err=True)
    if found["original_accuracy"] is not None:
        echo_line(f"By the labels, {model.name} has {found['original_accuracy']:.2%}", err=True)
    smaller = found["original_bytes"] / found["packed_bytes"]
    echo(
        f"{found['original_bytes']:,} bytes before; model.onnx {found['onnx_bytes']:,}, model.acz "
        f"{found['packed_bytes']:,} ({smaller:.1f}x smaller)",
        err=True,
    )
    if found["onnx_bytes"] > _HARDLY * found["original_bytes"]:
        rows = (row for row in found["forms"] if "onnx_bytes" in row)
        has_smaller = any(row["onnx_bytes"] < found["onnx_bytes"] for row in rows)
        hint = " Another form is smaller: --by size." if has_smaller else ""
        echo_line(f"Warning: model.onnx is hardly smaller than {model.name}.{hint}", err=True)
    echo(str(output))


def _pair(option: str, value: str, text: str) -> tuple[str, str]:
    from autocompress.errors import InputError

    name, separator, given = text.rpartition("=")
    if not (name and separator and given):
        raise InputError(f"`--{option}` must look like output={value}, but got {text!r}.")
    return name, given


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from autocompress.terminal.printing import make_console

    table = Table(box=None, pad_edge=False)
    for title in ("form", "smaller", "agree", "error", "ms", "faster", "95 %"):
        table.add_column(title, justify="left" if title == "form" else "right")
    table.add_column("int nodes", justify="right")
    has_labels = any("accuracy" in row for row in rows)
    if has_labels:
        table.add_column("by labels", justify="right")
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
            *([f"{row['accuracy']:.2%}"] if has_labels else []),
        )
    make_console(highlight=False).print(table)
    for row in rows:
        if "refused" in row:
            echo_line(f"{row['form']}: {row['refused']}", err=True)
