import pytest

from autocompress.terminal.live_view import Pace


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_pace_says_nothing_before_a_trial_has_finished(clock: Clock) -> None:
    pace = Pace(clock)
    pace.begin(5)
    assert pace.trials_per_hour is pace.left_s(9) is None
    pace.start()
    clock.now_s += 60.0
    assert pace.trials_per_hour is pace.left_s(9) is None


def test_pace_counts_the_trials_of_this_session_only(clock: Clock) -> None:
    pace = Pace(clock)
    pace.begin(40)
    pace.start()
    clock.now_s += 60.0
    pace.finish(42)
    assert pace.trials_per_hour == 120.0
    assert pace.left_s(50) == 240.0


def test_pace_counts_down_between_trials_and_not_below_zero(clock: Clock) -> None:
    pace = Pace(clock)
    pace.start()
    clock.now_s += 30.0
    pace.finish(1)
    for passed_s, left_s in ((20.0, 40.0), (20.0, 20.0), (100.0, 0.0)):
        clock.now_s += passed_s
        assert pace.left_s(3) == left_s
    assert pace.left_s(1) == 0.0


def test_pace_leaves_out_what_was_no_trial(clock: Clock) -> None:
    pace = Pace(clock)
    pace.start()
    clock.now_s += 10.0
    pace.finish(1)
    clock.now_s += 500.0
    pace.leave_out(500.0)
    assert (pace.trial_s, pace.left_s(3)) == (10.0, 20.0)
    clock.now_s += 20.0
    pace.finish(2)
    assert pace.trial_s == 15.0


def test_pace_does_not_divide_by_no_time(clock: Clock) -> None:
    pace = Pace(clock)
    pace.start()
    pace.finish(3)
    assert pace.trials_per_hour is None
    assert pace.left_s(5) == 0.0
