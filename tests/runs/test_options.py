"""What a search decides where its options leave it open."""

import json
from pathlib import Path
from typing import Any

import pytest

from autocompress.errors import InputError
from autocompress.option_readers import Typed
from autocompress.runs.options import keeps_space, rules_of, run_folder, settle_options
from autocompress.runs.search_task import search_seconds
from autocompress.search_options import SearchOptions
from tests.builders import make_measurement, make_run, make_trial

EIGHT = "integer_weight_bits: 8\nrules: [{weight_bits: [8], activation_bits: [8]}]"


@pytest.mark.parametrize(
    ("given", "widest"),
    [
        ({}, 7),  # ONNX Runtime: the processor may have no VNNI
        ({"runtime": "openvino"}, 7),
        ({"runtime": "executorch"}, 8),
        ({"target": "x86-onnxruntime"}, 7),
        ({"target": "x86-onnxruntime-vnni"}, 8),
        ({"target": "arm-xnnpack"}, 8),
        ({"target": "x86-onnxruntime-vnni", "integer_weight_bits": 7}, 7),
        ({"integer_weight_bits": Typed("8")}, 8),
        ({"space": "eight.yaml"}, 8),
        ({"space": "eight.yaml", "target": "x86-onnxruntime"}, 8),
    ],
)
def test_width_of_integer_weights_is_what_was_said_last_of_all_the_runtimes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], widest: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("eight.yaml").write_text(EIGHT)
    options = settle_options(SearchOptions.read(given))
    assert rules_of(options, tmp_path / "new").integer_weight_bits == widest


def test_a_run_that_began_before_integer_weights_had_a_width_keeps_eight_bits(
    tmp_path: Path,
) -> None:
    options = settle_options(SearchOptions(target="x86-onnxruntime"))
    for kept, widest in (({"budget": 5}, 8), (options.to_json(), 7)):
        (tmp_path / "run.json").write_text(json.dumps({"options": kept}))
        assert rules_of(options, tmp_path).integer_weight_bits == widest


def test_integer_weights_have_seven_or_eight_bits() -> None:
    with pytest.raises(InputError, match="`integer_weight_bits` must be 7 or 8, but got 6"):
        SearchOptions.read({"integer_weight_bits": 6})


def test_a_run_keeps_a_shipped_space_but_not_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a name holds differs between versions; a file is the user's."""
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(EIGHT)

    def kept(begun: dict[str, Any], now: dict[str, Any]) -> bool:
        first, second = (settle_options(SearchOptions.read(given)) for given in (begun, now))
        (tmp_path / "run.json").write_text(json.dumps({"options": first.to_json()}))
        return keeps_space(second, tmp_path)

    assert kept({}, {"budget": 9})
    assert kept({"space": "small_file"}, {"space": "small_file"})
    assert not kept({}, {"space": "small_file"})
    assert not kept({}, {"target": "x86-onnxruntime"})
    assert not kept({}, {"integer_weight_bits": 8}), "what is asked for must not be ignored"
    assert not kept({"space": "own.yaml"}, {"space": "own.yaml"})
    assert not keeps_space(SearchOptions(), tmp_path / "new")


def test_a_run_that_was_renamed_goes_on_under_any_name(tmp_path: Path) -> None:
    given = {"name": "my run (copy)", "results": tmp_path}
    with pytest.raises(InputError, match="`name` must hold letters"):
        settle_options(SearchOptions.read(given))
    folder = tmp_path / "my run (copy)"
    folder.mkdir()
    (folder / "study.db").write_bytes(b"")
    settled = settle_options(SearchOptions.read(given))
    assert run_folder(settled, "task") == folder
    with pytest.raises(InputError, match="`name` must hold letters"):
        settle_options(SearchOptions.read({**given, "name": "../my run (copy)"}))


@pytest.mark.parametrize(
    ("given", "used", "left"),
    [
        ({}, 0.0, None),
        ({"time": 100.0}, 0.0, 30.0),
        ({"time": 100.0}, 20.0, 10.0),  # an earlier session was stopped
        ({"time": 100.0}, 90.0, 0.0),
        ({"time": 100.0, "timeout": 5.0}, 0.0, 5.0),
        ({"timeout": 5.0}, 100.0, 5.0),
    ],
)
def test_the_search_has_a_third_of_the_time_in_all_sessions(
    given: dict[str, Any], used: float, left: float | None
) -> None:
    run = make_run(make_trial(0, make_measurement(seconds=used)))
    assert search_seconds(SearchOptions.read(given), run) == left
