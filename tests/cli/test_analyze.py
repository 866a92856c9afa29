"""`autocompress analyze --sensitivity` as a user runs it: measured once, then known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autocompress.cli.analyze import command
from autocompress.errors import InputError

MEASURE = ("analyze", "my_task.py", "--sensitivity", "--no-latency", "--threads", "1")
Run = Callable[..., Any]


def test_sensitivity_is_measured_once_and_says_everything(
    run_cli: Run, task_file: Path, tmp_path: Path
) -> None:
    own = {"AUTOCOMPRESS_CACHE": str(tmp_path / "cache")}
    first = run_cli(*MEASURE, "--json", **own)
    assert first.returncode == 0, first.stderr
    known = json.loads(first.stdout)
    found = known["sensitivity"]
    table, live = found["table"], found["live_levels"]
    n_levels = sum(len(knob["levels"]) - 1 for knob in known["knobs"])

    assert len(table["options"]) == n_levels > 5
    assert all(option["reason"] is None for option in table["options"])
    assert table["baseline"]["divergence"] == 0.0
    assert list(table["baseline"]["layer_bytes"]) == ["0", "2"]
    assert set(live) == {knob["name"] for knob in known["knobs"]}
    assert all(levels[0] == 0 for levels in live.values())
    # of files of a kilobyte: what 8-bit activations add does not shrink with the rate penalty
    assert found["additivity"]["errors"]["size"]["worst"] < 0.3
    assert {"label", "est_size_bytes", "figures"} <= set(found["additivity"]["plans"][0])
    assert "known already" not in first.stderr

    second = run_cli(*MEASURE, "--json", **own)
    again = json.loads(second.stdout)
    assert table.pop("seconds_here") == table["seconds"] > 0
    assert again["sensitivity"]["table"].pop("seconds_here") == 0
    assert again == known
    n_plans = first.stderr.split("Measuring ")[1].split(" plans")[0]
    assert f"Measuring {n_plans} plans, {n_plans} of them known already" in second.stderr

    shown = run_cli(*MEASURE, **own).stdout
    assert "weight_bits" in shown
    assert f"{table['baseline']['size_bytes']:,} bytes packed" in shown
    assert "Predicted bytes: off by" in shown
    assert "latency  " not in shown


def test_analyze_without_it_measures_nothing(run_cli: Run, task_file: Path, tmp_path: Path) -> None:
    done = run_cli("analyze", "my_task.py", "--json", AUTOCOMPRESS_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "sensitivity" not in json.loads(done.stdout)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("threads", "0", "at least 1"),
        ("runtime-threads", "-1", "at least 1"),
        ("level-timeout", "nan", "positive"),
    ],
)
def test_sensitivity_refuses_numbers_that_are_not_positive(
    option: str, value: str, said: str
) -> None:
    arguments = ["digits", "--sensitivity", f"--{option}", value]
    name = option.replace("-", "_")
    with pytest.raises(InputError, match=f"`{name}` must be {said}, but got {value}"):
        CliRunner().invoke(command, arguments, catch_exceptions=False)
