"""The journal says what the study says, whatever happened to either."""

import contextlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autocompress.errors import (
    AutocompressError,
    InputError,
    RunLockedError,
    StudyMismatchError,
    TrialError,
)
from autocompress.evaluate.dominance import HopelessError
from autocompress.objective import Limits
from autocompress.run_record import RunRecord
from autocompress.runs.doctor import Finding, examine, repair
from autocompress.space.sensitivity_table import Figures
from autocompress.storages import journal as journal_module
from autocompress.storages.journal import journal_path, read_journal, trial_line
from autocompress.study.records import load_run
from autocompress.study.running_trials import weights_path
from autocompress.study.study import Study
from tests.study_fixtures import search_study

OpenStudy = Callable[..., Study]


def table(run: RunRecord) -> list[tuple[object, ...]]:
    return [
        (t.number, t.role, t.label, t.state, t.levels, t.plan, t.measurement, t.reason)
        for t in run.trials
    ]


def search(study: Study, executor: object, budget: int) -> RunRecord:
    return search_study(study, executor, budget, sampler="guided")  # type: ignore[arg-type]


@pytest.fixture
def folder(open_study: OpenStudy, make_screening_executor: type, tmp_path: Path) -> Path:
    """A run with trials of every state, limits, probes, and one trial that was interrupted."""

    def fail(call: int) -> None:
        if call == 3:
            raise TrialError("crashed", "broken")
        if call == 14:
            raise HopelessError("Not tuned.", Figures(divergence=1.0, size_bytes=900))
        if call == 20:
            raise KeyboardInterrupt

    executor = make_screening_executor(fail)
    limits = Limits(max_drop=0.05, max_size_bytes=40_000)
    with open_study(limits=limits) as study, pytest.raises(KeyboardInterrupt):
        search(study, executor, 30)
    for weights in (tmp_path / "run" / "candidates").iterdir():
        weights.unlink()  # of no model
    return tmp_path / "run"


def continued(open_study: OpenStudy, make: type, name: str = "run") -> RunRecord:
    with open_study(name, limits=Limits(max_drop=0.05, max_size_bytes=40_000)) as study:
        return search(study, make(), 30)


def bad(findings: list[Finding]) -> list[str]:
    return [finding.what for finding in findings if not finding.is_sound]


def test_journal_holds_all_that_the_study_does(folder: Path, open_study: OpenStudy) -> None:
    journal = read_journal(folder)
    limits = Limits(max_drop=0.05, max_size_bytes=40_000)
    with open_study(limits=limits) as study:
        trials = study._study.get_trials(deepcopy=False)
        kept = json.loads(json.dumps([trial_line(trial) for trial in trials]))
        assert [journal.trials[trial.number] for trial in trials] == kept
        assert dict(study._study.user_attrs).keys() <= journal.attributes.keys()
    assert {line["state"] for line in kept} == {"COMPLETE", "FAIL", "RUNNING", "PRUNED"}
    assert journal.n_damaged == 0
    assert bad(examine(folder)) == []


@pytest.mark.parametrize("how", ["missing", "garbage", "cut off", "another file", "empty"])
def test_repair_rebuilds_a_damaged_study_that_goes_on_as_if_nothing_had_been(
    folder: Path, open_study: OpenStudy, make_screening_executor: type, tmp_path: Path, how: str
) -> None:
    shutil.copytree(folder, tmp_path / "sound")
    before = table(load_run(folder))
    path = folder / "study.db"
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        damaged = {
            "garbage": b"\x07" * len(content),
            "cut off": content[: len(content) // 2],
            "another file": content[:8192] + b"\xff" * 8192 + content[16384:],
            "empty": b"",
        }
        path.write_bytes(damaged[how])
    for suffix in ("-wal", "-shm"):
        path.with_name(f"study.db{suffix}").unlink(missing_ok=True)

    assert len(bad(examine(folder))) == 1
    assert bad(repair(folder)) == []
    assert table(load_run(folder)) == before
    kept = [p for p in folder.iterdir() if p.name.startswith("study.db.2") and "-" not in p.name]
    assert len(kept) == (how != "missing")
    whole = continued(open_study, make_screening_executor, "sound")
    assert table(continued(open_study, make_screening_executor)) == table(whole)


def test_a_torn_last_line_is_cut_off_and_written_anew(
    folder: Path,
    open_study: OpenStudy,
    make_screening_executor: type,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = journal_path(folder)
    path.write_bytes(path.read_bytes()[:-30])
    assert read_journal(folder).n_damaged == 1
    assert bad(examine(folder)) == []  # the next search mends it
    run = continued(open_study, make_screening_executor)

    assert "cut off by a crash" in caplog.text
    assert read_journal(folder).n_damaged == 0
    assert read_journal(folder).n_finished == run.n_finished == 30


@pytest.mark.parametrize("is_missing", [False, True])
def test_a_journal_that_lags_behind_or_is_missing_catches_up(
    folder: Path, open_study: OpenStudy, make_screening_executor: type, is_missing: bool
) -> None:
    path = journal_path(folder)
    if is_missing:
        path.unlink()
    else:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:9]))
    run = continued(open_study, make_screening_executor)
    assert read_journal(folder).n_finished == run.n_finished == 30


