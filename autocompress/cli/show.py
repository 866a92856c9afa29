"""`autocompress show`: one trial of a run, and whether it comes out the same again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from autocompress.cli.options import json_option, print_json
from autocompress.cli.runs import load_trusted, results_option, trust_option
from autocompress.errors import AutocompressError, InputError
from autocompress.terminal.printing import echo

if TYPE_CHECKING:
    from autocompress.measurement import Measurement
    from autocompress.run_record import RunRecord, TrialRecord

_REPEATED: Final = ("accuracy", "loss", "size_bytes", "macs", "n_params")


@click.command(short_help="Show one trial, and evaluate it again.")
@click.argument("run", required=False)
@click.option("--trial", "number", type=int, required=True, metavar="N", help="Which one.")
@click.option("--rerun", is_flag=True, help="Evaluate it again, with its plan and its seed.")
@json_option("Print everything as JSON.")
@trust_option
@results_option
def command(
    run: str | None, number: int, rerun: bool, as_json: bool, is_trusted: bool, results: Path
) -> None:
    """Show trial N of RUN (the newest by default): figures, plan, and why it failed if it did.

    A trial is decided by its plan and its seed, whatever else ran beside it: `--rerun` builds,
    tunes and measures it once more in this process, and ends with 1 if accuracy, loss or size
    differ. Nothing is written.
    """
    record = load_trusted(run, results, is_trusted=is_trusted)
    if not 0 <= number < len(record.trials):
        raise InputError(
            f"The run {record.name!r} has no trial {number}.",
            f"Its trials are 0 to {len(record.trials) - 1}.",
        )
    trial = record.trials[number]
    again = _evaluated(record, trial) if rerun else None
    if as_json:
        shown = {field: getattr(trial, field) for field in ("number", "role", "label", "state")}
        shown |= {"reason": trial.reason, "plan": trial.plan.to_json()}
        shown |= {"measurement": _json(trial.measurement)}
        print_json({**shown, **({"rerun": _json(again)} if again else {})})
    else:
        _print(trial, again)
    if again is not None and (different := _different(trial, again)):
        raise AutocompressError(
            f"{trial.label} came out differently: {', '.join(different)}.",
            "Versions, threads or the machine differ from the search's: see run.json.",
        )


def _evaluated(run: RunRecord, trial: TrialRecord) -> Measurement:
    from autocompress.executors.inline import attempted
    from autocompress.study.running_trials import trial_seed
    from autocompress.study.session import comparable, reopen

    if trial.measurement is None:
        raise InputError(
            f"{trial.label} of {run.name!r} is {trial.state}, not complete.", trial.reason or ""
        )
    measured = trial.measurement
    _, evaluator = reopen(run)
    seed = trial_seed(run.info["seed"], trial.number)
    again = attempted(
        lambda: evaluator.evaluate(
            trial.plan,
            seed=seed,
            fidelity=measured.fidelity,
            has_half_batch=measured.has_half_batch,
        )
    )
    return comparable(run, again)


def _json(measurement: Measurement | None) -> dict[str, Any] | None:
    return None if measurement is None else dataclasses.asdict(measurement)


def _different(trial: TrialRecord, again: Measurement) -> list[str]:
    pairs = ((name, getattr(trial.measurement, name), getattr(again, name)) for name in _REPEATED)
    return [f"{name} {then} then, {now} now" for name, then, now in pairs if then != now]


def _print(trial: TrialRecord, again: Measurement | None) -> None:
    from autocompress.report.wording import plan_lines

    lines = [f"{trial.label}: {trial.state}" + (f" ({trial.reason})" if trial.reason else "")]
    for title, measured in (("search", trial.measurement), ("rerun", again)):
        if measured is not None:
            facts = ((name, getattr(measured, name)) for name in (*_REPEATED, "latency_ms"))
            lines.append(f"{title:8}" + ", ".join(f"{n} {v}" for n, v in facts if v is not None))
    echo("\n".join([*lines, "", *plan_lines(trial.plan)]))
