"""A process of our own: a word from it is waited for only so long, and it outlives nobody."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from autocompress.errors import InputError, TrialError
from autocompress.runtime.child_process import ChildProcess

SERVED = """
import time
from autocompress.errors import InputError
from autocompress.runtime.child_process import serve

class Served:
    def __init__(self, tell):
        self.tell = tell

    def count(self, n):
        for i in range(n):
            self.tell(f"step {i}")
            time.sleep(0.3)
        return n

    def sleep(self):
        time.sleep(600)

    def fill(self):
        self.held = bytearray(400_000_000)
        self.sleep()

    def grow(self):
        self.held = []
        while True:
            self.held.append(bytearray(20_000_000))
            self.tell("growing")
            time.sleep(0.1)

    def refuse(self):
        raise InputError("It must be so.", "Do this.")

    def fail(self):
        raise KeyError("weight")

serve(Served)
"""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module that serves."""
    (tmp_path / "served.py").write_text(SERVED)
    monkeypatch.setenv("PYTHONPATH", ":".join([str(tmp_path), *filter(None, sys.path)]))
    return "served"


def test_each_step_is_told_and_gives_it_more_time(served: str) -> None:
    steps: list[str] = []
    with ChildProcess(served, "It") as process:
        process.ask("count", 60, n=0)  # it has started
        assert process.ask("count", 0.9, steps.append, n=5) == 5
    assert steps == [f"step {i}" for i in range(5)]


def test_errors_come_back_as_they_were_raised(served: str) -> None:
    with ChildProcess(served, "It") as process:
        with pytest.raises(InputError, match="It must be so") as refused:
            process.ask("refuse", 60)
        assert refused.value.hint == "Do this."
        with pytest.raises(TrialError, match="KeyError: 'weight'") as failed:
            process.ask("fail", 60)
        assert failed.value.reason == "runtime"
        assert process.ask("count", 60, n=0) == 0


def test_a_hanging_one_is_given_up(served: str) -> None:
    with ChildProcess(served, "It") as process:
        process.ask("count", 60, n=0)
        with pytest.raises(TrialError, match="It hangs: nothing in 1 s"):
            process.ask("sleep", 1.0)
        assert psutil.Process(process.pid).wait(timeout=10) != 0


@pytest.mark.parametrize("command", ["fill", "grow"])
def test_one_that_holds_too_much_is_ended(served: str, command: str) -> None:
    with ChildProcess(served, "It", memory_bytes=300_000_000) as process:
        with pytest.raises(TrialError, match=r"It held 0\.\d\d GB .* more than the 0\.30") as ended:
            process.ask(command, 60)
        assert ended.value.reason == "memory"


def test_it_ends_in_the_middle_of_a_command_with_who_started_it(served: str) -> None:
    process = ChildProcess(served, "It")
    process.ask("count", 60, n=0)
    child = psutil.Process(process.pid)
    assert process._process.stdin is not None
    print('{"do": "sleep"}', file=process._process.stdin, flush=True)
    time.sleep(0.3)
    process._process.stdin.close()  # what the death of this process does
    assert child.wait(timeout=10) == 0
    process.close()
