"""`autocompress resume`: continue a run by its name."""

from collections.abc import Set
from pathlib import Path
from typing import Any

import click

from autocompress.cli.options import json_option, track_option
from autocompress.cli.runs import load_trusted, results_option, trust_option


@click.command(short_help="Continue a run with the options it was started with.")
@click.argument("run", required=False)
@click.option("--budget", type=int, help="Finished trials the run shall hold; default: as before.")
@click.option("--until-stalled", type=int, metavar="N", help="As in `search`; default: as before.")
@click.option("--timeout", metavar="TIME", help="End after this time, such as 30m or 2h.")
@click.option("--jobs", type=int, help="Trials at once; default: as before.")
@track_option
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
@json_option("Print the front as JSON.")
@trust_option
@results_option
def command(
    run: str | None,
    timeout: str | None,
    track: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    is_trusted: bool,
    results: Path,
    **changes: Any,
) -> None:
    """Continue the search of RUN (the newest by default) with the options it was last given.

    The same as repeating its `search` command, with another --budget perhaps, from any folder.
    """
    from autocompress.cli.search import NOT_KEPT
    from autocompress.cli.search import command as search
    from autocompress.errors import InputError
    from autocompress.tasks.trust import check_trusted

    record = load_trusted(run, results, is_trusted=is_trusted)
    check_trusted(record.name, record.info["task"], record.info["arguments"])
    context = search.make_context("search", [], resilient_parsing=True)
    options = context.params
    known = options.keys() - set(NOT_KEPT)
    given = _checked(record.info.get("options"), search, context, known)
    if given is None:
        raise InputError(
            f"The run {record.name!r} does not say which options it was started with.",
            "Repeat its search command.",
        )
    assert search.callback is not None
    changed = {name: value for name, value in changes.items() if value is not None}
    search.callback(
        **{name: {**options, **given, **changed}[name] for name in known},
        task=record.info["task"],
        data=None,
        task_args=tuple(f"{name}={text}" for name, text in record.info["arguments"].items()),
        name=record.folder.resolve().name,
        results=record.folder.resolve().parent,
        storage=None,  # the run folder says where it is
        timeout=timeout,
        track=track,
        quiet=quiet,
        as_json=as_json,
    )


def _checked(
    given: Any, search: click.Command, context: click.Context, known: Set[str]
) -> dict[str, Any] | None:
    """Options as a run kept them, each as its option takes it; None if they make no sense."""
    if not isinstance(given, dict) or not given.keys() <= known:
        return None
    kinds = {parameter.name: parameter for parameter in search.params}
    try:
        return {name: kinds[name].type_cast_value(context, value) for name, value in given.items()}
    except (click.ClickException, TypeError, ValueError):
        return None
