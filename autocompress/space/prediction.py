"""From the sensitivity table to whole plans: what a plan would do if its options did not interact.

Dimension key: `N` plans, `K` knobs, `L` layers.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from autocompress.objective import LATENCY, SIZE
from autocompress.space.search_space import SearchSpace
from autocompress.space.sensitivity_table import Array, Figures, Levels, SensitivityTable
from autocompress.technique import TECHNIQUES

_LEAST_DIVERGENCE: Final = 1e-6  # nats; below it, what a method makes of it is noise


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OptionContext:
    """What a knob measured in a context depends on.

    Attributes:
        knob: Index of the knob.
        share_of_knob: Index of another knob -> share of the knob's targets that it sets the amount
            of.
        share_of_amount: The same -> share of that knob's targets which are the knob's.
        layers: The same -> which layers both set, as 0 and 1; (L,).
        others: Layers that are none of its targets, as 0 and 1; (L,).
        factors: What each level multiplies the divergence of the context by, for methods;
            (levels,). None for 8-bit activations and rate penalties, which diverge by themselves.
    """

    knob: int
    share_of_knob: Mapping[int, float]
    share_of_amount: Mapping[int, float]
    layers: Mapping[int, Array]
    others: Array
    factors: Array | None

    def share(self, levels: Levels) -> Array:
        """Share of the knob's targets whose amount is touched; (N,)."""
        shares = np.zeros(len(levels))
        for amount, share in self.share_of_knob.items():
            shares += share * (levels[:, amount] > 0)
        return shares

    def is_given(self, levels: Levels) -> Array:
        """Whether each layer's amount is touched, 1 for layers it does not set; (N, L)."""
        given = np.repeat(self.others[None, :], len(levels), axis=0)
        for amount, layers in self.layers.items():
            given += (levels[:, amount] > 0)[:, None] * layers
        return given


def option_context(
    space: SearchSpace, k: int, figures: Sequence[Figures | None], layers: Sequence[str]
) -> OptionContext:
    """What a knob that was measured in a context depends on.

    Args:
        space: All knobs.
        k: Index of the knob.
        figures: Of its context, and of each of its levels there; None for those that failed.
        layers: Names of the layers that bytes are counted for.
    """
    knob, context = space.knobs[k], figures[0]
    assert context is not None
    amount = TECHNIQUES[knob.kind].needs
    both = {
        i: set(other.targets) & set(knob.targets)
        for i, other in enumerate(space.knobs)
        if other.kind == amount and not set(other.targets).isdisjoint(knob.targets)
    }
    factors = None
    if TECHNIQUES[knob.kind].is_method:
        before = context.divergence
        is_told = before > _LEAST_DIVERGENCE
        factors = np.array([f.divergence / before if f and is_told else 1.0 for f in figures])
    return OptionContext(
        knob=k,
        share_of_knob={i: len(shared) / len(knob.targets) for i, shared in both.items()},
        share_of_amount={
            i: len(shared) / len(space.knobs[i].targets) for i, shared in both.items()
        },
        layers={i: np.array([float(la in shared) for la in layers]) for i, shared in both.items()},
        others=np.array([float(layer not in knob.targets) for layer in layers]),
        factors=factors,
    )


_GONE: Final = 1e-9  # bytes of a layer that an option removes, over those it had
_LEAST_TIME: Final = 0.05  # of what other knobs leave: something always runs
_LATENCY_NOISE: Final = 0.02  # of the log of a ratio


