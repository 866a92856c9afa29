import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from autocompress.atomic_file import replace_folder, restore_folder, write_atomically
from autocompress.errors import InputError


def test_write_atomically_writes_exactly_the_text_and_makes_folders(tmp_path: Path) -> None:
    goal = tmp_path / "new" / "a.txt"
    write_atomically(goal, "ä\r\nb\n")
    assert goal.read_bytes() == "ä\r\nb\n".encode()
    assert list(goal.parent.iterdir()) == [goal]


def test_write_atomically_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    goal = tmp_path / "a.txt"
    goal.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(goal, "new \ud800")
    assert goal.read_text() == "old"
    assert list(tmp_path.iterdir()) == [goal]


def test_write_atomically_raises_input_error_when_the_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be writable"):
        write_atomically(tmp_path / "file" / "a.txt", "x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_write_atomically_refuses_a_goal_that_is_no_file(tmp_path: Path) -> None:
    pipe, link, folder = tmp_path / "pipe", tmp_path / "link", tmp_path / "folder"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    folder.mkdir()
    for goal in (pipe, link, folder):
        with pytest.raises(InputError, match=f"{goal.name}' must be a file or not be there"):
            write_atomically(goal, "x")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [folder, link, pipe]


def test_write_atomically_replaces_a_file_and_a_link_to_one(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    link.symlink_to(file)
    for goal in (link, file):
        write_atomically(goal, "new")
        assert goal.read_text() == "new"


def folder_with(path: Path, **files: str) -> Path:
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name).write_text(text)
    return path


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(errno.ENOSPC, "full")])
@pytest.mark.parametrize("which", ["first", "second"])
def test_replace_folder_keeps_the_old_one_whatever_interrupts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any, which: str
) -> None:
    goal = folder_with(tmp_path / "goal", a="old")
    draft = folder_with(tmp_path / "scratch" / "draft", a="new")
    rename, calls = Path.rename, []

    def stumbling(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == (1 if which == "first" else 2):
            raise fault
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stumbling)
    with pytest.raises((KeyboardInterrupt, OSError)):
        replace_folder(draft, goal)
    assert (goal / "a").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["goal", "scratch"]

    monkeypatch.undo()
    replace_folder(draft, goal)
    assert (goal / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir() if path.name != "scratch"] == ["goal"]


def test_replace_folder_brings_back_what_a_killed_process_left(tmp_path: Path) -> None:
    old = folder_with(tmp_path / ".goal.0123abcd.old", a="old")
    restore_folder(tmp_path / "goal")
    assert (tmp_path / "goal" / "a").read_text() == "old"
    assert not old.exists()
    folder_with(tmp_path / ".goal.backup.old", a="somebody's")
    folder_with(old, a="older")  # killed after the new one was in place
    restore_folder(tmp_path / "goal")
    assert not old.exists()
    assert (tmp_path / "goal" / "a").read_text() == "old"
    assert (tmp_path / ".goal.backup.old" / "a").is_file()
