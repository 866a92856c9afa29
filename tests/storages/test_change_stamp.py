import os
from collections.abc import Callable
from pathlib import Path

from autocompress.storages.open_storage import change_stamp
from autocompress.study.records import load_run
from autocompress.study.study import Study
from tests.study_fixtures import search_study


def test_change_stamp_differs_after_each_trial_and_not_after_reading(
    open_study: Callable[..., Study], make_executor: type
) -> None:
    folder = open_study().folder
    stamps = [change_stamp(folder)]
    for budget in (1, 2, 3):
        with open_study() as study:
            search_study(study, make_executor(), budget)
            stamps.append(change_stamp(folder))
    stamps.append(change_stamp(folder))
    load_run(folder)

    assert change_stamp(folder) == change_stamp(folder)
    assert len(set(stamps[:-1])) == 4
    settled = change_stamp(folder)
    load_run(folder)
    assert change_stamp(folder) == settled


def test_change_stamp_sees_what_was_refined_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "refinements.json").write_text("[]")
    before = change_stamp(tmp_path)
    (tmp_path / "refinements.json").write_text("[1]")
    assert change_stamp(tmp_path) != before


def test_change_stamp_sees_a_folder_vanish(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("x")
    before = change_stamp(tmp_path)
    (tmp_path / "study.db").unlink()
    os.rmdir(tmp_path)
    assert change_stamp(tmp_path) != before


def test_change_stamp_of_a_study_on_a_server_changes_with_time(
    tmp_path: Path, monkeypatch: object
) -> None:
    (tmp_path / "storage.json").write_text("{}")
    now = iter((5.0, 6.0, 16.0))
    monkeypatch.setattr("time.monotonic", lambda: next(now))  # type: ignore[attr-defined]
    first, soon, later = (change_stamp(tmp_path) for _ in range(3))
    assert first == soon != later
