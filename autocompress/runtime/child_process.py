"""A process of our own that may hang, crash or take too much memory without harm; both of its ends.

Each line of its standard input is a command in JSON. It answers in lines: `{"step": …}` as it gets
on, then `{"ok": …}` or `{"error": [class, arguments]}`. It ends with its input, in the middle of a
command too, so it cannot outlive who started it.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from autocompress.atomic_file import scratch_folder
from autocompress.errors import AutocompressError, InputError, TrialError, first_line

Tell = Callable[[str], None]

_WEIGH_S: Final = 1.0  # between two looks at its memory, which disturb what is timed
_GRACE_S: Final = 5.0
_SHARE_OF_MEMORY: Final = 0.8
_ERRORS: Final = {kind.__name__: kind for kind in (AutocompressError, InputError, TrialError)}


class ChildProcess:
    """A process that is told what to do; a context manager that ends it.

    Args:
        module: Its main module, which calls `serve`.
        name: What it is called in errors.
        memory_bytes: Most that it and what it starts may hold; None for 80 % of the memory that is
            free now.
        launcher: Command that runs it, such as an emulator; empty for none.

    Attributes:
        folder: A folder that lasts as long as the process.
        pid: Its number.
    """

    def __init__(
        self,
        module: str,
        name: str,
        memory_bytes: int | None = None,
        launcher: Sequence[str] = (),
    ) -> None:
        self._name = name
        free = psutil.virtual_memory().available
        self._memory_bytes = int(free * _SHARE_OF_MEMORY) if memory_bytes is None else memory_bytes
        self._weighed = time.monotonic()
        self._scratch = scratch_folder()
        self.folder = Path(self._scratch.name)
        self._words = (self.folder / "stderr").open("w+b")
        # -P: what lies in the current folder, a bundle perhaps, is not imported
        command = [*launcher, sys.executable, "-P", "-m", module]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, text=True
        )
        self.pid = self._process.pid
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(
        self, command: str, patience_s: float, on_step: Tell = lambda step: None, **arguments: Any
    ) -> Any:
        """Give it a command and wait for the answer.

        Args:
            command: Name of a method of what the process serves.
            patience_s: Seconds without a word after which it is given up.
            on_step: Told each step, in words.
            arguments: Of the method, as JSON.

        Raises:
            TrialError: With reason `runtime_crash` if it crashes or hangs, `memory` if it holds too
                much; and as the method does.
            InputError, AutocompressError: As the method does.
        """
        assert self._process.stdin is not None
        try:
            print(json.dumps({"do": command, **arguments}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._crash() from None
        while True:
            answer = json.loads(self._next(patience_s))
            if "step" in answer:
                on_step(answer["step"])
            elif "error" in answer:
                kind, parts = answer["error"]
                raise _ERRORS[kind](*parts)
            else:
                return answer["ok"]

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # it was in the middle of a line
                    continue
        try:
            self._process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._words.close()
        self._scratch.cleanup()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._lines.put(line)
        except (OSError, ValueError):  # it was closed meanwhile
            pass
        self._lines.put("")

    def _next(self, patience_s: float) -> str:
        """The next line it says."""
        deadline = time.monotonic() + patience_s
        while (left := deadline - time.monotonic()) > 0:
            if time.monotonic() >= self._weighed + _WEIGH_S:
                self._weigh()
            try:
                line = self._lines.get(timeout=min(left, _WEIGH_S))
            except queue.Empty:
                continue
            if not line:
                raise self._crash()
            return line
        self._process.kill()
        raise TrialError("runtime_crash", f"{self._name} hangs: nothing in {patience_s:.0f} s.")

    def _weigh(self) -> None:
        """End it if it holds too much memory."""
        self._weighed = time.monotonic()
        held = 0
        try:
            process = psutil.Process(self.pid)
            held = process.memory_info().rss
            held += sum(each.memory_info().rss for each in process.children(recursive=True))
        except psutil.Error:  # it or what it started has just ended
            pass
        if held > self._memory_bytes:
            self._process.kill()
            raise TrialError(
                "memory",
                f"{self._name} held {held / 1e9:.2f} GB of memory, more than the "
                f"{self._memory_bytes / 1e9:.2f} GB it may.",
            )

    def _crash(self) -> TrialError:
        """How the process ended, and the last it said."""
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._words.seek(max(0, self._words.seek(0, os.SEEK_END) - 2000))
        words = self._words.read().decode("utf-8", "replace").strip().splitlines()
        end = f"{how}, {words[-1].strip()[:200]}" if words else how
        return TrialError("runtime_crash", f"{self._name} crashed: {end}.")


def serve(make: Callable[[Tell], Any]) -> None:
    """Main function of such a process.

    Args:
        make: Gets a function that tells a step, and returns what has the methods to be called.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what runtimes print is no answer

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    served = make(lambda step: say({"step": step}))
    for line in iter(_commands().get, ""):
        command = json.loads(line)
        try:
            say({"ok": getattr(served, command.pop("do"))(**command)})
        except AutocompressError as error:
            kind = next(kind.__name__ for kind in type(error).mro() if kind.__name__ in _ERRORS)
            say({"error": [kind, error.args]})
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent wants to know
            message = f"{type(error).__name__}: {first_line(error)}."
            say({"error": ["TrialError", ("runtime", message)]})


def _commands() -> "queue.SimpleQueue[str]":
    """Lines of standard input as they come; this process ends with them."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # whatever the main thread is in the middle of

    threading.Thread(target=read, daemon=True).start()
    return lines
