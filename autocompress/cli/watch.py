"""`autocompress watch`: a run's report in the browser, up to date while the search goes on."""

from __future__ import annotations

import contextlib
import os
import secrets
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autocompress.cli.runs import resolve_run, results_option
from autocompress.terminal.printing import echo

if TYPE_CHECKING:
    from autocompress.report.live_page import LivePage

_NICE = 10


@click.command(short_help="Serve a run's report, up to date while it is searched.")
@click.argument("run", required=False)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port on 127.0.0.1; default: a free one.",
)
@click.option("--open", "is_opened", is_flag=True, help="Open it in a browser.")
@results_option
def command(run: str | None, port: int, is_opened: bool, results: Path) -> None:
    """Serve the report of RUN (the newest by default) on 127.0.0.1 and print its address.

    The page updates itself while the search runs, and can only be read. Its address holds a random
    token, without which there is no answer; a new one each time. Searching is not disturbed: the
    study is opened for reading, for a moment, once per change, however many look at the page.
    Ctrl-C ends it. From another machine: `ssh -L PORT:127.0.0.1:PORT HOST`, with --port.

    Who prefers optuna-dashboard lets it have a copy of the study, which it may then change at
    will:

    \b
    python -c "import sqlite3, sys; a, b = map(sqlite3.connect, sys.argv[1:]); a.backup(b)" \\
        results/RUN/study.db copy.db
    optuna-dashboard sqlite:///copy.db
    """
    from autocompress.report.watch_server import WatchServer

    folder = resolve_run(run, results)
    server = WatchServer(page_of(folder), secrets.token_urlsafe(), port)
    with server:
        echo(server.url)
        echo(f"Serving {folder} until Ctrl-C.", err=True)
        if is_opened and not webbrowser.open(server.url):
            echo("Warning: no browser was found; open the address yourself.", err=True)
        if hasattr(os, "nice"):
            with contextlib.suppress(OSError):
                os.nice(_NICE)  # trials come first
        server.serve_forever(poll_interval=0.2)


def page_of(folder: Path) -> LivePage:
    """The page of a run folder, which may vanish and come back."""
    from autocompress.errors import InputError
    from autocompress.report.live_page import LivePage
    from autocompress.run_record import RunRecord
    from autocompress.runs.repeats import find_repeats
    from autocompress.storages.open_storage import change_stamp, drivers_of
    from autocompress.study.records import load_run

    def load() -> tuple[RunRecord, tuple[RunRecord, ...]]:
        if not folder.is_dir():
            raise InputError(f"The run folder {folder} is gone.", "Was it moved or deleted?")
        run = load_run(folder)
        return run, find_repeats(run)

    return LivePage(
        stamp=lambda: change_stamp(folder),
        load=load,
        is_driven=lambda: bool(drivers_of(folder)),
    )