class Predictor:
    """Predicts divergence, bytes and latency of plans from those of their options.

    Divergences add up (measured divergences of single layers; HAWQ-V3, Yao et al. 2021, adds
    second-order estimates in the same way). Bytes multiply within a layer, since half the channels
    at half the bits leave a quarter, and layers add up. Shares of the time that structural knobs
    save add up, and all other knobs change what is left.

    Knobs measured in a context (see `context_of`) have an effect where that is given: 8-bit
    activations by the share of their layers that have integer weights, a method in the layers
    whose amount is touched. There it multiplies the divergence of the amount, by as much as in its
    context. Bytes are those of a layer's bits or of its rate penalty, whichever are fewer.

    Args:
        space: The knobs.
        table: Their options. One that failed is taken for its milder neighbour; `live_levels`
            leaves it out.

    Attributes:
        layers: Names of the layers that have bytes of their own in the original model's file.
        base_bytes: Their bytes; (L,).
        base_rest: Bytes of its file outside of layers.
        added_divergence: Per knob, what each of its levels adds to the divergence; (levels,), nats.
        log_bytes: Per knob, log of what each level multiplies the bytes of each layer by;
            (levels, L).
        added_rest: Per knob, what each level adds to the bytes outside of layers; (levels,).
        log_latency: Per knob, log of what each level multiplies the latency by; (levels,).
        saved_time: Index of a structural knob -> share of the time that each of its levels saves;
            (levels,).
    """

    def __init__(self, space: SearchSpace, table: SensitivityTable) -> None:
        self.space = space
        self.table = table
        base = table.baseline
        self.layers = tuple(name for name, n_bytes in base.layer_bytes.items() if n_bytes > 0)
        measured = {(o.knob, o.level): o for o in table.options}
        self.has_latency = base.latency_ratio is not None
        self.base_bytes = _bytes_of(base, self.layers)
        self.base_rest = float(base.size_bytes or 0) - float(self.base_bytes.sum())
        self.added_divergence: list[Array] = []
        self.log_bytes: list[Array] = []
        self.added_rest: list[Array] = []
        self.log_latency: list[Array] = []
        self._contexts: list[OptionContext] = []
        self.saved_time: dict[int, Array] = {}
        self._inside = _inside_blocks(space)
        self._figures: list[list[Figures | None]] = []
        for k, knob in enumerate(space.knobs):
            context = table.contexts.get(knob.name)
            levels = [measured.get((knob.name, i)) for i in range(1, len(knob.levels))]
            figures = [context or base, *(o.figures if o else None for o in levels)]
            self._add(figures)
            self._figures.append(figures)
            if TECHNIQUES[knob.kind].is_structural:
                self.saved_time[k] = 1.0 - np.exp(self.log_latency[k])
            if context is not None:
                self._contexts.append(option_context(space, k, figures, self.layers))

    def _add(self, measured: list[Figures | None]) -> None:
        """Append the changes that each level of a knob makes; level 0, its context, makes none."""
        assert measured[0] is not None
        figures = [context := measured[0]]
        for figures_of_level in measured[1:]:
            figures.append(figures_of_level or figures[-1])
        before = np.maximum(_bytes_of(context, self.layers), 1.0)
        rest = [_rest_of(f, self.layers) - _rest_of(context, self.layers) for f in figures]
        ratios = [_bytes_of(f, self.layers) / before for f in figures]
        self.added_divergence.append(
            np.array([max(0.0, f.divergence - context.divergence) for f in figures])
        )
        self.log_bytes.append(np.log(np.maximum(np.array(ratios), _GONE)))
        self.added_rest.append(np.array(rest))
        before_ratio = context.latency_ratio or 1.0
        self.log_latency.append(
            np.log([(f.latency_ratio or before_ratio) / before_ratio for f in figures])
        )

    def divergences(self, levels: Levels) -> Array:
        """What each knob adds to the divergence; (N, K) level indices -> (N, K), nats.

        What a method changes counts for the knob of its amount.
        """
        added = _picked(self.added_divergence, levels)
        for context in self._contexts:
            if context.factors is None:
                added[:, context.knob] *= context.share(levels)
                continue
            added[:, context.knob] = 0.0
            factors = context.factors[levels[:, context.knob]] - 1.0
            for amount, share in context.share_of_amount.items():
                added[:, amount] *= 1.0 + share * factors
        return added

    def divergence(self, levels: Levels) -> Array:
        """(N, K) level indices -> (N,), nats."""
        return self.divergences(levels).sum(axis=1)

    def size_bytes(self, levels: Levels) -> Array:
        """(N, K) level indices -> (N,), bytes of the packed file."""
        rest = self._in_context(_picked(self.added_rest, levels), levels).sum(axis=1)
        return np.asarray(self.layer_bytes(levels).sum(axis=1) + self.base_rest + rest)

    def layer_bytes(self, levels: Levels) -> Array:
        """(N, K) level indices -> (N, L), bytes of each of `layers` in the packed file."""
        contexts = {context.knob: context for context in self._contexts}
        log_ratios = np.zeros((len(levels), len(self.layers)))
        for k, table in enumerate(self.log_bytes):
            change = table[levels[:, k]]
            if k in contexts:
                change = change * contexts[k].is_given(levels)
                if self.space.knobs[k].kind == "rate_price":
                    change = np.minimum(0.0, change + self._spared_bytes(contexts[k], levels))
            log_ratios += change
        return np.asarray(np.exp(log_ratios) * self.base_bytes)

    def _spared_bytes(self, context: OptionContext, levels: Levels) -> Array:
        """Log of what a layer takes with the bits of a knob's context over what it takes; (N, L).

        A rate penalty decides what codes take in the file: it adds to what fewer bits save only
        where it asks for fewer still.
        """
        spared = np.zeros((len(levels), len(self.layers)))
        for amount, layers in context.layers.items():
            table = self.log_bytes[amount]
            spared += layers * (table[np.minimum(levels[:, amount], 1)] - table[levels[:, amount]])
        return spared

    def latency_ratio(self, levels: Levels) -> Array:
        """(N, K) level indices -> (N,), time over the original model's; 1 if none was measured."""
        logs = self._in_context(_picked(self.log_latency, levels), levels)
        saved = np.zeros(len(levels))
        for k, saved_time in self.saved_time.items():
            logs[:, k] = 0.0
            own = saved_time[levels[:, k]]
            for block in self._inside[k]:
                own = np.where(levels[:, block] > 0, 0.0, own)  # it is gone already
            saved += own
        return np.asarray(np.exp(logs.sum(axis=1)) * np.maximum(1.0 - saved, _LEAST_TIME))

    def log_cost(self, field: str, levels: Levels) -> Array | None:
        """Log of a cost over the original model's; None for one the table says nothing about.

        Args:
            field: Of `Measurement`.
            levels: (N, K) level indices.

        Returns:
            (N,).
        """
        if field == LATENCY.field:
            return np.log(self.latency_ratio(levels))
        if field == SIZE.field:
            base = float(self.table.baseline.size_bytes or 1)
            return np.log(np.maximum(self.size_bytes(levels), 1.0) / base)
        return None

    def _in_context(self, changes: Array, levels: Levels) -> Array:
        """Changes per knob, those measured in a context scaled by how far it is given; (N, K)."""
        for context in self._contexts:
            changes[:, context.knob] *= context.share(levels)
        return changes

    def live_levels(self) -> tuple[tuple[int, ...], ...]:
        """Levels worth proposing, per knob: measured, and dominated by no other level of the knob.

        A level is dominated if another diverges no more, is no larger and no slower, and is better
        in one of them, or milder and equal in all. Differences in latency below 2 % are noise.
        Methods are kept: what is best at the one amount they were measured at need not be at
        others. So is everything if sizes were not measured.
        """
        has_costs = self.table.baseline.size_bytes is not None
        live = []
        for knob, figures in zip(self.space.knobs, self._figures, strict=True):
            measured = {i: f for i, f in enumerate(figures) if f is not None}
            kept = [
                i
                for i, own in measured.items()
                if i == 0
                or TECHNIQUES[knob.kind].is_method
                or not has_costs
                or not any(
                    _beats(other, own, is_milder=j < i) for j, other in measured.items() if j != i
                )
            ]
            live.append(tuple(kept))
        return tuple(live)


