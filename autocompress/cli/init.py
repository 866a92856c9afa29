"""`autocompress init`: a task file that runs, to put your own model and data in."""

import shlex
from pathlib import Path

import click


@click.command(short_help="Write a task file that runs, to put your own model and data in.")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default=Path("my_task.py"))
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def command(path: Path, force: bool) -> None:
    """Write a commented task file to PATH (my_task.py by default).

    It runs as it stands, on a small net and scikit-learn's digits; four places are marked to put
    your own model, data, loss and metric, and tuning in.
    """
    from autocompress.atomic_file import write_atomically
    from autocompress.cli.starter import TEMPLATE
    from autocompress.errors import InputError

    path = path.expanduser()
    if path.suffix != ".py":
        raise InputError(
            f"A task file must be a Python file (.py), but got {path}.",
            f"For example: autocompress init {path.with_suffix('.py')}",
        )
    if path.exists() and not force:
        raise InputError(f"{path} exists already.", "Choose another name, or add --force.")
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in path.stem)
    typed = shlex.quote(path.as_posix())
    write_atomically(path, TEMPLATE.format(path=typed, name=name))
    click.echo(f"Wrote {path}: it runs as it stands. Edit the four places marked with EDIT.\n")
    click.echo(f"  autocompress check {typed}")
    click.echo(f"  autocompress search {typed} --budget 50")
    click.echo("  autocompress export --max-drop 0.01")
