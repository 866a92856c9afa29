"""Progress of a measurement: what is known, what is left, one line now and then."""

import pytest

from autocompress.cli import sensitivity_table as sensitivity
from autocompress.cli.sensitivity_table import SensitivityProgress


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sensitivity, "time", clock)
    return clock


def test_progress_says_what_is_known_and_what_is_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with SensitivityProgress() as progress:
        progress.tell(4, 20, "")
        clock.now += 60.0  # the worker starts, and measures its first plan
        progress.tell(5, 20, "a = 1")
        for n_known in range(6, 9):
            clock.now += 4.0
            progress.tell(n_known, 20, f"a = {n_known}")
        clock.now += 400.0
        progress.tell(20, 20, "b = 2")

    assert capsys.readouterr().err.splitlines() == [
        "Measuring 20 plans, 4 of them known already",
        "[5/20] a = 1",
        "[8/20] a = 8, about 48 s left",
        "[20/20] b = 2",
    ]


def test_progress_tells_long_times_in_minutes(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = SensitivityProgress()
    progress.tell(0, 10, "")
    progress.tell(1, 10, "a = 1")
    clock.now += 30.0
    progress.tell(2, 10, "a = 2")

    assert capsys.readouterr().err.splitlines() == [
        "Measuring 10 plans",
        "[2/10] a = 2, about 4 min left",
    ]
