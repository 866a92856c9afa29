"""Which point of a run is meant: by its number, by what it may lose, or the knee."""

from autocompress.errors import InputError, NoPointError
from autocompress.objective import OBJECTIVES
from autocompress.run_record import RunRecord, TrialRecord


def choose_point(
    run: RunRecord, *, trial: int | None = None, max_drop: float | None = None, by: str = "size"
) -> TrialRecord:
    """Pick a trial by its number, by what it may lose, or else the knee of the front.

    What was refined stands for the trial it came from. Within `max_drop`, refined trials and the
    front are candidates alike: each is taken at its own val accuracy.

    Args:
        run: The run.
        trial: Number of a complete trial; front member or not.
        max_drop: Accuracy a point may lose against the baseline, as a share, >= 0.
        by: Cost, by its name, that is made smallest among the points within `max_drop`.

    Raises:
        InputError: If there is no such trial, or `max_drop` is negative.
        NoPointError: If nothing has been measured, or no point keeps the limits and `max_drop`.
    """
    refined = {point.number: point for point in run.refined}
    if trial is not None:
        return refined.get(trial, _by_number(run, trial))
    front = run.front()
    if run.baseline is None or run.baseline.measurement is None or not run.comparable:
        raise NoPointError(f"The run {run.name!r} has no measured point yet.")
    if not front:
        raise NoPointError(
            f"No measured point of {run.name!r} keeps the run's limits.",
            "Name one with `trial=N`, or search with wider limits under another `name=NAME`.",
        )
    if max_drop is None:
        knee = run.knee()
        assert knee is not None
        return refined.get(knee.number, knee)
    if not 0.0 <= max_drop <= 1.0:
        raise InputError(f"`max_drop` must lie in [0, 1], but got {max_drop}.")
    floor = run.baseline.measurement.accuracy - max_drop
    field = OBJECTIVES[by].field
    within = [
        (cost, point)
        for point in ({point.number: point for point in front} | refined).values()
        if point.role != "baseline"
        and point.measurement is not None
        and not run.violations(point)
        and point.measurement.accuracy >= floor - 1e-12
        and (cost := getattr(point.measurement, field)) is not None
    ]
    if not within:
        raise NoPointError(
            f"No compressed point of {run.name!r} keeps {floor:.2%} accuracy.",
            "Allow a larger `max_drop`, or search longer with a larger `budget`.",
        )
    return min(within, key=lambda item: (item[0], item[1].number))[1]


def _by_number(run: RunRecord, number: int) -> TrialRecord:
    if not 0 <= number < len(run.trials):
        raise InputError(
            f"`trial` must be in [0, {len(run.trials) - 1}] for run {run.name!r}, but got {number}."
        )
    point = run.trials[number]
    if point.measurement is None:
        reason = f": {point.reason}" if point.reason else ""
        raise InputError(f"Trial {number} of {run.name!r} is {point.state}{reason}.")
    return point
