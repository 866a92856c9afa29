"""The command line: one file per command, imported only when that command runs."""

import importlib
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import IO, Any, Final

import click

from autocompress.errors import AutocompressError, first_line
from autocompress.terminal.printing import echo, echo_line

_COMMANDS = {
    "analyze": "Show layers, channel groups and knobs of a task's model, and what gets none.",
    "bench": "Time exported files side by side.",
    "check": "Check a task before it is searched, and say what to fix.",
    "compare": "Put runs side by side: fronts, hypervolumes, options.",
    "doctor": "Check a run folder, and repair what can be repaired.",
    "export": "Write one point of a run as a verified bundle.",
    "front": "Print the Pareto front of a run.",
    "init": "Write a task file that runs, to put your own model and data in.",
    "inspect": "Show what every byte of a packed model is for.",
    "quantize": "Quantize an ONNX file without training.",
    "refine": "Train chosen points of a run in full.",
    "report": "Write a run's report as one HTML file.",
    "resume": "Continue a run with the options it was started with.",
    "search": "Search for the Pareto front of a task.",
    "show": "Show one trial, and evaluate it again.",
    "studies": "List the runs there are.",
    "unpack": "Turn a packed model into a runnable ONNX file.",
    "verify": "Check a bundle: hashes, sizes, outputs, accuracy, latency.",
    "validate": "Compare the proxy's ranking with that of full training.",
    "watch": "Serve a run's report, up to date while it is searched.",
}
_EPILOG = (
    "Exit codes: 0 done; 1 something failed; 2 bad input; 3 the run folder belongs to another "
    "study or is damaged; 4 no measured point satisfies what was asked; 5 trial after trial "
    "failed; 10 to 14 a bundle breaks a promise (see `verify --help`); 75 another process drives "
    "this run; 129, 130 and 143 stopped by a closed terminal, Ctrl-C and SIGTERM."
)


_OPTION: Final = re.compile(
    r"`(?:arguments\.(?P<argument>\w+)|(?P<name>[a-z_]+))(?:=(?P<value>[^`]*))?`"
)
_OF_TASKS: Final = {"task", "data", "model", "dataset"}  # fields of a Task are called so, too


class _LazyGroup(click.Group):
    """Knows its commands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"autocompress.cli.{name}").command
        command.name = name  # not that of its function, for whoever walks the commands
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


@click.group(cls=_LazyGroup, epilog=_EPILOG)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="autocompress")
def cli(debug: bool) -> None:
    """Search over pruning, bit-widths and ranks of any PyTorch model.

    Give it a trained model and its data; it returns the curve of accuracy against size and
    latency, and a verified, shippable model for every point on it. Without a task it runs on
    scikit-learn's digits.
    """


class _StderrHandler(logging.Handler):
    """Writes to what `sys.stderr` is at the moment: a live display puts something in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        text, _ = in_flags(self.format(record), "", ())
        print(text, file=sys.stderr, flush=True)


def _log_to_stderr() -> None:
    """Show what the package has to say; the library itself never configures logging."""
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("autocompress")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


def in_flags(message: str, hint: str, arguments: Sequence[str]) -> tuple[str, str]:
    """An error's texts, with options called as they are typed: `max_drop` becomes `--max-drop`.

    Errors name options as Python does, in backticks, with or without a value: `run=NAME`. In a hint
    the backticks go, so that it can be copied.

    Args:
        message: What must hold and what came.
        hint: What to do.
        arguments: Of the command line: its command's options are known beside those of `search`.
    """
    if "`" not in message + hint:
        return message, hint  # the usual case: no command needs to be imported
    flags: dict[str, str] = {"trust_task": "--trust-task"}  # of later commands
    for command in ("search", next((word for word in arguments if word in _COMMANDS), "search")):
        found = cli.get_command(click.Context(cli), command)
        assert found is not None
        for option in found.params:
            if isinstance(option, click.Option):
                flag = max(option.opts, key=len)
                flags |= {str(option.name): flag, flag.strip("-").replace("-", "_"): flag}

    def typed(found: re.Match[str]) -> str:
        name, argument, value = found["name"], found["argument"], found["value"]
        if argument:  # of the task's factory
            typed = "--data" if argument == "data" else f"--task-arg {argument}"
            separator = " " if argument == "data" else "="
            return typed if value is None else f"{typed}{separator}{value}"
        if name not in flags or name in _OF_TASKS:
            return found[0]
        return flags[name] if value is None else f"{flags[name]} {value}"

    def quoted(found: re.Match[str]) -> str:
        said = typed(found)
        return said if said == found[0] else f"`{said}`"

    return _OPTION.sub(quoted, message), _OPTION.sub(typed, hint)


def _silence(*streams: IO[str]) -> None:
    """Let a stream that nobody reads any more swallow what is written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit with a documented code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _log_to_stderr()
    received: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        """End as after Ctrl-C: commands that can be continued say so."""
        received.append(number)
        if number != signal.SIGTERM:  # the terminal is gone, and nobody reads what is printed
            _silence(sys.stdout, sys.stderr)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            signal.signal(signal.SIGHUP, terminate)
    try:
        code = cli.main(args=arguments, prog_name="autocompress", standalone_mode=False) or 0
        sys.stdout.flush()
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        if context is not None:
            help_of = f"Try '{context.command_path} --help' for help."
            echo(f"{context.get_usage()}\n{help_of}\n", err=True)
        echo_line(f"Error: {error.format_message()}", err=True)  # it quotes what was typed
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 128 + (received or [signal.SIGINT])[0]
    except AutocompressError as error:
        if "--debug" in arguments:
            raise
        message, hint = in_flags(error.message, error.hint, arguments)
        echo_line(f"Error: {message}", err=True)  # it may quote what came from elsewhere
        if hint:
            echo_line(hint, err=True)
        code = error.exit_code
    except BrokenPipeError:  # `autocompress front | head`: the reader has seen enough
        _silence(sys.stdout)
        code = 0
    except Exception as error:
        if "--debug" in arguments:
            raise
        echo_line(f"Error: {type(error).__name__}: {first_line(error)}.", err=True)
        echo("This should have been a clear message: see `autocompress --debug ...`.", err=True)
        code = 1
    sys.exit(code)
