import logging
from pathlib import Path

import pytest

from autocompress.errors import InputError
from autocompress.tasks import trust
from autocompress.tasks.trust import check_trusted, is_trusted, trust_task


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trust, "_asked_here", set())
    return tmp_path / "cache"


def test_a_task_is_trusted_once_it_was_asked_for_with_its_arguments() -> None:
    assert not is_trusted("/home/me/task.py:task", {"data": "a"})
    trust_task("/home/me/task.py:task", {"data": "a"})
    assert is_trusted("/home/me/task.py:task", {"data": "a"})
    assert not is_trusted("/home/me/task.py:task", {"data": "b"})
    assert not is_trusted("/home/me/task.py:other", {"data": "a"})


def test_tasks_of_this_package_need_no_trust(cache: Path) -> None:
    check_trusted("mine", "digits", {})
    trust_task("digits", {})
    assert not cache.exists()


def test_what_nobody_asked_for_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"'theirs'.*'os:system', 'command'='rm'") as caught:
        check_trusted("theirs", "os:system", {"command": "rm"})
    assert "`trust_task`" in caught.value.hint


def test_a_module_is_another_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust_task("package.task:task", {})
    trust_task(f"{tmp_path}/task.py", {})
    monkeypatch.chdir(tmp_path)
    assert not is_trusted("package.task:task", {})
    assert is_trusted(f"{tmp_path}/task.py", {})


def test_a_folder_that_cannot_be_written_is_told(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("in the way")
    with caplog.at_level(logging.WARNING):
        trust_task("a:b", {})
    assert "`trust_task`" in caplog.text
    assert is_trusted("a:b", {})  # as long as this process lives
    trust._asked_here.clear()
    assert not is_trusted("a:b", {})


def test_a_damaged_list_trusts_nothing(cache: Path) -> None:
    cache.mkdir()
    (cache / "tasks.txt").write_bytes(b"\xff\xfe\x00")
    assert not is_trusted("a:b", {})