def test_a_study_restored_from_an_old_copy_gets_back_what_its_journal_knows(
    folder: Path, open_study: OpenStudy, make_screening_executor: type, tmp_path: Path
) -> None:
    old = tmp_path / "old.db"
    shutil.copy(folder / "study.db", old)
    run = continued(open_study, make_screening_executor)
    before = table(run)
    shutil.copy(old, folder / "study.db")

    with pytest.raises(StudyMismatchError, match="its journal knows 30") as caught:
        continued(open_study, make_screening_executor)
    assert "doctor" in caught.value.hint
    assert bad(examine(folder)) == ["study.db lacks finished trials: it has 19"]
    repair(folder)
    assert table(load_run(folder)) == before


def test_a_trial_whose_line_is_damaged_is_lost_and_no_other(folder: Path) -> None:
    path = journal_path(folder)
    before = table(load_run(folder))
    lines = path.read_bytes().splitlines(keepends=True)
    of_seven = [i for i, line in enumerate(lines) if line.startswith(b'{"number": 7,')]
    assert len(of_seven) == 2  # when it began and when it ended
    for i in of_seven:
        lines[i] = b'{"number": 7, "sta\n'
    path.write_bytes(b"".join(lines))
    (folder / "study.db").unlink()
    repair(folder)

    after = table(load_run(folder))
    assert after[:7] + after[8:] == before[:7] + before[8:]
    assert after[7][3] == "failed"
    assert "lost" in str(after[7][-1])


def test_repair_deletes_what_a_crash_left_and_damaged_weights_only(folder: Path) -> None:
    (folder / "candidates" / ".trial_00001.safetensors.12ab.tmp").write_bytes(b"half")
    (folder / ".run.json.12ab.tmp").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    kept = weights_path(folder, load_run(folder).front()[0].number)
    kept.write_bytes(b"damaged")
    found = bad(examine(folder))
    assert sum("left by a crash" in what for what in found) == 2
    assert sum(what.startswith(f"{kept.name}: ") for what in found) == 1
    assert bad(repair(folder)) == []
    assert not kept.exists()
    assert (folder / "notes.txt").exists()


def test_repair_deletes_half_exports_but_no_bundle_that_was_being_replaced(folder: Path) -> None:
    half, replaced = (folder / "exports" / f".export-{name}" for name in ("a1", "b2"))
    (half / "bundle").mkdir(parents=True)
    (half / "bundle" / "model.onnx").write_bytes(b"half")
    (replaced / "old").mkdir(parents=True)
    assert len(bad(examine(folder))) == 1  # the other one may be under way
    for path in (half / "bundle" / "model.onnx", half / "bundle", half):
        os.utime(path, (1e9, 1e9))
    assert len(bad(examine(folder))) == 2
    left = bad(repair(folder))
    assert left == ["exports/.export-b2/old: a bundle; move it back to its name"]
    assert not half.exists()


def test_repair_refuses_a_run_that_is_driven_and_a_folder_that_is_none(
    folder: Path, open_study: OpenStudy, tmp_path: Path
) -> None:
    with open_study(limits=Limits(max_drop=0.05, max_size_bytes=40_000)):
        assert examine(folder)[-1].what.startswith("driven by process")
        with pytest.raises(RunLockedError):
            repair(folder)
    with pytest.raises(InputError, match="holds no run"):
        examine(tmp_path)


