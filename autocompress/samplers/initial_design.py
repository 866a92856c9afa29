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
_N_PENALTIES = 8  # of the curve that a single rate penalty gives
_N_FIRST = 3  # of them, before anything is searched
_DEEPEST = 3  # blocks that a control leaves out
# Divergences up to which initial plans go: 0.1 to 0.5 point of accuracy, and 1 to 2, in one run
# each of a ResNet-20 and of digits. Few: proposals that learned from them are better still.
_DIVERGENCES = (0.05, 0.2)
# Share of a structure's divergence that its training leaves: in one run of a CIFAR-10 ResNet-20 a
# third of an epoch left 0.2 to 0.5 of eight structures'.
_LEFT_BY_TRAINING = 0.4
_SWEEP_POWER = 0.6  # tuning repairs large damage better than small
_TIME_SHARE = 1.0  # halving the time is worth halving the size


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InitialTrial:
    """One plan that the sampler does not propose.

    Attributes:
        role: `baseline`, `control` (a plan that nobody had to search for) or `search`.
        label: What tables call it.
        levels: Knob name -> level index.
        fidelity: 0 for post-training controls, 1 for those tuned like every candidate.
        takes_turns: Whether a proposal comes between it and another such trial.
    """

    role: Role
    label: str
    levels: Mapping[str, int]
    fidelity: Fidelity = 1
    takes_turns: bool = False


def initial_trials(
    space: SearchSpace,
    swept: Sequence[Mapping[str, int]] = (),
    depths: Sequence[Mapping[str, int]] = (),
) -> tuple[InitialTrial, ...]:
    """Baseline first, then some rate penalties, initial plans and other controls, without repeats.

    The curve of a single rate penalty for all layers needs no search and hardly any time: three of
    its points come first, and uniform 8 bits, so that there is something to ship within minutes and
    proposals know what they have to beat; the others lie between these.

    Controls are all that this space can express: uniform bits set every layer to the given bits, or
    to the next higher level its knob has, with 8-bit activations where the space has them. An
    initial plan that is a control stays one: what nobody had to search for is no merit of the
    search.

    Args:
        space: The knobs.
        swept: Plans of `swept_plans`, the most promising first.
        depths: Plans of `depth_path`: controls with 8-bit weights and inputs besides.
    """
    baseline = InitialTrial(role="baseline", label="baseline", levels=_levels(space, {}))
    curve = [_control(space, *row) for row in _penalties(space)]
    others = [_control(space, *row) for row in _controls(space)]
    int8 = _levels(space, _uniform_bits(8))
    others += [
        InitialTrial(
            role="control",
            label=f"int8, {n} {'block' if n == 1 else 'blocks'} dropped",
            levels={**int8, **{name: level for name, level in plan.items() if level}},
            takes_turns=True,
        )
        for n, plan in enumerate(depths, start=1)
    ]
    mild = [trial for trial in others if trial.fidelity > 0][:1] if curve else []
    first = [dataclasses.replace(c, takes_turns=False) for c in (*curve[:_N_FIRST], *mild)]
    controls = [*curve, *others]
    sweep = [
        InitialTrial(role="search", label=f"initial {i + 1}", levels=levels)
        for i, levels in enumerate(swept)
    ]
    of_controls = {_key(space, trial) for trial in controls}
    found, seen = [baseline], {(space.decode(baseline.levels).effective, f) for f in (0, 1)}
    for trial in (*first, *sweep, *controls):
        key = _key(space, trial)
        if key not in seen and (trial.role == "control" or key not in of_controls):
            seen.add(key)
            found.append(trial)
    return tuple(found)


def _control(space: SearchSpace, label: str, fidelity: Fidelity, choose: "Choose") -> InitialTrial:
    return InitialTrial(
        role="control",
        label=label,
        levels=_levels(space, choose),
        fidelity=fidelity,
        takes_turns=True,
    )


