"""The sensitivity table in words: every level has a row, and what is wrong with one is said."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from autocompress.cli.sensitivity_table import Sensitivity, print_sensitivity, sensitivity_json
from autocompress.evaluate.additivity import WholePlan
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.space.sensitivity_table import Figures, MeasuredLevel, SensitivityTable

SPACE = SearchSpace(
    knobs=(
        Knob(kind="weight_bits", targets=("[a]",), levels=(32, 8, 4, 3, 2), label="[a]"),
        Knob(kind="activation_bits", targets=("[a]",), levels=(32, 8), label="all"),
    )
)


def at(divergence: float, size_bytes: int, latency_ratio: float | None) -> Figures:
    return Figures(
        divergence=divergence,
        size_bytes=size_bytes,
        layer_bytes={"[a]": size_bytes - 10},
        latency_ratio=latency_ratio,
    )


@pytest.fixture(params=[True, False], ids=["timed", "untimed"])
def found(request: pytest.FixtureRequest) -> Sensitivity:
    one, half = (1.0, 0.5) if request.param else (None, None)
    figures: list[Any] = [at(0.001, 500, one), at(0.01, 250, one), None, at(0.02, 300, one)]
    reason = "export: The model [cannot] be written."
    weights = [
        MeasuredLevel(knob="weight_bits:[a]", level=i, figures=f, reason=None if f else reason)
        for i, f in enumerate(figures, start=1)
    ]
    inputs = MeasuredLevel(knob="activation_bits:all", level=1, figures=at(0.003, 510, half))
    table = SensitivityTable(
        baseline=at(0.0, 1000, one),
        contexts={"activation_bits:all": at(0.001, 500, one)},
        options=(*weights, inputs),
        seconds=12.4,
    )
    wholes = (
        WholePlan(
            label="uniform [4] bit",
            est_divergence=0.012,
            est_size_bytes=260.0,
            est_latency_ratio=half,
            figures=at(0.024, 250, half),
        ),
        WholePlan(
            label="bad",
            est_divergence=0.1,
            est_size_bytes=9.0,
            est_latency_ratio=half,
            figures=None,
            reason="timeout: Too [long].",
        ),
    )
    session: Any = SimpleNamespace()
    return Sensitivity(session=session, predictor=Predictor(SPACE, table), wholes=wholes)


def test_print_sensitivity_has_a_row_per_level(
    found: Sensitivity, capsys: pytest.CaptureFixture[str]
) -> None:
    print_sensitivity(found)
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.strip()]
    is_timed = found.predictor.has_latency
    one, half = (["1.000", "x"], ["0.500", "x"]) if is_timed else ([], ["dropped"])

    assert "1,000 bytes packed" in printed
    assert ["[a]", "8", "0.001", "500", "-50.0", "%", *one] in rows
    assert ["4", "0.01", "250", "-75.0", "%", *one] in rows
    assert ["3", "failed"] in rows
    assert ["2", "0.02", "300", "-70.0", "%", *one, "dropped"] in rows
    assert ["all", "32", "0.001", "500", "-50.0", "%", *one, "in", "context"] in rows
    assert ["8", "0.003", "510", "+2.0", "%", *half] in rows
    assert "Failed: weight_bits:[a] = 3: export: The model [cannot] be written." in printed
    assert "0.012 / 0.024" in printed
    assert "260 / 250" in printed
    assert "uniform [4] bit" in printed
    assert "failed (timeout: Too" in printed.replace("\n", " ")
    assert "Predicted bytes: off by 4.0 % in the median, 4.0 % at worst, over 1 plan\n" in printed
    assert "Predicted divergence: off by a factor of 2.00 in the median" in printed
    assert ("Predicted latency: off by 0.0 %" in printed) == is_timed
    assert f"{2 + is_timed} of 5 levels are worth searching; measuring them took 12 s" in printed


def test_sensitivity_json_holds_everything(found: Sensitivity) -> None:
    data = json.loads(json.dumps(sensitivity_json(found)))
    assert SensitivityTable.from_json(data["table"]) == found.predictor.table
    assert data["live_levels"] == {
        "weight_bits:[a]": [0, 1, 2],
        "activation_bits:all": [0, 1] if found.predictor.has_latency else [0],
    }
    assert [plan["label"] for plan in data["additivity"]["plans"]] == ["uniform [4] bit", "bad"]
    assert data["additivity"]["plans"][0]["figures"]["size_bytes"] == 250
    assert data["additivity"]["plans"][1]["reason"] == "timeout: Too [long]."
    assert data["additivity"]["errors"]["size"]["n_plans"] == 1
