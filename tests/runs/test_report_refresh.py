"""The report during a search: seldom enough, and never in its way."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from autocompress.errors import InputError
from autocompress.run_record import RunRecord
from autocompress.runs.views import EVERY_S, refreshing
from autocompress.study.listener import Listener
from tests.builders import make_run, make_trial

TRIAL = make_trial(0, label="baseline", reason="export: no kernel")


class Clock:
    """A clock that is turned by hand; writing a page takes `page_s`."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    return make_run(TRIAL, folder=tmp_path)


@pytest.fixture
def writings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    written: list[float] = []
    monkeypatch.setattr(
        "autocompress.report.page.write_report", lambda run, path: written.append(1.0)
    )
    return written


def test_refreshing_tells_the_listener_first(run: RunRecord) -> None:
    told: list[int] = []
    listener = Listener(on_finish=lambda trial, run: told.append(trial.number))
    refreshing(listener, pytest.fail, Clock()).on_finish(TRIAL, run)
    assert told == [0]


def test_refreshing_writes_at_most_so_often(run: RunRecord, writings: list[float]) -> None:
    clock = Clock()
    listener = refreshing(Listener(), pytest.fail, clock)
    for _ in range(10):
        clock.now += EVERY_S / 4
        listener.on_finish(TRIAL, run)
    assert len(writings) == 2


def test_refreshing_waits_longer_when_a_page_takes_long(
    run: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, written = Clock(), []

    def write_slowly(run: RunRecord, path: Path) -> None:
        written.append(clock.now)
        clock.now += 6.0

    monkeypatch.setattr("autocompress.report.page.write_report", write_slowly)
    listener = refreshing(Listener(), pytest.fail, clock)
    for _ in range(100):
        clock.now += 10.0
        listener.on_finish(TRIAL, run)
    assert len(written) == 4
    assert min(b - a for a, b in pairwise(written)) > 300.0


def test_refreshing_writes_the_page_of_a_running_search(run: RunRecord) -> None:
    clock = Clock()
    listener = refreshing(Listener(), pytest.fail, clock)
    clock.now += EVERY_S
    listener.on_finish(TRIAL, run)
    assert "All 1 trials failed" in (run.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("error", [InputError("no space left"), KeyError("odd"), OSError("full")])
def test_refreshing_gives_up_with_one_warning_when_a_page_cannot_be_written(
    run: RunRecord,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def refuse(run: RunRecord, path: Path) -> None:
        raise error

    monkeypatch.setattr("autocompress.report.page.write_report", refuse)
    clock, warnings = Clock(), []
    listener = refreshing(Listener(), warnings.append, clock)
    for _ in range(3):
        clock.now += 10 * EVERY_S
        listener.on_finish(TRIAL, run)
    assert [w[:31] for w in warnings] == ["the report is not refreshed any"]
