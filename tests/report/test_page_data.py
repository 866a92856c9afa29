import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from autocompress.measurement import Measurement
from autocompress.report.findings import measured
from autocompress.report.page_data import json_block, page_data
from autocompress.run_record import RunRecord

Factory = Callable[..., RunRecord]
Change = Callable[[RunRecord], RunRecord]


def test_page_data_holds_every_trial_once_with_its_levels(make_run: Factory) -> None:
    run = make_run(6, n_failed=2)
    data = page_data(run)
    assert [t["n"] for t in data["trials"]] == [t.number for t in run.trials]
    for entry, trial in zip(data["trials"], run.trials, strict=True):
        assert entry["levels"] == [trial.levels[knob.name] for knob in run.knobs]
    assert [t["n"] for t in data["trials"] if t.get("front")] == sorted(
        t.number for t in run.front()
    )


def test_page_data_holds_what_filters_compare(make_run: Factory) -> None:
    run = make_run(3)
    trial = run.complete[-1]
    entry = page_data(run)["trials"][trial.number]
    lost = 0.9173 - measured(trial).accuracy
    assert abs(entry["drop"][0] - lost) < 1e-12
    assert entry["size"][0] == measured(trial).size_bytes
    assert entry["latency"][0] == measured(trial).latency_ms
    untimed = page_data(make_run(3, objectives="accuracy,size"))["trials"][-3]
    assert untimed["latency"] is None


def test_page_data_holds_what_filters_compare_of_longer_training(
    make_run: Factory, train_longer: Change
) -> None:
    run = train_longer(make_run(6))
    data = page_data(run)
    for kind, trials in (("refined", run.refined), ("validated", run.validated)):
        for trial in trials:
            entry = data[kind][str(trial.number)]
            lost = 0.9173 - measured(trial).accuracy
            assert abs(entry["drop"][0] - lost) < 1e-12
            assert entry["drop"][0] < data["trials"][trial.number]["drop"][0] - 0.009
            assert entry["size"][0] == measured(trial).size_bytes
            assert entry["latency"][0] == measured(trial).latency_ms


def test_page_data_has_no_cells_but_a_reason_for_what_failed(make_run: Factory) -> None:
    entry = page_data(make_run(0, n_failed=1, reason="no kernel"))["trials"][-1]
    assert entry["reason"] == "no kernel"
    assert "cells" not in entry


def test_page_data_says_null_for_a_level_that_was_not_recorded(make_run: Factory) -> None:
    run = make_run(1)
    trials = (dataclasses.replace(run.trials[0], levels={}), *run.trials[1:])
    entry = page_data(dataclasses.replace(run, trials=trials))["trials"][0]
    assert entry["levels"] == [None] * len(run.knobs)


def test_page_data_tells_the_bytes_that_each_layer_takes(make_run: Factory) -> None:
    run = make_run(4)
    trial = run.trials[1]
    assert trial.measurement is not None
    measured = dataclasses.replace(trial.measurement, layer_bytes={"stem": 40, "bn": 0, "fc": 7})
    trials = (run.trials[0], dataclasses.replace(trial, measurement=measured), *run.trials[2:])
    data = page_data(dataclasses.replace(run, trials=trials))["layerBytes"]
    assert dict(zip(data["layers"], data["of"][str(trial.number)], strict=True)) == {
        **dict.fromkeys(data["layers"], 0),
        "stem": 40,
        "fc": 7,
    }
    assert "bn" not in data["layers"]  # it has none in any trial


def test_page_data_of_a_run_that_did_not_measure_layers(make_run: Factory) -> None:
    run = make_run(1)
    trials = tuple(
        dataclasses.replace(t, measurement=t.measurement and _without_layers(t.measurement))
        for t in run.trials
    )
    assert page_data(dataclasses.replace(run, trials=trials))["layerBytes"] is None


def _without_layers(figures: Measurement) -> Measurement:
    return dataclasses.replace(figures, layer_bytes={})


def test_page_data_names_the_folder_of_a_run_that_lies_elsewhere(make_run: Factory) -> None:
    run = make_run(1)
    assert page_data(run)["run"] == "resnet20"
    elsewhere = dataclasses.replace(run, folder=Path("/tmp/my runs/a"))
    assert page_data(elsewhere)["run"] == "'/tmp/my runs/a'"


def test_json_block_cannot_end_its_element() -> None:
    text = json_block({"name": "</script><!--\u2028"})
    assert "<" not in text
    assert ">" not in text
    assert json.loads(text) == {"name": "</script><!--\u2028"}
