"""`autocompress export`: one point of a run as a verified bundle."""

from pathlib import Path
from typing import Any

import click

from autocompress.cli.options import json_option, print_json
from autocompress.cli.runs import load_trusted, results_option, trust_option
from autocompress.objective import all_costs
from autocompress.quantities import parse_drop
from autocompress.terminal.printing import echo, echo_line


@click.command()
@click.argument("run", required=False)
@click.option("--trial", type=int, help="Number of the trial to export.")
@click.option(
    "--max-drop",
    metavar="SHARE",
    help="Smallest point of the front that loses at most this much accuracy: 0.01, 1% or 1pt.",
)
@click.option(
    "--by",
    type=click.Choice([cost.name for cost in all_costs()]),
    default="size",
    show_default=True,
    help="What --max-drop makes smallest.",
)
@click.option("--knee", is_flag=True, help="The front's best trade-off.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the bundle; default: results/RUN/exports/POINT.",
)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="NAME",
    help="Write a file for this runtime as well: openvino, openvino_bf16, executorch, "
    "torch_export; may be repeated.",
)
@click.option(
    "--safetensors",
    "has_weights",
    is_flag=True,
    help="Write model.safetensors as well: the weights by PyTorch's names, as floats.",
)
@json_option("Print the manifest as JSON.")
@trust_option
@results_option
def command(
    run: str | None,
    trial: int | None,
    max_drop: str | None,
    by: str,
    knee: bool,
    output: Path | None,
    runtimes: tuple[str, ...],
    has_weights: bool,
    as_json: bool,
    is_trusted: bool,
    results: Path,
) -> None:
    """Write one point of RUN (the newest by default) as a bundle.

    A bundle holds the packed model, the ONNX model, the plan, a manifest with hashes and
    measurements, and a model card. Every file is loaded in a fresh process and scored on the test
    split: the only time that split is read. A runtime that refuses the model is named, and the
    others go on. `autocompress verify` checks later that a bundle still is what it says.
    """
    from autocompress.errors import InputError
    from autocompress.export.bundle import export_point
    from autocompress.export.choose import choose_point
    from autocompress.report.wording import violation_words
    from autocompress.runtime.registry import find_runtime
    from autocompress.study.session import reopen

    if sum((trial is not None, max_drop is not None, knee)) != 1:
        raise InputError("Exactly one of --trial N, --max-drop SHARE and --knee must be given.")
    allowed = None if max_drop is None else parse_drop("--max-drop", max_drop)
    record = load_trusted(run, results, is_trusted=is_trusted)
    point = choose_point(record, trial=trial, max_drop=allowed, by=by)
    if broken := violation_words(record, point):
        echo_line(f"Warning: {point.label} breaks a limit: {', '.join(broken)}.", err=True)
    prepared, evaluator = reopen(record)
    output = output or record.folder / "exports" / f"trial_{point.number:05d}"
    echo_line(f"Exporting {point.label} of {record.name}", err=True)
    for name in runtimes:
        find_runtime(name)
    manifest = export_point(
        record, point, prepared, evaluator, output, runtimes, has_weights=has_weights
    )
    if as_json:
        print_json(manifest)
        return
    figures = manifest["measurements"]
    baseline = manifest["baseline"]
    for name in ("test_accuracy", "val_accuracy", "held_out_accuracy"):
        if figures[name] is not None:
            text = f"{figures[name]:.2%} (baseline {baseline[name]:.2%})"
            echo_line(f"{name.replace('_', ' ')}: {text}", err=True)
    size, base = figures["size_bytes"], baseline["size_bytes"]
    echo(f"size: {size:,} bytes ({base / size:.1f}x smaller)", err=True)
    for name, found in manifest["runtimes"].items():
        echo_line(f"{name}: {_runtime_line(found)}", err=True)
    echo(str(output))


def _runtime_line(found: dict[str, Any]) -> str:
    """What a manifest says about the file of one runtime."""
    from autocompress.quantities import format_ms

    if "error" in found:
        return f"no file. {found['error']}"
    accuracy = found["test_accuracy"] or found["val_accuracy"]
    memory = found["peak_memory_bytes"]
    held = "" if memory is None else f", {memory / 1e6:.1f} MB of memory"
    return (
        f"{format_ms(found['latency_ms'])} ms, {found['speedup']:.2f}x speed "
        f"({found['speedup_low']:.2f}-{found['speedup_high']:.2f}), {accuracy:.2%}{held}"
    )
