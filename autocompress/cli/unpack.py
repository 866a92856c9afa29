"""`autocompress unpack`: packed model in, runnable ONNX file out."""

from pathlib import Path

import click

from autocompress.terminal.printing import echo


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
    from autocompress.atomic_file import write_atomically
    from autocompress.errors import InputError
    from autocompress.packing.packed import read_packed

    if output is None:
        output = file.with_name(f"{file.stem}.onnx") if file.name else Path("model.onnx")
        if output.exists():
            raise InputError(f"{output} exists.", "Name the file to write with -o.")
    if output.resolve() == file.resolve():
        raise InputError(f"The output must be another file than {file}.", "Name one with -o.")
    packed = read_packed(file)
    write_atomically(output, packed.graph.SerializeToString())
    echo(str(output))
