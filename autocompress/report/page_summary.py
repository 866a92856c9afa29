"""The top of the page: what the run found, in plain words and without flattery."""

import dataclasses

from autocompress.objective import Objective
from autocompress.quantities import format_share
from autocompress.report.findings import (
    Comparison,
    accuracy_change,
    cheapest_within,
    compare_with_controls,
    cost_objectives,
    cost_of,
    dominated_controls,
    gain,
    is_level_with_baseline,
    measured,
    tuned_controls,
)
from autocompress.report.tables import controls_hypervolume, hypervolume_history
from autocompress.report.wording import (
    format_gain,
    format_points,
    format_times,
    half_measured,
    limits_text,
    nothing_feasible,
    shorten,
    unmeasured_counts,
)
from autocompress.run_record import RunRecord, TrialRecord

_NAME_CHARS = 60


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One finding: a title, the figure people look for, and a line of detail. Not escaped."""

    title: str
    value: str
    detail: str


def tiles(run: RunRecord) -> list[Tile]:
    """Baseline, the best point within 1 pt by each cost, and search against controls."""
    if run.baseline is None:
        return []
    best = [_best_tile(run, cost) for cost in cost_objectives(run)]
    return [_baseline_tile(run, run.baseline), *best, *_verdict_tiles(run)]


def sentences(run: RunRecord) -> list[str]:
    """The findings as sentences, each true on its own. Not escaped."""
    if not run.complete:
        return [_nothing_measured(run)]
    if run.baseline is None:
        return [
            "The baseline has not been measured, so nothing here can be called smaller, faster "
            "or less accurate than it. The figures themselves stand."
        ]
    if all(trial.role == "baseline" for trial in run.complete):
        return ["Only the baseline is measured so far; nothing can be said about compression yet."]
    lines = _limit_sentences(run)
    if run.nearest_miss() is None:
        lines += [_comparison_sentence(run, cost) for cost in cost_objectives(run)]
        lines += _outright_sentences(run)
        if len(run.front()) == 1:
            lines.append(
                f"The front has a single point: nothing measured so far{_within(run)} beats it "
                "anywhere."
            )
    lines.append(
        "All accuracies are of the validation split, on which the search also chose, so the best "
        f"of {len(run.complete)} trials is flattered a little. `autocompress export` measures the "
        "point you pick once on the test split."
    )
    return lines


def _limit_sentences(run: RunRecord) -> list[str]:
    """What the limits leave; nothing for a run without any."""
    if run.limits.is_empty:
        return []
    n_kept, n_all = len(run.feasible), len(run.comparable)
    return [
        f"Points of the front keep the limits of the run: {limits_text(run.limits)}. "
        f"{n_kept} of {n_all} points do, baseline included.",
        *filter(None, [nothing_feasible(run)]),
    ]


def _within(run: RunRecord) -> str:
    return "" if run.limits.is_empty else " within the limits"


def _scope(run: RunRecord) -> str:
    """The points that are compared: those a user would take."""
    return "within 1 pt" if run.limits.is_empty else "within the limits and 1 pt"


def _nothing_measured(run: RunRecord) -> str:
    n_failed = sum(t.state == "failed" for t in run.trials)
    if not run.trials:
        return "No trial has been started yet, so there is nothing to show."
    if n_failed == len(run.trials):
        return f"All {n_failed} trials failed, so there is no front. Their reasons are below."
    is_running = any(t.state == "running" for t in run.trials)
    later = " Write this page again later." if is_running else ""
    counts = ", ".join(unmeasured_counts(run))
    n_half, lacking = half_measured(run)
    if n_half:
        trials = "1 trial" if n_half == 1 else f"{n_half} trials"
        others = f" ({counts} beside them)" if counts else ""
        return (
            f"{trials} finished without a measured {lacking}{others}, so there is no front.{later}"
        )
    found = "No trial has finished yet" if is_running else "No trial was measured"
    return f"{found} ({counts}), so there is no front.{later}"


def _cost_text(trial: TrialRecord, cost: Objective) -> str:
    value = cost_of(trial, cost)
    if value is None:
        return "not measured"
    return cost.quantity.write(value)


def _named(run: RunRecord, trial: TrialRecord) -> str:
    name = shorten(trial.label, _NAME_CHARS)
    if trial.role != "control":
        return "the original model" if trial.role == "baseline" else name
    is_tuned_alike = measured(trial).fidelity >= run.fidelity
    return f"control {name}" if is_tuned_alike else f"untuned control {name}"


def _with_cost(run: RunRecord, trial: TrialRecord, cost: Objective) -> str:
    return f"{_named(run, trial)} ({_cost_text(trial, cost)})"


def _baseline_tile(run: RunRecord, baseline: TrialRecord) -> Tile:
    costs = " · ".join(_cost_text(baseline, cost) for cost in cost_objectives(run))
    return Tile(
        title="Baseline: the original model",
        value=format_share(measured(baseline).accuracy),
        detail=costs,
    )


def _best_tile(run: RunRecord, cost: Objective) -> Tile:
    title = f"{cost.best.capitalize()} within 1 pt"
    trial = cheapest_within(run, run.feasible, cost)
    if trial is None:
        return Tile(
            title=title,
            value="none",
            detail=f"No compressed point{_within(run)} loses 1 pt or less.",
        )
    ratio, change = gain(run, trial, cost), accuracy_change(run, trial)
    assert change is not None
    value = _cost_text(trial, cost) if ratio is None else format_gain(ratio, cost)
    if is_level_with_baseline(run, trial, cost):
        value = "no measurable gain"
    accuracy = f"{format_share(measured(trial).accuracy)} ({format_points(change, 2)})"
    return Tile(
        title=title,
        value=value,
        detail=f"{_named(run, trial)}: {_cost_text(trial, cost)}, {accuracy}",
    )


def _verdict_tiles(run: RunRecord) -> list[Tile]:
    if not run.controls:
        return []
    answers = []
    for cost in cost_objectives(run):
        comparison = compare_with_controls(run, cost)
        answers.append(f"{cost.name}: {_verdict_words(comparison)}")
    n_dominated, n_tuned = len(dominated_controls(run)), len(tuned_controls(run))
    return [
        Tile(
            title="Search against controls",
            value=f"{n_dominated} of {n_tuned} dominated" if n_tuned else "none tuned yet",
            detail="Within 1 pt, " + " · ".join(answers),
        )
    ]


def _verdict_words(comparison: Comparison) -> str:
    if comparison.ratio is None:
        words = {"only_search": "search only", "only_control": "a control only"}
        return words.get(comparison.verdict, "no point")
    if comparison.verdict == "level":
        return "level"
    if comparison.verdict == "better":
        return f"search {format_times(comparison.ratio)} better"
    assert comparison.control is not None
    who = "original" if comparison.control.role == "baseline" else "control"
    return f"{who} {format_times(1 / comparison.ratio)} better"


def _comparison_sentence(run: RunRecord, cost: Objective) -> str:
    """Whether the search beat the controls by one cost, within 1 pt."""
    found = compare_with_controls(run, cost)
    start, superlative = f"By {cost.name}:", cost.best
    if found.search is None and found.control is None:
        return f"{start} no point, searched or control, stays {_scope(run)} of the baseline."
    if found.control is None:
        assert found.search is not None
        stays = f"no control stays {_scope(run)}"
        why = stays if run.controls else "no control has been measured"
        best = _with_cost(run, found.search, cost)
        return f"{start} the {superlative} point {_scope(run)} is {best}; {why}."
    control = _with_cost(run, found.control, cost)
    if found.curve_cost is not None:
        control = (
            f"the curve of one rate penalty ({cost.quantity.write(found.curve_cost)} between its "
            "measured points)"
        )
    if found.search is None:
        return (
            f"{start} the search did not beat the controls. No searched point stays {_scope(run)}; "
            f"the {superlative} that does is {control}."
        )
    assert found.ratio is not None
    search, scope = _with_cost(run, found.search, cost), _scope(run)
    if found.verdict == "level":
        return f"{start} no measurable difference {scope} between {search} and {control}."
    if found.verdict == "better":
        much = format_gain(found.ratio, cost)
        return (
            f"{start} the search helped. {scope.capitalize()}, {search} is {much} than {control}."
        )
    much = format_gain(1 / found.ratio, cost)
    return (
        f"{start} the search did not beat the controls. {scope.capitalize()}, {control} is {much} "
        f"than the best searched point, {search}."
    )


def _outright_sentences(run: RunRecord) -> list[str]:
    if not run.controls:
        return []
    n_dominated, n_controls = len(dominated_controls(run)), len(tuned_controls(run))
    if not n_controls:
        return []
    lines = [
        f"Searched points dominate {n_dominated} of {n_controls} equally tuned "
        f"controls{_within(run)}: no worse in any objective and better in one."
    ]
    history, alone = hypervolume_history(run), controls_hypervolume(run)
    if alone is not None:
        final = float(history["hypervolume"].iloc[-1])
        lines.append(
            f"With the search the hypervolume is {final:.2f}; that of the controls alone "
            f"is {alone:.2f}."
        )
    return lines
