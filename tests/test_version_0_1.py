"""What version 0.1 wrote is read: a run folder, a search space, a bundle (tests/data/version_0_1).

They were made by the release itself: ten trials of `shapes_task.py` with `space.yaml`, trial 4
exported. Only paths were replaced afterwards, by `/elsewhere`.
"""

import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from autocompress.cli.export import command as export
from autocompress.cli.resume import command as resume
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.export.load import load
from autocompress.onnx_graph.session import make_session
from autocompress.packing.packed import read_packed
from autocompress.study.records import load_run
from autocompress.study.session import open_session
from autocompress.tasks.factory import load_task
from autocompress.tasks.trust import trust_task

OLD = Path(__file__).with_name("data") / "version_0_1"
SPEC = "shapes_task:task"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run folder, as if it had been made here: same place, same processor and packages."""
    monkeypatch.syspath_prepend(OLD)
    monkeypatch.setenv("PYTHONPATH", str(OLD))  # of worker processes
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    sys.modules.pop("shapes_task", None)
    folder = tmp_path / "results" / "shapes"
    shutil.copytree(OLD / "run", folder)
    stored = json.loads((folder / "run.json").read_text())
    settings = EvaluationSettings.from_json(stored["settings"])
    session = open_session(load_task(SPEC, {}), OLD / "space.yaml", settings)
    machine = session.identity(run_seed=0, sampler="guided", task=SPEC)["machine"]
    with sqlite3.connect(folder / "study.db") as database:
        rows = dict(database.execute("SELECT key, value_json FROM study_user_attributes"))
        identity = {**json.loads(rows["identity"]), "machine": machine}
        for key, value in (
            ("identity", json.dumps(identity)),
            ("info", rows["info"].replace("/elsewhere", str(OLD))),
        ):
            database.execute(
                "UPDATE study_user_attributes SET value_json = ? WHERE key = ?", (value, key)
            )
    database.close()
    with (folder / "trials.jsonl").open("a") as journal:
        journal.write(json.dumps({"attribute": "identity", "value": identity}) + "\n")
    trust_task(SPEC, {})
    return folder


def invoke(command: Any, *arguments: str, said: str = "") -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert said in result.stderr
    return result.stdout


def test_front_is_what_it_was(run: Path) -> None:
    record = load_run(run)
    assert [t.number for t in record.trials] == [*range(10)]
    assert [(t.number, t.label) for t in record.front()] == [(2, "initial 2")]
    baseline = record.baseline
    assert baseline is not None
    assert baseline.measurement is not None
    assert baseline.measurement.size_bytes == 19_813


def test_run_is_resumed_and_a_point_of_it_exported(run: Path) -> None:
    before = {t.number: (t.plan.digest, t.measurement) for t in load_run(run).trials}
    where = ("--results", str(run.parent))
    invoke(resume, "shapes", "--budget", "11", *where, said="Version 0.1 began this run")
    after = load_run(run)
    assert len(after.trials) == 11
    assert {n: (t.plan.digest, t.measurement) for n, t in enumerate(after.trials[:10])} == before
    invoke(export, "shapes", "--trial", "4", *where)
    manifest = json.loads((run / "exports" / "trial_00004" / "manifest.json").read_text())
    old = json.loads((OLD / "bundle" / "manifest.json").read_text())
    assert manifest["plan_digest"] == old["plan_digest"]
    assert manifest["measurements"]["val_accuracy"] == old["measurements"]["val_accuracy"]


def test_space_file_spans_the_space_it_spanned(run: Path) -> None:
    record = load_run(run)
    settings = EvaluationSettings.from_json(record.info["settings"])
    session = open_session(load_task(SPEC, {}), OLD / "space.yaml", settings)
    assert session.built.space.knobs == record.knobs


def test_packed_file_decodes_to_the_graph_beside_it_and_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(OLD)
    graph = read_packed(OLD / "bundle" / "model.acz").graph
    beside = onnx.load(OLD / "bundle" / "model.onnx")
    x = np.random.RandomState(0).random_sample((4, 1, 8, 8)).astype(np.float32)
    outputs = [
        make_session(model, 1).run(None, {model.graph.input[0].name: x})[0]
        for model in (onnx.load_from_string(graph) if isinstance(graph, bytes) else graph, beside)
    ]
    np.testing.assert_array_equal(*outputs)
    model = load_task(SPEC, {}).model
    assert load(OLD / "bundle" / "model.acz", model) is not None
