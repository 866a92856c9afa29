import codecs
import contextlib
import dataclasses
import fcntl
import logging
import os
import pty
import re
import struct
import termios
import threading

import pytest

from autocompress.cli.main import _log_to_stderr
from autocompress.objective import Limits
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.search_options import SearchOptions
from autocompress.terminal.search_progress import SearchProgress
from tests.builders import make_measurement, make_run, make_trial

MEASUREMENT = make_measurement(
    size_bytes=2000, latency_ms=0.5, latency_spread_ms=0.1, baseline_latency_ms=1.0
)
TRIAL = make_trial(0, MEASUREMENT, role="search")


def run_of(trial: TrialRecord, **limits: float) -> RunRecord:
    return make_run(trial, limits=Limits(**limits))  # type: ignore[arg-type]


def finished_line(
    trial: TrialRecord, capsys: pytest.CaptureFixture[str], *, quiet: bool = False, **limits: float
) -> str:
    progress = SearchProgress(SearchOptions(budget=9), quiet=quiet)
    progress.listener.on_start(0, trial.label)
    progress.listener.on_finish(trial, run_of(trial, **limits))
    return capsys.readouterr().err


def test_progress_says_what_a_trial_reached(capsys: pytest.CaptureFixture[str]) -> None:
    line = finished_line(TRIAL, capsys)
    assert line == "[1/9] trial 0: 90.00%, 2.0 kB, 0.500 ms, on the front\n"


