"""A space of eight layers whose sensitivity table and outcomes are made up, but consistent."""

import dataclasses

import numpy as np
import pytest

from autocompress.measurement import Measurement
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.space.sensitivity_table import Figures, MeasuredLevel, SensitivityTable
from tests.builders import make_measurement

BITS = (32, 8, 4, 3, 2)
HARM_OF_BITS = np.array([0.0, 1e-4, 3e-3, 2e-2, 0.2])
GRAPH_BYTES = 1000


@dataclasses.dataclass(frozen=True)
class World:
    """What the table says, and what happens.

    Attributes:
        space: Bits for eight layers, pruning for four pairs of them.
        table: Its options.
        errors: Per knob, what the table is wrong by: factor on its harm after tuning.
    """

    space: SearchSpace
    table: SensitivityTable
    errors: np.ndarray

    @property
    def predictor(self) -> Predictor:
        return Predictor(self.space, self.table)

    def measure(self, levels: np.ndarray) -> Measurement:
        """What tuning a plan would give; (K,) level indices."""
        row = np.asarray(levels)[None, :]
        harm = float((self.predictor.divergences(row)[0] * self.errors).sum())
        return make_measurement(
            accuracy=0.95 - 0.1 * harm / (1.0 + harm),
            loss=harm,
            size_bytes=int(self.predictor.size_bytes(row)[0]),
            divergence=harm,
            untuned_divergence=float(self.predictor.divergence(row)[0]),
        )


def make_world(seed: int) -> World:
    random = np.random.default_rng(seed)
    layers = [f"layer{i}" for i in range(8)]
    n_bytes = {layer: int(random.integers(1_000, 40_000)) for layer in layers}
    pairs = {f"group{i}": (layers[2 * i], layers[2 * i + 1]) for i in range(4)}
    knobs = (
        *(Knob(kind="weight_bits", targets=(la,), levels=BITS, label=la) for la in layers),
        *(
            Knob(kind="pruning_ratio", targets=(g,), levels=(0.0, 0.25, 0.5), label=g)
            for g in pairs
        ),
    )
    space = SearchSpace(knobs=knobs)
    sensitivity = np.exp(random.normal(0.0, 1.0, size=len(knobs)))

    def figures(knob: int, level: int) -> Figures:
        held, harm = dict(n_bytes), 0.0
        value = float(knobs[knob].levels[level])
        if knobs[knob].kind == "weight_bits":
            held[knobs[knob].targets[0]] = int(n_bytes[knobs[knob].targets[0]] * value / 32)
            harm = HARM_OF_BITS[level] * sensitivity[knob]
        else:
            for layer in pairs[knobs[knob].targets[0]]:
                held[layer] = int(n_bytes[layer] * (1.0 - value))
            harm = value**2 * sensitivity[knob]
        return Figures(
            divergence=float(harm), size_bytes=sum(held.values()) + GRAPH_BYTES, layer_bytes=held
        )

    table = SensitivityTable(
        baseline=Figures(
            divergence=0.0, size_bytes=sum(n_bytes.values()) + GRAPH_BYTES, layer_bytes=n_bytes
        ),
        contexts={},
        options=tuple(
            MeasuredLevel(knob=knob.name, level=level, figures=figures(k, level))
            for k, knob in enumerate(knobs)
            for level in range(1, len(knob.levels))
        ),
        seconds=1.0,
    )
    errors = np.exp(random.normal(0.0, 0.7, size=len(knobs)))
    return World(space=space, table=table, errors=errors)


@pytest.fixture
def world() -> World:
    return make_world(0)
