"""`autocompress unpack`: packed model in, runnable ONNX file out."""

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="ONNX file to write; default: FILE with the ending .onnx.",
)
def command(file: Path, output: Path | None) -> None:
    """Turn the packed model FILE into an ONNX file that runs in ONNX Runtime."""
    from autocompress.errors import InputError, first_line
    from autocompress.packing.packed import read_packed

    output = output or file.with_suffix(".onnx")
    if output.resolve() == file.resolve():
        raise InputError(f"The output must be another file than {file}.", "Name one with -o.")
    packed = read_packed(file)
    temporary = output.with_name(f".{output.name}.tmp")
    try:
        temporary.write_bytes(packed.graph.SerializeToString())
        temporary.replace(output)
    except OSError as error:
        raise InputError(f"{output} cannot be written: {first_line(error)}.") from error
    click.echo(str(output))
