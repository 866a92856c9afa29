import dataclasses

import pytest

from autocompress.objective import Limits
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.study.stop_rules import StopRules, is_stalled
from tests.builders import make_measurement, make_run, make_trial


def trial(number: int, role: str, figures: tuple[float, int] | None, state: str) -> TrialRecord:
    measured = figures and make_measurement(accuracy=figures[0], size_bytes=figures[1])
    return make_trial(number, measured, role=role, state=state)


def run_of(
    *searched: tuple[float, int] | str,
    control: tuple[float, int] | None = (0.98, 500),
    **limits: float,
) -> RunRecord:
    """A baseline of 1000 bytes, a control of 500, and searched trials: figures, or a state."""
    trials = [trial(0, "baseline", (1.0, 1000), "complete")]
    trials += [trial(1, "control", control, "complete" if control else "failed")]
    for number, found in enumerate(searched, start=2):
        is_state = isinstance(found, str)
        trials.append(
            trial(number, "search", None if is_state else found, found if is_state else "complete")
        )
    return make_run(*trials, limits=Limits(**limits))  # type: ignore[arg-type]


# The control's volume is 0.8, one halving over eight tenths of [0.9, 1]; the better one's is 1.06.
WORSE, BETTER = (0.97, 600), (0.98, 400)


@pytest.mark.parametrize(
    ("searched", "is_over"),
    [
        ((), False),
        ((WORSE, WORSE), False),
        ((WORSE, WORSE, WORSE), True),
        ((BETTER, WORSE, WORSE), False),
        ((BETTER, WORSE, WORSE, WORSE), True),
        ((WORSE, WORSE, BETTER), False),
        ((WORSE, "failed", "stopped"), True),
        (("stopped", "running", "failed"), False),
    ],
)
def test_is_stalled_looks_at_the_last_searched_trials(
    searched: tuple[tuple[float, int] | str, ...], is_over: bool
) -> None:
    assert is_stalled(run_of(*searched), 3) == is_over


@pytest.mark.parametrize(
    ("found", "is_over"),
    [
        ((0.98, 500), True),
        ((0.98, 499), False),  # 0.29 % more halvings
        ((0.98001, 500), True),  # hardly more accurate
        ((0.98016, 500), False),
    ],
)
def test_is_stalled_takes_a_gain_of_more_than_a_thousandth_for_one(
    found: tuple[float, int], is_over: bool
) -> None:
    assert is_stalled(run_of(found), 1) == is_over


def test_is_stalled_counts_only_points_that_keep_the_limits() -> None:
    assert not is_stalled(run_of(BETTER), 1)
    assert is_stalled(run_of(BETTER, max_size_bytes=399), 1)
    assert is_stalled(run_of(BETTER, max_drop=0.01), 1)


def test_is_stalled_looks_at_the_front_while_nothing_has_a_volume() -> None:
    # larger than the baseline, but more accurate: that is news
    assert not is_stalled(run_of((1.1, 1500), control=None), 1)
    assert is_stalled(run_of((1.1, 1500), (1.05, 1500), control=None), 1)
    assert is_stalled(run_of((1.1, 1500), control=None, max_size_bytes=1000), 1)
    # loses more than a tenth of the baseline's accuracy
    assert not is_stalled(run_of((0.5, 100), control=None), 1)
    assert is_stalled(run_of((0.5, 100), (0.4, 100), control=None), 1)
    assert is_stalled(run_of((0.5, 100)), 1)  # the control has one


def test_a_run_without_a_baseline_is_not_stalled() -> None:
    run = run_of(WORSE, WORSE)
    assert not is_stalled(dataclasses.replace(run, trials=run.trials[1:]), 1)


@pytest.mark.parametrize(
    ("rules", "elapsed_s", "ending"),
    [
        ({"budget": 9}, 1e9, None),
        ({"budget": 5}, 0.0, "budget"),
        ({"budget": 4}, 0.0, "budget"),
        ({"budget": 9, "until_stalled": 3}, 0.0, "stalled"),
        ({"budget": 9, "until_stalled": 4}, 0.0, None),
        ({"budget": 9, "timeout_s": 60.0}, 59.0, None),
        ({"budget": 9, "timeout_s": 60.0}, 60.0, "timeout"),
        ({"budget": 5, "until_stalled": 3, "timeout_s": 1.0}, 2.0, "budget"),
    ],
)
def test_ending_names_the_first_rule_that_holds(
    rules: dict[str, float], elapsed_s: float, ending: str | None
) -> None:
    run = run_of(WORSE, WORSE, WORSE)
    assert StopRules(**rules).ending(run, elapsed_s) == ending  # type: ignore[arg-type]
