"""A report that is served while its run goes on: rendered once per change, for all readers."""

import base64
import dataclasses
import hashlib
import html
import json
import threading
import time
import zlib
from collections.abc import Callable
from typing import Final

from autocompress.errors import AutocompressError, first_line
from autocompress.report.live_script import STYLE, live_script
from autocompress.report.page import render_page, render_update
from autocompress.run_record import RunRecord

_LEAST_PAUSE_S: Final = 1.0
# Rendering a long run takes seconds: it must leave the cores to the trials that are measured.
_PAUSE_PER_WORK: Final = 4.0
_GZIP: Final = 16 + zlib.MAX_WBITS
_QUICK: Final = 3


def _in_thread(action: Callable[[], None]) -> None:
    threading.Thread(target=action, daemon=True).start()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What is sent, in two forms.

    Attributes:
        plain: UTF-8.
        zipped: The same, as gzip.
    """

    plain: bytes
    zipped: bytes

    @classmethod
    def of(cls, text: str) -> "Content":
        """A text, ready to be sent."""
        packer, plain = zlib.compressobj(_QUICK, wbits=_GZIP), text.encode()
        return cls(plain=plain, zipped=packer.compress(plain) + packer.flush())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What readers get until the run changes.

    Attributes:
        page: The page, HTML.
        data: What a page takes over instead of being loaded anew, JSON.
        version: Of both.
        status: JSON: `version`, `n_finished` and `n_running` trials, `is_driven`, and `problem` if
            there is nothing to show.
        etag: Of the status.
    """

    page: Content
    data: Content
    version: str
    status: bytes
    etag: str


class LivePage:
    """The newest page of a run, for any number of threads at once.

    The run is read when somebody asks and its stamp has changed, by one thread. Reading and
    rendering take a fifth of one core at most.

    Args:
        stamp: Differs as soon as the run has changed; cheap.
        load: Reads the run, and repeats of it for error bars.
        is_driven: Whether a search works on it.
        clock: Seconds since whenever.
        work_clock: Seconds that this thread has worked; where others need the cores, it waits.
        start: Does something meanwhile.
    """

    def __init__(
        self,
        *,
        stamp: Callable[[], object],
        load: Callable[[], tuple[RunRecord, tuple[RunRecord, ...]]],
        is_driven: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        work_clock: Callable[[], float] = time.thread_time,
        start: Callable[[Callable[[], None]], None] = _in_thread,
    ) -> None:
        self._stamp = stamp
        self._load = load
        self._is_driven = is_driven
        self._clock = clock
        self._work_clock = work_clock
        self._start = start
        self._lock = threading.Lock()
        self._seen: object = None
        self._next_look_s = -float("inf")
        self._rendered: _Rendered | None = None
        self._snapshot: Snapshot | None = None

    def newest(self) -> Snapshot:
        """The page as it is now; waits while it is rendered."""
        with self._lock:
            if self._clock() >= self._next_look_s:
                self._look()
            assert self._snapshot is not None
            return self._snapshot

    def last(self) -> Snapshot:
        """The page as it was rendered last, at once; a newer one may be on its way."""
        if self._snapshot is None:
            return self.newest()
        if self._clock() >= self._next_look_s and self._lock.acquire(blocking=False):
            self._start(self._look_and_release)
        return self._snapshot

    def _look_and_release(self) -> None:
        try:
            self._look()
        finally:
            self._lock.release()

    def _look(self) -> None:
        began_s, stamp = self._work_clock(), self._stamp()
        if self._rendered is None or stamp != self._seen:
            # taken before the run is read: what changes meanwhile is seen the next time
            self._rendered, self._seen = self._render(), stamp
            if self._rendered.problem:  # it may pass without a change of any file
                self._seen = None
        self._snapshot = self._rendered.snapshot(is_driven=self._is_driven())
        worked_s = self._work_clock() - began_s
        self._next_look_s = self._clock() + max(_LEAST_PAUSE_S, _PAUSE_PER_WORK * worked_s)

    def _render(self) -> "_Rendered":
        """All that is known here about the report: how its page and its data are asked for."""
        try:
            run, repeats = self._load()
        except (AutocompressError, OSError) as error:
            return _problem(error)
        data = render_update(run, repeats)
        version = _digest(data.encode())
        return _Rendered(
            page=Content.of(render_page(run, repeats, extra_script=live_script(version))),
            data=Content.of(data),
            version=version,
            n_finished=run.n_finished,
            n_running=len(run.trials) - run.n_finished,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Rendered:
    """A page, before it is known whether anybody still works on it."""

    page: Content
    data: Content
    version: str
    n_finished: int = 0
    n_running: int = 0
    problem: str | None = None

    def snapshot(self, *, is_driven: bool) -> Snapshot:
        told = {
            "version": self.version,
            "n_finished": self.n_finished,
            "n_running": self.n_running,
            "is_driven": is_driven,
            "problem": self.problem,
        }
        status = json.dumps(told).encode()
        return Snapshot(
            page=self.page,
            data=self.data,
            version=self.version,
            status=status,
            etag=f'"{_digest(status)}"',
        )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _problem(error: AutocompressError | OSError) -> _Rendered:
    """A page without a report, in words."""
    if isinstance(error, AutocompressError):
        message, hint = error.message, error.hint
    else:
        message, hint = f"The run cannot be read: {first_line(error)}.", ""
    version = _digest(message.encode())
    script = live_script(version)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in (message, hint) if line)
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"script-src 'sha256-{allowed}'; connect-src 'self'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>No report yet</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main><h1>There is nothing to show</h1>{lines}"
        f"<p>This page looks again by itself.</p></main>\n<script>{script}</script>\n"
        "</body>\n</html>\n"
    )
    return _Rendered(page=Content.of(page), data=Content.of("{}"), version=version, problem=message)
