"""One file of a bundle: what a runtime that refuses the model leaves of itself and of others."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from autocompress.compress.codes import QuantizedTensor
from autocompress.errors import TrialError
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.export.runtime_file import ship, wide_integer_layers
from autocompress.runtime.base import Runtime, Shipment
from autocompress.tasks.prepare import PreparedTask

NOTHING: Any = None


class Refusing:
    """Writes what `companions` lists, then refuses the model."""

    name = "onnxruntime"  # whose versions a bundle names

    def __init__(self, suffix: str, *companions: str) -> None:
        self.suffix = suffix
        self._endings = (suffix, *companions)

    def write(self, shipment: Shipment, path: Path, batch_size: int) -> None:
        for ending in self._endings:
            path.with_suffix(ending).write_bytes(b"half a file")
        raise TrialError("runtime", "It refuses the model.")


@pytest.mark.parametrize(
    ("runtime", "others"),
    [
        (Refusing(".pte"), {"model.xml", "model.bin", "model.onnx"}),
        (Refusing(".xml", ".bin"), {"model.pte", "model.onnx"}),
    ],
)
def test_ship_takes_away_the_files_of_a_runtime_that_refuses_and_no_other(
    tmp_path: Path, runtime: Refusing, others: set[str]
) -> None:
    for name in others:
        (tmp_path / name).write_bytes(b"whole")
    facts = ship(
        NOTHING,
        NOTHING,
        cast(Runtime, runtime),
        tmp_path / f"model{runtime.suffix}",
        tmp_path / "baseline",
        cast(PreparedTask, NOTHING),
        cast(EvaluationSettings, SimpleNamespace(runtime_batch=1)),
    )
    assert facts["error"] == "It refuses the model."
    assert {path.name for path in tmp_path.iterdir()} == others


@pytest.mark.parametrize(("bits", "wide"), [(8, ["integer", "lstm"]), (7, []), (4, [])])
def test_layers_whose_integer_sums_may_saturate_are_named(bits: int, wide: list[str]) -> None:
    top = 2 ** (bits - 1) - 1
    stored = QuantizedTensor(
        codes=np.array([[top, -top], [1, 0]], np.int8), scale=np.ones(2, "f4"), axis=0, bits=bits
    )
    deployable = SimpleNamespace(
        weights=dict.fromkeys(
            ("integer", "integers", "refused", "float_inputs", "lstm.weight_hh_l0"), stored
        ),
        activations=dict.fromkeys(("integer", "lstm", "refused")),
    )
    graph = SimpleNamespace(not_integer=("refused",))
    shipment = cast(Shipment, SimpleNamespace(deployable=deployable, graph=graph))
    assert wide_integer_layers(shipment) == wide
