"""The top of the page: what the run found, in plain words and without flattery."""

import dataclasses

from autocompress.objective import Objective
from autocompress.report.findings import (
    Comparison,
    accuracy_change,
    beaten_controls,
    cheapest_within,
    comparable,
    compare_with_controls,
    cost_objectives,
    cost_of,
    gain,
    measured,
    tuned_controls,
)
from autocompress.report.tables import controls_hypervolume, hypervolume_history
from autocompress.report.wording import (
    format_gain,
    format_points,
    format_share,
    format_size,
    format_times,
    shorten,
)
from autocompress.run_record import RunRecord, TrialRecord

_SUPERLATIVES = {"size": "smallest", "latency": "fastest"}
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
    lines = [_comparison_sentence(run, cost) for cost in cost_objectives(run)]
    lines += _outright_sentences(run)
    if len(run.front()) == 1:
        lines.append("The front has a single point: nothing measured so far beats it anywhere.")
    lines.append(
        "All accuracies are of the validation split, on which the search also chose, so the best "
        f"of {len(run.complete)} trials is flattered a little. `autocompress export` measures the "
        "point you pick once on the test split."
    )
    return lines


def _nothing_measured(run: RunRecord) -> str:
    n_failed = sum(t.state == "failed" for t in run.trials)
    if not run.trials:
        return "No trial has been started yet, so there is nothing to show."
    if n_failed == len(run.trials):
        return f"All {n_failed} trials failed, so there is no front. Their reasons are below."
    return (
        f"No trial has finished yet ({n_failed} failed, {len(run.trials) - n_failed} unfinished), "
        "so there is no front. Write this page again later."
    )


def _cost_text(trial: TrialRecord, cost: Objective) -> str:
    value = cost_of(trial, cost)
    if value is None:
        return "not measured"
    return format_size(value) if cost.name == "size" else f"{value:.3f} ms"


def _named(trial: TrialRecord) -> str:
    name = shorten(trial.label, _NAME_CHARS)
    if trial.role != "control":
        return name
    return f"control {name}" if measured(trial).fidelity > 0 else f"untuned control {name}"


def _with_cost(trial: TrialRecord, cost: Objective) -> str:
    return f"{_named(trial)} ({_cost_text(trial, cost)})"


def _baseline_tile(run: RunRecord, baseline: TrialRecord) -> Tile:
    costs = " · ".join(_cost_text(baseline, cost) for cost in cost_objectives(run))
    return Tile(
        title="Baseline, untouched", value=format_share(measured(baseline).accuracy), detail=costs
    )


def _best_tile(run: RunRecord, cost: Objective) -> Tile:
    title = f"{_SUPERLATIVES[cost.name].capitalize()} within 1 pt"
    trial = cheapest_within(run, comparable(run), cost)
    if trial is None:
        return Tile(title=title, value="none", detail="No compressed point loses 1 pt or less.")
    ratio, change = gain(run, trial, cost), accuracy_change(run, trial)
    assert change is not None
    value = _cost_text(trial, cost) if ratio is None else format_gain(ratio, cost.name)
    accuracy = f"{format_share(measured(trial).accuracy)} ({format_points(change, 2)})"
    return Tile(
        title=title, value=value, detail=f"{_named(trial)}: {_cost_text(trial, cost)}, {accuracy}"
    )


def _verdict_tiles(run: RunRecord) -> list[Tile]:
    if not run.controls:
        return []
    answers = []
    for cost in cost_objectives(run):
        comparison = compare_with_controls(run, cost)
        answers.append(f"{cost.name}: {_verdict_words(comparison)}")
    n_beaten = len(beaten_controls(run))
    return [
        Tile(
            title="Search against controls",
            value=f"{n_beaten} of {len(tuned_controls(run))} beaten",
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
    return f"control {format_times(1 / comparison.ratio)} better"


def _comparison_sentence(run: RunRecord, cost: Objective) -> str:
    """Whether the search beat the controls by one cost, within 1 pt."""
    found = compare_with_controls(run, cost)
    start, superlative = f"By {cost.name}:", _SUPERLATIVES[cost.name]
    if found.search is None and found.control is None:
        return f"{start} no point, searched or control, stays within 1 pt of the baseline."
    if found.control is None:
        assert found.search is not None
        why = "no control stays within 1 pt" if run.controls else "no control has been measured"
        best = _with_cost(found.search, cost)
        return f"{start} the {superlative} point within 1 pt is {best}; {why}."
    control = _with_cost(found.control, cost)
    if found.search is None:
        return (
            f"{start} the search did not beat the controls. No searched point stays within 1 pt; "
            f"the {superlative} that does is {control}."
        )
    assert found.ratio is not None
    search = _with_cost(found.search, cost)
    if found.verdict == "level":
        return f"{start} no measurable difference within 1 pt between {search} and {control}."
    if found.verdict == "better":
        much = format_gain(found.ratio, cost.name)
        return f"{start} the search helped. Within 1 pt, {search} is {much} than {control}."
    much = format_gain(1 / found.ratio, cost.name)
    return (
        f"{start} the search did not beat the controls. Within 1 pt, {control} is {much} than the "
        f"best searched point, {search}."
    )


def _outright_sentences(run: RunRecord) -> list[str]:
    if not run.controls:
        return []
    n_beaten, n_controls = len(beaten_controls(run)), len(tuned_controls(run))
    lines = [
        f"Searched points beat {n_beaten} of {n_controls} equally tuned controls outright: "
        "no worse in any objective and better in one."
    ]
    history, alone = hypervolume_history(run), controls_hypervolume(run)
    if alone is not None:
        final = float(history["hypervolume"].iloc[-1])
        lines.append(
            f"With the search the front dominates {format_share(final, 1)} of the box between "
            f"useless and ideal; the controls alone dominate {format_share(alone, 1)}."
        )
    return lines
