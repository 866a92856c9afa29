"""`autocompress verify`: does a bundle keep what its manifest promises?"""

import dataclasses
from pathlib import Path

import click

from autocompress.cli.options import (
    argument_options,
    json_option,
    print_json,
    task_arguments,
)
from autocompress.terminal.printing import echo, echo_line

EXIT_CODES = {"files": 10, "sizes": 11, "outputs": 12, "accuracy": 13, "latency": 14}
"""Promise -> exit code when it is broken; of several the first."""


@click.command(short_help="Check a bundle: hashes, sizes, outputs, accuracy, latency.")
@click.argument("bundle", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--task",
    metavar="TASK",
    help="What the model was made for, as in `search`; default: that of the run the bundle lies "
    "in. Without one accuracy and latency are not checked.",
)
@argument_options
@click.option(
    "--cpu",
    metavar="NAME",
    help="Also run model.onnx as on another processor, avx2 or sse4, in QEMU's user emulation.",
)
@json_option("Print the checks as JSON.")
def command(
    bundle: Path,
    task: str | None,
    data: str | None,
    task_args: tuple[str, ...],
    cpu: str | None,
    as_json: bool,
) -> None:
    """Check that BUNDLE keeps what its manifest promises, and say what it does not.

    Files must have their hashes and sizes, the packed file must compute what the ONNX file does;
    with the task, every runnable file is scored and timed again. An accuracy may differ by 0.2
    points; a speedup may be lower by 10 % beyond both confidence intervals, and is compared on the
    same processor and version only. With --cpu the ONNX file must answer there as it does here: on
    200 examples of val, or on random inputs without a task.

    Exit code: 0 if nothing is broken, else that of the first broken promise: 10 files, 11 sizes,
    12 outputs, 13 accuracy, 14 latency.
    """
    from autocompress.errors import BrokenPromiseError
    from autocompress.export.manifest import read_manifest
    from autocompress.export.verify import verify_bundle
    from autocompress.tasks.factory import load_task

    read_manifest(bundle)  # before a task is loaded
    arguments = task_arguments(data, task_args)
    if task is None:
        task, arguments = _task_of_run(bundle, arguments)
    loaded = None if task is None else load_task(task, arguments)
    checks = []
    for check in verify_bundle(bundle, loaded, cpu):
        checks.append(check)
        if not as_json:
            echo_line(f"{check.verdict}: {check.promise} of {check.what}: {check.note}")
    if as_json:
        print_json([dataclasses.asdict(check) for check in checks])
    broken = [check.promise for check in checks if check.verdict == "broken"]
    if broken:
        first = min(broken, key=lambda promise: EXIT_CODES[promise])
        names = ", ".join(dict.fromkeys(broken))
        raise BrokenPromiseError(
            f"The bundle {bundle} breaks its promise: {names}.", EXIT_CODES[first]
        )
    n_kept = sum(check.verdict == "kept" for check in checks)
    echo(f"{n_kept} of {len(checks)} checks made, nothing broken.", err=True)


def _task_of_run(bundle: Path, arguments: dict[str, str]) -> tuple[str | None, dict[str, str]]:
    """Task and arguments of the run that a bundle lies in, if this user has searched it."""
    from autocompress.errors import AutocompressError
    from autocompress.study.records import load_run
    from autocompress.tasks.trust import check_trusted

    folder = bundle.resolve().parent.parent
    if not (folder / "run.json").is_file():
        return None, arguments
    try:
        run = load_run(folder)
        check_trusted(run.name, run.info["task"], run.info["arguments"])
    except AutocompressError as error:
        echo_line(f"Accuracy and latency are not checked: {error.message}", err=True)
        return None, arguments
    return run.info["task"], {**run.info["arguments"], **arguments}