@pytest.mark.parametrize(("latency_ms", "words"), [(0.5, "2.00x faster"), (0.95, "~1.05x faster")])
def test_progress_marks_a_speed_that_may_be_noise(
    latency_ms: float, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = dataclasses.replace(MEASUREMENT, latency_ms=latency_ms)
    trial = dataclasses.replace(TRIAL, number=1, measurement=figures)
    untouched = dataclasses.replace(MEASUREMENT, latency_ms=1.0)
    baseline = dataclasses.replace(TRIAL, role="baseline", measurement=untouched)
    run = dataclasses.replace(run_of(trial), trials=(baseline, trial))
    SearchProgress(SearchOptions(budget=9), quiet=False).listener.on_finish(trial, run)
    assert f", {words}" in capsys.readouterr().err


def test_progress_says_which_limit_a_trial_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    line = finished_line(TRIAL, capsys, max_size_bytes=1500, max_latency_ms=0.25)
    assert line.endswith("0.500 ms, 500 B too large, 0.25 ms too slow\n")


def test_progress_tells_stopped_from_failed(capsys: pytest.CaptureFixture[str]) -> None:
    stopped = dataclasses.replace(TRIAL, state="stopped", measurement=None, reason="Not tuned.")
    failed = dataclasses.replace(stopped, state="failed", reason="oom: no memory")
    assert finished_line(stopped, capsys) == "[1/9] trial 0: stopped early: Not tuned.\n"
    assert finished_line(failed, capsys) == "[1/9] trial 0: failed (oom: no memory)\n"


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert finished_line(TRIAL, capsys, quiet=True) == ""


@pytest.mark.parametrize(
    ("ending", "has_started", "line"),
    [
        ("budget", False, "The budget of 9 trials is reached; nothing was left to do.\n"),
        ("budget", True, ""),
        ("exhausted", True, "The search space is exhausted: every plan in it has been measured.\n"),
        (
            "stalled",
            True,
            "Stalled after 1 trials: the last 4 searched ones did not raise the hypervolume by "
            "0.1 %. The same command with a larger --until-stalled, or without it, goes on.\n",
        ),
        (
            "timeout",
            True,
            "The time is up: 1 of 9 trials are finished. The same command goes on.\n",
        ),
    ],
)
def test_progress_says_why_a_search_ended_and_how_to_go_on(
    capsys: pytest.CaptureFixture[str], ending: str, has_started: bool, line: str
) -> None:
    progress = SearchProgress(SearchOptions(budget=9, until_stalled=4), quiet=False)
    progress.begin(run_of(TRIAL))
    if has_started:
        progress.listener.on_start(1, "trial 1")
    capsys.readouterr()
    progress.listener.on_end(ending)  # type: ignore[arg-type]
    assert capsys.readouterr().err == line


class Terminal:
    """A pseudo terminal of some size in the place of stderr."""

    def __init__(self, columns: int, lines: int) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.settings = termios.tcgetattr(theirs)
        self.stream = open(theirs, "w", encoding="utf-8", newline="")  # noqa: SIM115
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")()
        while True:
            try:
                self.text += decoder.decode(os.read(self._ours, 65536))
            except OSError:  # the other end is closed
                return

    def end(self) -> str:
        """All that was written; escape sequences that move the cursor stay."""
        assert termios.tcgetattr(self.stream.fileno()) == self.settings
        self.stream.close()
        self._reader.join(30)
        os.close(self._ours)
        return re.sub(r"\x1b\[[0-9;]*m", "", self.text)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Terminal:
    for name in ("COLUMNS", "LINES", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal(*request.param)


SIZES = pytest.mark.parametrize("terminal", [(80, 24), (120, 30)], indirect=True)


def drive(progress: SearchProgress, *, is_stopped: bool) -> None:
    """Two jobs: one trial ends, the other one is in the middle when the search is stopped."""
    progress.begin(run_of(TRIAL))
    with contextlib.suppress(KeyboardInterrupt), progress:
        for number in (0, 1):
            progress.listener.on_start(number, f"trial {number}")
        progress.listener.on_stage(1, "tune", 0.5)
        progress.listener.on_finish(TRIAL, run_of(TRIAL))
        logging.getLogger("autocompress.test").warning("a worker was lost")
        progress.warn("\x1b[31mred")
        if is_stopped:
            raise KeyboardInterrupt
    progress.note("Stopped.")


@SIZES
@pytest.mark.parametrize("is_stopped", [False, True])
def test_progress_draws_on_a_terminal_and_leaves_it_as_it_was(
    terminal: Terminal, is_stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", terminal.stream)  # not in a fixture: pytest sets it, too
    logger = logging.getLogger("autocompress")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", False)
    _log_to_stderr()
    drive(SearchProgress(SearchOptions(budget=9), quiet=False), is_stopped=is_stopped)
    text = terminal.end()
    assert "\nSearching " in text
    assert re.search(r"trial 1 +tune +50%", text)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    # after the last drawing is wiped away nothing but the last words follows
    *_, wiped = text.split("\x1b[2K")
    assert wiped.replace("\r", "").splitlines() == ["Stopped."]
    for line in ("[1/9] trial 0: 90.00%", "a worker was lost", "Warning: \\x1b[31mred"):
        # on a line of its own, that is on one which was wiped before
        assert re.search(rf"(\x1b\[2K|\n|\r){re.escape(line)}", text), line


@SIZES
def test_quiet_progress_shows_warnings_only_on_a_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", terminal.stream)
    drive(SearchProgress(SearchOptions(budget=9), quiet=True), is_stopped=True)
    assert [line for line in terminal.end().splitlines() if line != "a worker was lost"] == [
        "Warning: \\x1b[31mred"
    ]


def test_progress_draws_nothing_where_colours_are_forced_on_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    drive(SearchProgress(SearchOptions(budget=9), quiet=False), is_stopped=False)
    lines = capsys.readouterr().err.splitlines()
    assert "\x1b" not in "".join(lines)
    assert lines[1].startswith("[1/9] trial 0: 90.00%")


def test_progress_sums_up_every_tenth_trial_where_it_cannot_draw(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = SearchProgress(SearchOptions(budget=20), quiet=False)
    trials = tuple(dataclasses.replace(TRIAL, number=number) for number in range(10))
    first = dataclasses.replace(trials[0], role="baseline")
    run = dataclasses.replace(run_of(TRIAL), trials=(first, *trials[1:]))
    progress.listener.on_start(9, "trial 9")
    progress.listener.on_finish(trials[9], run)
    summary = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"So far: hypervolume 0\.00, [\d,]+ trials/h, about \d+ s left", summary)
