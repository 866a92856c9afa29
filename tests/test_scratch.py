import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from autocompress.atomic_file import scratch_folder


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def _left_by(owner, folder, age_s):
    left = folder / f"autocompress-{owner}-abc"
    left.mkdir()
    (left / "model.onnx").write_bytes(b"x")
    os.utime(left, (time.time() - age_s,) * 2)
    return left


def test_a_scratch_folder_is_gone_after_its_context(temporary):
    with scratch_folder() as name:
        Path(name, "file").write_text("x")
        assert Path(name).parent == temporary
    assert list(temporary.iterdir()) == []


def test_folders_of_killed_processes_are_removed_a_day_later(temporary):
    dead = _dead_process()
    old = _left_by(dead, temporary, 90_000)
    others = [_left_by(os.getpid(), temporary, 90_000), _left_by("name", temporary, 90_000)]
    recent = temporary / f"autocompress-{dead}-recent"
    recent.mkdir()
    with scratch_folder():
        assert not old.exists()
        assert all(folder.exists() for folder in (*others, recent))