def _inside_blocks(space: SearchSpace) -> list[tuple[int, ...]]:
    """Per knob, the knobs that leave out blocks which hold all its targets."""
    blocks = [
        (i, knob.targets)
        for i, knob in enumerate(space.knobs)
        if TECHNIQUES[knob.kind].acts_on == "block"
    ]
    return [
        tuple(
            i
            for i, names in blocks
            if i != k and all(any(t.startswith(f"{b}.") for b in names) for t in knob.targets)
        )
        for k, knob in enumerate(space.knobs)
    ]


def _beats(other: Figures, own: Figures, *, is_milder: bool) -> bool:
    """Whether a level is as good in everything, and better in something or milder."""
    gains = (
        own.divergence - other.divergence,
        (own.size_bytes or 0) - (other.size_bytes or 0),
        _gain_of_time(own.latency_ratio or 1.0, other.latency_ratio or 1.0),
    )
    return min(gains) >= 0 and (max(gains) > 0 or is_milder)


def _gain_of_time(own: float, other: float) -> float:
    """How much faster the other is, 0 if that is within noise."""
    gain = math.log(own / other)
    return 0.0 if abs(gain) < _LATENCY_NOISE else gain


def _picked(tables: list[Array], levels: Levels) -> Array:
    """One value per plan and knob; (N, K)."""
    columns = [table[levels[:, k]] for k, table in enumerate(tables)]
    return np.stack(columns, axis=1) if columns else np.zeros((len(levels), 0))


def _bytes_of(figures: Figures, layers: tuple[str, ...]) -> Array:
    return np.array([figures.layer_bytes.get(layer, 0) for layer in layers], dtype=np.float64)


def _rest_of(figures: Figures, layers: tuple[str, ...]) -> float:
    return float(figures.size_bytes or 0) - float(_bytes_of(figures, layers).sum())
