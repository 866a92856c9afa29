"""What is measured before the search proposes anything: the baseline and the controls."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from autocompress.measurement import Fidelity
from autocompress.run_record import Role
from autocompress.space.search_space import Knob, KnobKind, SearchSpace

_UNIFORM_BITS = (8, 4, 3, 2)
_UNIFORM_PRUNING = 0.3
_UNIFORM_SPARSITY = 0.5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """One plan that nobody had to search for.

    Attributes:
        role: `baseline` or `control`.
        label: What tables call it.
        levels: Knob name -> level index.
        fidelity: 0 for post-training controls, 1 for those tuned like every candidate.
    """

    role: Role
    label: str
    levels: Mapping[str, int]
    fidelity: Fidelity = 1


def make_seeds(space: SearchSpace) -> tuple[Seed, ...]:
    """Baseline first, then every control this space can express, without repeats.

    Uniform bits set every layer to the given bits, or to the next higher level its knob has, with
    8-bit inputs where the space has them.
    """
    baseline = Seed(role="baseline", label="baseline", levels=_levels(space, {}))
    seeds, seen = [baseline], {(space.decode(baseline.levels).effective, f) for f in (0, 1)}
    for label, fidelity, choose in _controls():
        levels = _levels(space, choose)
        plan = space.decode(levels).effective
        if (plan, fidelity) not in seen:
            seen.add((plan, fidelity))
            seeds.append(Seed(role="control", label=label, levels=levels, fidelity=fidelity))
    return tuple(seeds)


Choose = Mapping[KnobKind, Callable[[Knob], int]]


def _controls() -> Iterator[tuple[str, Fidelity, Choose]]:
    yield "int8 post-training", 0, _uniform_bits(8)
    for bits in _UNIFORM_BITS:
        yield f"uniform {bits} bit", 1, _uniform_bits(bits)
    yield "uniform pruning", 1, {"pruning_ratio": _nearest(_UNIFORM_PRUNING)}
    yield "uniform sparsity", 1, {"sparsity": _nearest(_UNIFORM_SPARSITY)}


def _uniform_bits(bits: int) -> Choose:
    def lowest_not_below(knob: Knob) -> int:
        return max(i for i, level in enumerate(knob.levels) if float(level) >= bits)

    return {"weight_bits": lowest_not_below, "activation_bits": lambda knob: len(knob.levels) - 1}


def _nearest(ratio: float) -> Callable[[Knob], int]:
    return lambda knob: min(
        range(1, len(knob.levels)), key=lambda i: abs(float(knob.levels[i]) - ratio)
    )


def _levels(space: SearchSpace, choose: Choose) -> dict[str, int]:
    return {
        knob.name: choose[knob.kind](knob) if knob.kind in choose else 0 for knob in space.knobs
    }