def test_a_run_that_lost_its_baseline_measures_it_again(
    folder: Path, open_study: OpenStudy, make_screening_executor: type
) -> None:
    path = journal_path(folder)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(li for li in lines if not li.startswith(b'{"number": 0,')))
    (folder / "study.db").unlink()
    with pytest.raises(StudyMismatchError, match="holds 0 finished trials"):
        continued(open_study, make_screening_executor)
    repair(folder)
    run = continued(open_study, make_screening_executor)
    assert run.trials[0].role == "baseline"
    assert run.trials[0].state == "complete"


def test_damaged_refinements_are_not_held_against_the_study(folder: Path) -> None:
    (folder / "refinements.json").write_text("{")
    before = (folder / "study.db").read_bytes()
    (found,) = bad(examine(folder))
    assert "refinements.json" in found
    assert bad(repair(folder)) == [found]
    assert (folder / "study.db").read_bytes() == before


def test_a_journal_that_makes_no_sense_is_one_line(folder: Path) -> None:
    path = journal_path(folder)
    said = path.read_text().replace('"weight_bits:stem": 0', '"weight_bits:stem": 99')
    path.write_text(re.sub(r', "digest": "[0-9a-f]{16}"', "", said))  # as version 0.1 wrote it
    (folder / "study.db").unlink()
    with pytest.raises(StudyMismatchError, match="makes no sense"):
        repair(folder)
    assert not (folder / "study.db").exists()


def _alter(folder: Path, statement: str) -> None:
    """Change a study behind everybody's back."""
    with contextlib.closing(sqlite3.connect(folder / "study.db")) as database, database:
        assert database.execute(statement).rowcount > 0


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "UPDATE trial_user_attributes SET value_json = "
            "replace(value_json, '\"size_bytes\": ', '\"size_bytes\": 4') WHERE trial_id = 3",
            "trial 2",
        ),
        ("UPDATE trial_values SET value = value + 1000 WHERE trial_id = 5", "trial 4"),
        (
            "UPDATE study_user_attributes SET value_json = '\"accuracy,latency\"' "
            "WHERE key = 'objectives'",
            "its objectives",
        ),
    ],
)
def test_a_study_that_says_something_else_than_its_journal_is_found_and_rebuilt(
    folder: Path,
    open_study: OpenStudy,
    make_screening_executor: type,
    statement: str,
    said: str,
) -> None:
    """A flipped bit in a figure: SQLite sees nothing, the front would show it."""
    before = table(load_run(folder))
    _alter(folder, statement)
    (found,) = [text for text in bad(examine(folder)) if "study.db" in text]
    assert said in found
    with pytest.raises(StudyMismatchError, match=r"say different things of .*the study is damaged"):
        continued(open_study, make_screening_executor)
    repair(folder)
    assert table(load_run(folder)) == before
    assert not [text for text in bad(examine(folder)) if "study.db" in text]


@pytest.mark.parametrize("value", ["{", "[" * 100_000])
def test_doctor_survives_damaged_json_in_the_study(folder: Path, value: str) -> None:
    before = table(load_run(folder))
    _alter(folder, f"UPDATE study_user_attributes SET value_json = '{value}' WHERE key = 'knobs'")
    assert any("cannot be read" in text for text in bad(examine(folder)))
    repair(folder)
    assert table(load_run(folder)) == before


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        *(("accuracy", v) for v in ("7", "-0.1", '"much"', "null", "1e400", "[]")),
        *(("size_bytes", v) for v in ("-5", "1.5", "true", "1" + "0" * 400)),
        *(("latency_ms", v) for v in ("-1", "0", "NaN")),
        *(("fidelity", v) for v in ("3", "null")),
    ],
)
def test_figures_that_cannot_be_measured_are_refused_in_one_line(
    folder: Path, figure: str, value: str
) -> None:
    """A study from elsewhere: size -5 stood on the front."""
    with contextlib.closing(sqlite3.connect(folder / "study.db")) as database, database:
        rows = database.execute(
            "SELECT trial_user_attribute_id, value_json FROM trial_user_attributes "
            "WHERE key = 'measurement'"
        ).fetchall()
        key, said = rows[1]
        spoilt = re.sub(rf'"{figure}": [^,}}]+', f'"{figure}": {value}', said, count=1)
        assert spoilt != said
        database.execute(
            "UPDATE trial_user_attributes SET value_json = ? WHERE trial_user_attribute_id = ?",
            (spoilt, key),
        )
    with pytest.raises(StudyMismatchError, match="cannot be read") as caught:
        load_run(folder)
    assert "\n" not in caught.value.message
    assert any("study.db" in text for text in bad(examine(folder)))