def next_initial_trial(
    upcoming: Sequence[InitialTrial], *, is_after_fixed: bool
) -> InitialTrial | None:
    """The initial trial whose turn it is, or None if it is the sampler's.

    The first rate penalties and initial plans come before anything else; then controls and
    proposals take turns, because a sampler that has seen a few plans finds better ones than
    controls are, and a small budget should see both.

    Args:
        upcoming: Those that have not been started, in order.
        is_after_fixed: Whether the trial before was one of these, too, and not the baseline.
    """
    if not upcoming or (upcoming[0].takes_turns and is_after_fixed):
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
    """Plans that lose a little and somewhat more, by the sensitivity table.

    Each is the smallest of those that diverge so far at most after the training of structures;
    where latency is an objective, size times time is least.

    Args:
        predictor: What the sensitivity table says.
        limits: Plans predicted to break one are left out.
        has_latency: Whether latency is an objective.
        baseline_latency_ms: Latency of the original model, for a limit on it.

    Returns:
        Knob name -> level index for each, the milder first.
    """
    live = predictor.live_levels()
    names = [knob.name for knob in predictor.space.knobs]
    base = float(predictor.table.baseline.size_bytes or 1)
    chosen: list[Levels] = []
    is_structural = np.array(
        [TECHNIQUES[knob.kind].takes_weights for knob in predictor.space.knobs], dtype=bool
    )
    left = np.where(is_structural, _LEFT_BY_TRAINING, 1.0)
    time_share = _TIME_SHARE if has_latency else 0.0
    every = sweep(predictor, live, power=_SWEEP_POWER, time_share=time_share)
    for most in _DIVERGENCES:
        plans = every
        fits = np.ones(len(plans), dtype=bool)
        if LATENCY in limits.bounds and baseline_latency_ms is not None:
            latency_ratio = limits.bounds[LATENCY] / baseline_latency_ms
            fits &= predictor.latency_ratio(plans) <= latency_ratio
        if SIZE in limits.bounds:
            fits &= predictor.size_bytes(plans) <= limits.bounds[SIZE]
        plans = plans[fits]
        if len(plans):
            divergence = predictor.divergences(plans) @ left
            costs = np.log(predictor.size_bytes(plans) / base)
            costs += np.log(predictor.latency_ratio(plans)) if has_latency else 0.0
            excess = np.maximum(np.log(np.maximum(divergence, 1e-12) / most), 0.0)
            chosen.append(plans[np.lexsort((costs, excess))[0]])
    return [dict(zip(names, map(int, plan), strict=True)) for plan in chosen]


def depth_path(predictor: Predictor) -> list[dict[str, int]]:
    """Which blocks to drop: the one that diverges least, that and the next, and so on.

    Args:
        predictor: What the sensitivity table says.

    Returns:
        Knob name -> level index of up to 3 plans, none for a model without such blocks.
    """
    blocks = [k for k, knob in enumerate(predictor.space.knobs) if knob.kind == "drop_block"]
    measured = {(o.knob, o.level) for o in predictor.table.options if o.figures is not None}
    names = [knob.name for knob in predictor.space.knobs]
    blocks = [k for k in blocks if (names[k], 1) in measured]
    order = sorted(blocks, key=lambda k: float(predictor.added_divergence[k][1]))
    return [
        {name: int(k in order[:n_dropped]) for k, name in enumerate(names)}
        for n_dropped in range(1, min(len(order), _DEEPEST) + 1)
    ]


Choose = Mapping[KnobKind, Callable[[Knob], int]]


def _controls(space: SearchSpace) -> Iterator[tuple[str, Fidelity, Choose]]:
    yield "int8 post-training", 0, _uniform_bits(8)
    for bits in _UNIFORM_BITS:
        yield f"uniform {_lowest_bits(space, bits):g} bit", 1, _uniform_bits(bits)
    for technique in TECHNIQUES.values():
        if technique.control is not None:
            label, level = technique.control
            yield label, 1, {technique.kind: _nearest(level)}


def _penalties(space: SearchSpace) -> Iterator[tuple[str, Fidelity, Choose]]:
    """Points of the curve that one rate penalty for all layers gives, those far apart first."""
    knobs = [knob for knob in space.knobs if knob.kind == "rate_price"]
    if not knobs:
        return
    longest = max(knobs, key=lambda knob: len(knob.levels))
    n_levels = len(longest.levels) - 1
    places = np.unique(np.linspace(0, n_levels - 1, min(n_levels, _N_PENALTIES)).round())
    places /= max(n_levels - 1, 1)
    for place in _far_apart(places.tolist()):
        price = longest.levels[_at(place)(longest)]
        yield f"rate penalty {price:g}", 1, {**_PENALIZED_BITS, "rate_price": _at(place)}


def _far_apart(places: Sequence[float]) -> Iterator[float]:
    """Places in [0, 1], each as far as can be from those before and from the ends."""
    left, taken = [*places], [-0.1, 1.1]
    while left:
        place = max(left, key=lambda p: min(abs(p - other) for other in taken))
        left.remove(place)
        taken.append(place)
        yield place


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
