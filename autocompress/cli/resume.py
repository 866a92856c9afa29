"""`autocompress resume`: continue a run by its name."""

from pathlib import Path
from typing import Any

import click

from autocompress.cli.options import json_option, search_options, typed
from autocompress.cli.runs import load_trusted, results_option, trust_option

_CHANGEABLE = ("budget", "until_stalled", "jobs")


@click.command(short_help="Continue a run with the options it was started with.")
@click.argument("run", required=False)
@search_options(*_CHANGEABLE, default="as before")
@search_options("timeout", "track")
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
@json_option("Print the front as JSON.")
@trust_option
@results_option
def command(
    run: str | None,
    quiet: bool,
    as_json: bool,
    is_trusted: bool,
    results: Path,
    **changes: Any,
) -> None:
    """Continue the search of RUN (the newest by default) with the options it was last given.

    The same as repeating its `search` command, with another --budget perhaps, from any folder.
    """
    from autocompress.cli.search import run_search_command
    from autocompress.errors import InputError
    from autocompress.search_options import SearchOptions
    from autocompress.tasks.trust import check_trusted

    record = load_trusted(run, results, is_trusted=is_trusted)
    check_trusted(record.name, record.info["task"], record.info["arguments"])
    folder = record.folder.resolve()
    try:
        kept = SearchOptions.from_json(record.info.get("options"))
    except InputError as error:
        raise InputError(
            f"The run {record.name!r} does not say which options it was started with: "
            f"{error.message}",
            "Repeat its search command.",
        ) from error
    options = kept.changed(
        typed(changes),
        task=record.info["task"],
        arguments=record.info["arguments"],
        name=folder.name,
        results=folder.parent,
    )
    run_search_command(options, quiet=quiet, as_json=as_json)
