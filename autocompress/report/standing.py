"""How far a run is: what became of trials that were not measured in full."""

from autocompress.run_record import RunRecord


def unmeasured_counts(run: RunRecord) -> list[str]:
    """A phrase for each reason to have no measurement, such as `2 failed`."""
    states = [trial.state for trial in run.trials]
    counts = {
        "failed": states.count("failed"),
        "stopped early": states.count("stopped"),
        "unfinished": states.count("running"),
    }
    return [f"{n} {words}" for words, n in counts.items() if n]


def half_measured(run: RunRecord) -> tuple[int, str]:
    """How many trials finished without every objective measured, and which some of them lack.

    Returns:
        Their number, and the objectives in words: `latency`, `size or latency`.
    """
    finished = [trial for trial in run.trials if trial.state == "complete"]
    names = [
        objective.name
        for objective in run.objectives
        if any(getattr(trial.measurement, objective.field, None) is None for trial in finished)
    ]
    return len(finished) - len(run.complete), " or ".join(names)
