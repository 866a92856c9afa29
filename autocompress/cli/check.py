"""`autocompress check`: every contract of a task, before an hour is lost."""

from __future__ import annotations

import shlex
from typing import Any, Final

import click

from autocompress.cli.options import (
    MEASURING,
    json_option,
    print_json,
    search_options,
    task_arguments,
    task_options,
    typed,
)
from autocompress.errors import one_line
from autocompress.objective import LATENCY
from autocompress.terminal.printing import echo

_MUST_FIX: Final = 2
_NOT_PASSED_ON: Final = ("task", "task_option", "budget", "only", "as_json")
_STYLES: Final = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


@click.command(short_help="Check a task before it is searched, and say what to fix.")
@task_options
@search_options("budget", "space", "target", *MEASURING)
@click.option("--only", metavar="NAMES", help="Contracts to look at, with commas between them.")
@json_option("Print everything as JSON.")
def command(
    task: str,
    data: str | None,
    task_args: tuple[str, ...],
    only: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Look at every contract of TASK and say what to fix.

    The model runs, says the same twice, treats rows alone and learns; loss and metric are what they
    must be; splits are disjoint and val was not trained on; what can be pruned, factorized and
    quantized; the runtime gives PyTorch's outputs and the packed file the same bits; a second
    process gets the same model; and how long a search will take. Nothing is written.

    Exit code 0 if a search can start (warnings are allowed), 2 if something must be fixed.
    """
    from autocompress.evaluate.check.registry import check_task
    from autocompress.evaluate.settings import EvaluationSettings
    from autocompress.runs.options import rules_of, settle_options
    from autocompress.search_options import SearchOptions

    options = settle_options(SearchOptions.read(typed(given), task=task))
    settings = EvaluationSettings(
        **{
            **options.settings(),
            "integer": "static" if options.integer == "auto" else options.integer,
        },
        has_latency=LATENCY.name in str(options.objectives),
    )
    found = []
    for checked in check_task(
        task,
        task_arguments(data, task_args),
        settings=settings,
        rules=rules_of(options),
        n_trials=options.budget,
        only=list(filter(None, map(str.strip, (only or "").split(",")))),
    ):
        found.append(checked)
        if not as_json:
            _print(checked)
    n_failed = sum(checked.finding.status == "fail" for checked in found)
    if as_json:
        document = {
            "task": task,
            "ok": n_failed == 0,
            "contracts": [checked.to_json() for checked in found],
        }
        print_json(document)
    else:
        _summarize(
            [checked.finding.status for checked in found], _search_command(task, options.budget)
        )
    if n_failed:
        click.get_current_context().exit(_MUST_FIX)


def _print(checked: Any) -> None:
    from rich.text import Text

    from autocompress.cli.main import in_flags
    from autocompress.terminal.printing import make_console

    finding = checked.finding
    message, fix = in_flags(finding.message, finding.fix, ["check"])
    console = make_console(highlight=False, emoji=False)
    line = Text(f"{finding.status}  ", style=_STYLES[finding.status])
    line.append(f"{checked.name:<14}", style="bold")
    console.print(line, end="")
    # plain Text: brackets in a message are no markup; paths must stay whole to be clicked
    console.print(Text(one_line(message)), soft_wrap=True)
    if fix:
        console.print(Text(f"{'':<20}{one_line(fix)}", style="italic"), soft_wrap=True)


def _search_command(task: str, budget: int) -> str:
    """The command that searches what was checked, with the options that were typed."""
    context = click.get_current_context()
    words = ["autocompress", "search", task, "--budget", str(budget)]
    for parameter in context.command.params:
        name = parameter.name or ""
        is_typed = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if not is_typed or name in _NOT_PASSED_ON:
            continue
        value = context.params[name]
        for one in value if parameter.multiple else (value,):
            words += [parameter.opts[0], str(one)]
    return shlex.join(words)


def _summarize(statuses: list[str], search_command: str) -> None:
    counts = {status: statuses.count(status) for status in _STYLES}
    words = {"pass": "hold", "warn": "warnings", "fail": "to fix", "skip": "could not be told"}
    said = ", ".join(f"{n} {words[status]}" for status, n in counts.items() if n)
    echo(f"\n{said}.", err=True)
    if not counts["fail"]:
        echo(f"Next: {search_command}", err=True)
