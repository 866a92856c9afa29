"""`autocompress export`: one point of a run as a verified bundle."""

import json
from pathlib import Path

import click

from autocompress.cli.quantities import parse_share
from autocompress.cli.runs import load_trusted, results_option, trust_option


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
    type=click.Choice(["size", "latency"]),
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
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
@trust_option
@results_option
def command(
    run: str | None,
    trial: int | None,
    max_drop: str | None,
    by: str,
    knee: bool,
    output: Path | None,
    as_json: bool,
    is_trusted: bool,
    results: Path,
) -> None:
    """Write one point of RUN (the newest by default) as a bundle.

    A bundle holds the packed model, the ONNX model, the plan, a manifest with hashes and
    measurements, and a model card. The ONNX file is loaded in a fresh process and scored on the
    test split: the only time that split is read.
    """
    from autocompress.errors import InputError
    from autocompress.export.bundle import export_point
    from autocompress.export.choose import choose_point
    from autocompress.report.limits import violation_words
    from autocompress.search.session import reopen

    if sum((trial is not None, max_drop is not None, knee)) != 1:
        raise InputError("Exactly one of --trial N, --max-drop SHARE and --knee must be given.")
    allowed = None if max_drop is None else parse_share("--max-drop", max_drop)
    record = load_trusted(run, results, is_trusted=is_trusted)
    point = choose_point(record, trial=trial, max_drop=allowed, by=by)
    if broken := violation_words(record, point):
        click.echo(f"Warning: {point.label} breaks a limit: {', '.join(broken)}.", err=True)
    prepared, evaluator = reopen(record)
    output = output or record.folder / "exports" / f"trial_{point.number:05d}"
    click.echo(f"Exporting {point.label} of {record.name}", err=True)
    manifest = export_point(record, point, prepared, evaluator, output)
    if as_json:
        click.echo(json.dumps(manifest, indent=2))
        return
    figures = manifest["measurements"]
    baseline = manifest["baseline"]
    for name in ("test_accuracy", "val_accuracy", "held_out_accuracy"):
        if figures[name] is not None:
            text = f"{figures[name]:.2%} (baseline {baseline[name]:.2%})"
            click.echo(f"{name.replace('_', ' ')}: {text}", err=True)
    size, base = figures["size_bytes"], baseline["size_bytes"]
    click.echo(f"size: {size:,} bytes ({base / size:.1f}x smaller)", err=True)
    speedup = figures["baseline_latency_ms"] / figures["latency_ms"]
    click.echo(f"latency: {figures['latency_ms']:.3f} ms ({speedup:.2f}x speed)", err=True)
    click.echo(str(output))
