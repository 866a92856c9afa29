"""What is measured before the sampler is asked: the baseline, the controls, the initial plans."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from autocompress.measurement import Fidelity
from autocompress.objective import LATENCY, SIZE, Limits
from autocompress.plan import CompressionPlan
from autocompress.run_record import Role
from autocompress.samplers.guided.lagrangian_sweep import sweep
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.space.sensitivity_table import Levels
from autocompress.technique import TECHNIQUES, KnobKind

_UNIFORM_BITS = (8, 4, 3, 2)
# Shares of the way from untouched to smallest, in the logarithm of the size.
_BUDGETS = (0.65, 0.8, 0.45)  # few: proposals that learned from them are better still
_SWEEP_POWER = 0.6  # tuning repairs large damage better than small
_TIME_SHARE = 1.0  # halving the time is worth halving the size


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InitialTrial:
    """One plan of the start.

    Attributes:
        role: `baseline`, `control` (a plan that nobody had to search for) or `search`.
        label: What tables call it.
        levels: Knob name -> level index.
        fidelity: 0 for post-training controls, 1 for those tuned like every candidate.
    """

    role: Role
    label: str
    levels: Mapping[str, int]
    fidelity: Fidelity = 1


def initial_trials(
    space: SearchSpace, swept: Sequence[Mapping[str, int]] = ()
) -> tuple[InitialTrial, ...]:
    """Baseline first, then initial plans, then controls, without repeats.

    Controls are all that this space can express: uniform bits set every layer to the given bits, or
    to the next higher level its knob has, with 8-bit activations where the space has them; a rate
    penalty is the same for all layers. An initial plan that is a control stays one: what nobody had
    to search for is no merit of the search.

    Args:
        space: The knobs.
        swept: Plans of `swept_plans`, the most promising first.
    """
    baseline = InitialTrial(role="baseline", label="baseline", levels=_levels(space, {}))
    controls = [
        InitialTrial(role="control", label=label, levels=_levels(space, choose), fidelity=fidelity)
        for label, fidelity, choose in _controls(space)
    ]
    sweep = [
        InitialTrial(role="search", label=f"initial {i + 1}", levels=levels)
        for i, levels in enumerate(swept)
    ]
    of_controls = {_key(space, trial) for trial in controls}
    found, seen = [baseline], {(space.decode(baseline.levels).effective, f) for f in (0, 1)}
    for trial in (*sweep, *controls):
        key = _key(space, trial)
        if key not in seen and (trial.role == "control" or key not in of_controls):
            seen.add(key)
            found.append(trial)
    return tuple(found)


def next_initial_trial(upcoming: Sequence[InitialTrial], last: Role | None) -> InitialTrial | None:
    """The initial trial whose turn it is, or None if it is the sampler's.

    Initial plans come first; then controls and proposals take turns, because a sampler that has
    seen a few plans finds better ones than controls are, and a small budget should see both.

    Args:
        upcoming: Those that have not been started, in order.
        last: Role of the trial before.
    """
    if not upcoming or last == upcoming[0].role == "control":
        return None
    return upcoming[0]


def _key(space: SearchSpace, trial: InitialTrial) -> tuple[CompressionPlan, Fidelity]:
    """Equal for trials that make the same candidate."""
    return space.decode(trial.levels).effective, trial.fidelity


def swept_plans(
    predictor: Predictor,
    limits: Limits,
    *,
    has_latency: bool,
    baseline_latency_ms: float | None = None,
) -> list[dict[str, int]]:
    """Plans for a spread of budgets from the sensitivity table.

    Budgets lie between mild and nearly as small as the space goes, even in the logarithm of the
    size; where latency is an objective every second plan pays for time as well.

    Args:
        predictor: What the sensitivity table says.
        limits: Plans predicted to break one are left out.
        has_latency: Whether latency is an objective.
        baseline_latency_ms: Latency of the original model, for a limit on it.

    Returns:
        Knob name -> level index for each, those in the middle first.
    """
    live = predictor.live_levels()
    names = [knob.name for knob in predictor.space.knobs]
    of_size = sweep(predictor, live, power=_SWEEP_POWER)
    of_both = (
        sweep(predictor, live, power=_SWEEP_POWER, time_share=_TIME_SHARE)
        if has_latency
        else of_size
    )
    chosen: list[Levels] = []
    for i, share in enumerate(_BUDGETS):
        plans = of_both if i % 2 == 1 else of_size
        fits = np.ones(len(plans), dtype=bool)
        if LATENCY in limits.bounds and baseline_latency_ms is not None:
            latency_ratio = limits.bounds[LATENCY] / baseline_latency_ms
            fits &= predictor.latency_ratio(plans) <= latency_ratio
        sizes = np.log(
            predictor.size_bytes(plans) / float(predictor.table.baseline.size_bytes or 1)
        )
        if SIZE in limits.bounds:
            fits &= predictor.size_bytes(plans) <= limits.bounds[SIZE]
        plans, sizes = plans[fits], sizes[fits]
        if len(plans):
            mildest, smallest = min(0.0, sizes.max()), sizes.min()
            wanted = mildest + share * (smallest - mildest)
            chosen.append(plans[np.abs(sizes - wanted).argmin()])
    return [dict(zip(names, map(int, plan), strict=True)) for plan in chosen]


Choose = Mapping[KnobKind, Callable[[Knob], int]]


def _controls(space: SearchSpace) -> Iterator[tuple[str, Fidelity, Choose]]:
    yield "int8 post-training", 0, _uniform_bits(8)
    for bits in _UNIFORM_BITS:
        yield f"uniform {_lowest_bits(space, bits):g} bit", 1, _uniform_bits(bits)
    if any(knob.kind == "rate_price" for knob in space.knobs):
        for name, place in (("mild", 0.0), ("middle", 0.5), ("strong", 1.0)):
            yield f"{name} rate penalty", 1, {**_PENALIZED_BITS, "rate_price": _at(place)}
    for technique in TECHNIQUES.values():
        if technique.control is not None:
            label, level = technique.control
            yield label, 1, {technique.kind: _nearest(level)}


def _lowest_bits(space: SearchSpace, bits: int) -> float:
    """Fewest bits that a layer gets where these are asked for: a space may have no such level."""
    knobs = [knob for knob in space.knobs if knob.kind == "weight_bits"]
    return min((float(k.levels[_lowest_not_below(k, bits)]) for k in knobs), default=bits)


def _lowest_not_below(knob: Knob, bits: int) -> int:
    """The level with fewest bits, but at least so many; for 8 also 7, the widest of some layers."""
    least = 7 if bits == 8 and 8 not in knob.levels else bits
    return max(i for i, level in enumerate(knob.levels) if float(level) >= least)


def _uniform_bits(bits: int) -> Choose:
    return {
        "weight_bits": lambda knob: _lowest_not_below(knob, bits),
        "activation_bits": lambda knob: len(knob.levels) - 1,
    }


_PENALIZED_BITS: Final[Choose] = {**_uniform_bits(8), "weight_bits": lambda knob: 1}
"""Levels that prices are measured at, see `space.sensitivity_table.context_of`."""


def _nearest(ratio: float) -> Callable[[Knob], int]:
    return lambda knob: min(
        range(1, len(knob.levels)), key=lambda i: abs(float(knob.levels[i]) - ratio)
    )


def _at(place: float) -> Callable[[Knob], int]:
    """The level at a place between the mildest, 0, and the strongest, 1."""
    return lambda knob: 1 + round(place * (len(knob.levels) - 2))


def _levels(space: SearchSpace, choose: Choose) -> dict[str, int]:
    return {
        knob.name: choose[knob.kind](knob) if knob.kind in choose else 0 for knob in space.knobs
    }