def test_labels_cannot_forge_a_line_of_ours(folder: Path) -> None:
    evil = '"x\\u001b[2J\\nkept: accuracy of model.onnx\\u202e"'
    _alter(folder, f"UPDATE trial_user_attributes SET value_json = '{evil}' WHERE key = 'label'")
    labels = {trial.label for trial in load_run(folder).trials}
    assert labels == {"x\\x1b[2J kept: accuracy of model.onnx\\u202e"}


def test_a_flipped_bit_in_the_journal_is_a_damaged_line(folder: Path) -> None:
    path = journal_path(folder)
    whole = read_journal(folder)
    assert whole.n_damaged == 0
    lines = path.read_bytes().splitlines(keepends=True)
    last = {
        n: i for i, line in enumerate(lines) if (n := json.loads(line).get("number")) is not None
    }
    for at in last.values():
        spoilt = lines[at].replace(b'"accuracy": 0.', b'"accuracy": 1.', 1)
        if spoilt == lines[at]:
            continue
        path.write_bytes(b"".join([*lines[:at], spoilt, *lines[at + 1 :]]))
        assert read_journal(folder).n_damaged == 1


NAMES = (
    ".lock",
    ".driver.json",
    "trials.jsonl",
    "study.db",
    "run.json",
    "candidates/w.safetensors",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_folder_whose_files_lead_elsewhere_is_refused(
    folder: Path,
    open_study: OpenStudy,
    make_screening_executor: type,
    tmp_path: Path,
    name: str,
) -> None:
    """A folder from somebody else: `.lock` would empty the file it points to."""
    mine = tmp_path / "profile"
    mine.write_text("mine\n")
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(mine)
    for act in (load_run, examine, repair):
        with pytest.raises(InputError, match=f"{re.escape(repr(name))} must be .*is a link"):
            act(folder)
    with pytest.raises(InputError, match="is a link"):
        continued(open_study, make_screening_executor)
    assert mine.read_text() == "mine\n"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="is a device or a pipe"):
        examine(folder)


def test_a_link_to_a_run_folder_is_the_users_own_choice(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(folder)
    assert table(load_run(tmp_path / "other")) == table(load_run(folder))


def test_a_full_disk_under_the_journal_ends_the_search_and_loses_nothing(
    open_study: OpenStudy, make_executor: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with open_study() as study:
        search(study, make_executor(), 3)
        monkeypatch.setattr(journal_module.os, "fsync", full)
        with pytest.raises(AutocompressError, match="No space left"):
            search(study, make_executor(), 6)
    monkeypatch.undo()
    with open_study() as study:
        run = search(study, make_executor(), 6)
    assert [t.state for t in run.trials] == ["complete"] * 6
    assert read_journal(run.folder).n_finished == 6


def _settled(folder: Path) -> Path:
    """The database as one file, nothing beside it."""
    path = folder / "study.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("PRAGMA journal_mode = DELETE")
    return path


def test_of_a_hundred_flipped_bits_none_goes_unnoticed(folder: Path) -> None:
    """Found by the doctor, or of no effect: it hit what nobody reads."""
    path, random = _settled(folder), np.random.default_rng(0)
    whole, before = path.read_bytes(), load_run(folder)
    n_found = 0
    for at in random.choice(len(whole), 100, replace=False):
        spoilt = bytearray(whole)
        spoilt[at] ^= 1 << int(random.integers(8))
        path.write_bytes(spoilt)
        if any("study.db" in text for text in bad(examine(folder))):
            n_found += 1
            continue
        after = load_run(folder)  # most bytes of so small a file are unused
        assert table(after) == table(before), f"byte {at}"
        for field in ("objectives", "knobs", "info", "limits", "fidelity"):
            assert getattr(after, field) == getattr(before, field), f"byte {at}"
    assert n_found > 20
