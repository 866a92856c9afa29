import os
import stat
from pathlib import Path

import pytest

from autocompress.atomic_file import write_atomically
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
