"""`autocompress analyze`: layers, channel groups and knobs of a task's model."""

import dataclasses
from math import inf
from typing import Any

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


@click.command()
@task_options
@search_options("space")
@click.option(
    "--sensitivity",
    is_flag=True,
    help="Measure what every level of every knob does by itself. The options below belong to it.",
)
@click.option(
    "--latency/--no-latency",
    "has_latency",
    default=True,
    show_default=True,
    help="Time every level in the runtime.",
)
@search_options("target", *MEASURING)
@click.option(
    "--level-timeout", default=600.0, show_default=True, help="Seconds one level may take."
)
@json_option("Print everything as JSON.")
def command(
    task: str,
    data: str | None,
    task_args: tuple[str, ...],
    sensitivity: bool,
    has_latency: bool,
    level_timeout: float,
    as_json: bool,
    **given: Any,
) -> None:
    """Show what can be compressed in TASK's model, and what gets no knob and why.

    With --sensitivity also what it does: divergence from the model, size of the packed file and
    latency of every level, measured without training. Levels that another one beats are marked; a
    search leaves them out. What was measured is kept and not measured again; a measurement that was
    stopped goes on.
    """
    from autocompress.runs.options import rules_of, settle_options
    from autocompress.search_options import SearchOptions

    arguments = task_arguments(data, task_args)
    options = settle_options(SearchOptions.read(typed(given), task=task, arguments=arguments))
    if sensitivity:
        _measure(options, has_latency=has_latency, timeout_s=level_timeout, as_json=as_json)
        return
    from autocompress.analysis.profile import profile_model
    from autocompress.space.build import build_space
    from autocompress.tasks.factory import load_task
    from autocompress.tasks.prepare import prepare_task
    from autocompress.tasks.user_code import naming_user_code

    rules = rules_of(options)
    loaded = load_task(task, arguments)
    with naming_user_code():
        prepared = prepare_task(loaded)
    profile = profile_model(prepared.task.model, prepared.example_inputs)
    built = build_space(profile, rules)
    if as_json:
        print_json(_as_json(profile, built))
    else:
        _print(profile, built)


def _measure(options: Any, *, has_latency: bool, timeout_s: float, as_json: bool) -> None:
    from autocompress.cli.sensitivity_table import (
        measure_sensitivity,
        print_sensitivity,
        sensitivity_json,
    )
    from autocompress.errors import InputError
    from autocompress.runs.options import rules_of

    if not 0.0 < timeout_s < inf:
        raise InputError(f"`level_timeout` must be positive, but got {timeout_s:g}.")
    found = measure_sensitivity(
        options.task,
        options.arguments,
        rules_of(options),
        timeout_s=timeout_s,
        has_latency=has_latency,
        **options.settings(),
    )
    if as_json:
        session = found.session
        known = _as_json(session.evaluator.profile, session.built)
        print_json({**known, "sensitivity": sensitivity_json(found)})
    else:
        print_sensitivity(found)


def _as_json(profile: Any, built: Any) -> dict[str, Any]:
    return {
        "n_params": profile.n_params,
        "macs": profile.macs,
        "layers": [dataclasses.asdict(layer) for layer in profile.layers],
        "groups": [
            {
                "name": group.name,
                "n_channels": group.n_channels,
                "block": group.block,
                "members": [{"layer": m.layer, "side": m.side} for m in group.members],
            }
            for group in profile.groups
        ],
        "refused_groups": dict(profile.refused_groups),
        "blocks": list(profile.blocks),
        "refused_blocks": dict(profile.refused_blocks),
        "methods": [dataclasses.asdict(method) for method in built.space.methods],
        "knobs": [{"name": knob.name, **dataclasses.asdict(knob)} for knob in built.space.knobs],
        "refused": [
            {"technique": kind, "target": target, "reason": reason}
            for (kind, target), reason in built.refused.items()
        ],
    }


def _print(profile: Any, built: Any) -> None:
    from autocompress.technique import TECHNIQUES
    from autocompress.terminal.printing import make_console

    console = make_console(highlight=False)
    console.print(f"{profile.n_params:,} parameters, {profile.macs:,} MACs per example\n")
    console.print(_layer_table(profile))
    console.print(_group_table(profile))
    if profile.blocks:
        console.print(f"Blocks that can be left out: {', '.join(profile.blocks)}\n")
    console.print(_knob_table(built.space.knobs))
    refused: dict[tuple[str, str], list[str]] = {}
    for (kind, target), reason in built.refused.items():
        refused.setdefault((kind, reason), []).append(target)
    of_model = {"group": profile.refused_groups, "block": profile.refused_blocks, "layer": {}}
    for technique in TECHNIQUES.values():
        for target, reason in of_model[technique.acts_on].items():
            targets = refused.setdefault((technique.kind, reason), [])
            if target not in targets:
                targets.append(target)
    if refused:
        console.print("No knob", style="bold")
    for (kind, reason), targets in refused.items():
        shown = ", ".join(targets[:4]) + (f" and {len(targets) - 4} more" if targets[4:] else "")
        console.print(f"  {kind} of {shown}: {reason}", soft_wrap=True)


def _level(level: float | str) -> str:
    return (level or "-") if isinstance(level, str) else f"{level:g}"


def _table(title: str, *columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        is_number = column in ("params", "MACs", "channels", "layers")
        table.add_column(
            column, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number
        )
    return table


def _layer_table(profile: Any) -> Any:

    table = _table("Layers", "name", "kind", "weight", "params", "MACs")
    for layer in profile.layers:
        shape = "x".join(map(str, layer.weight_shape))
        table.add_row(layer.name, layer.kind, shape, f"{layer.n_params:,}", f"{layer.macs:,}")
    return table


def _group_table(profile: Any) -> Any:

    table = _table("Channel groups: cut together", "name", "channels", "members")
    for group in profile.groups:
        members = ", ".join(dict.fromkeys(member.layer for member in group.members))
        n_units = str(group.n_channels)
        channels = n_units if group.block == 1 else f"{n_units} x {group.block}"
        table.add_row(group.name, channels, members)
    return table


def _knob_table(knobs: Any) -> Any:

    table = _table(f"Knobs: {len(knobs)}", "technique", "target", "levels", "layers")
    for knob in knobs:
        levels = " ".join(_level(level) for level in knob.levels)
        table.add_row(knob.kind, knob.label, levels, str(len(knob.targets)))
    return table
