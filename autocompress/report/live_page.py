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
from autocompress.report.page import render_page, render_update
from autocompress.run_record import RunRecord

STYLE: Final = """
:root{color-scheme:light dark}
body{font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;margin:0}
main{max-width:640px;margin:15vh auto 0;padding:0 20px;overflow-wrap:anywhere}
"""

# Asks every two seconds whether the page is still the newest. When the reader has been still for a
# moment the report takes over newer data; filters, scroll position and the open card stay. A page
# without a report is loaded anew, and so is one whose run is gone.
_SCRIPT: Final = """
(() => {
  let version = VERSION;
  const EVERY_MS = 2000, STILL_MS = 1500;
  let etag = '', status = {version}, touchedAt = -STILL_MS;

  const bar = document.createElement('div');
  const text = document.createElement('span');
  const show = document.createElement('button');
  text.setAttribute('role', 'status');
  show.type = 'button';
  show.textContent = 'Show';
  show.hidden = true;
  show.addEventListener('click', () => renew());
  bar.id = 'autocompress-watch';
  Object.assign(bar.style, {position: 'fixed', right: '12px', bottom: '12px', zIndex: '1000',
    padding: '6px 12px', borderRadius: '8px', font: '14px/1.4 system-ui, sans-serif',
    background: '#22262b', color: '#fff', maxWidth: 'calc(100vw - 24px)',
    boxSizing: 'border-box'});
  Object.assign(show.style, {marginLeft: '10px', font: 'inherit'});
  const region = document.createElement('aside');
  region.setAttribute('aria-label', 'Live updates');
  bar.append(text, show);
  region.append(bar);
  document.body.append(region);
  const say = words => { if (text.textContent !== words) text.textContent = words; };

  const load = async (name, headers = {}) => {
    const answer = await fetch(name + location.search, {cache: 'no-store', headers});
    if (!answer.ok && answer.status !== 304) throw new Error(answer.status);
    return answer;
  };
  const renew = async () => {
    if (status.problem || !window.autocompressReport) return location.reload();
    const answer = await load('data');
    autocompressReport.update(await answer.json());
    version = answer.headers.get('ETag').replaceAll('\"', '');
    show.hidden = true;
  };
  const isStill = () => !document.hidden && performance.now() - touchedAt >= STILL_MS
    && String(getSelection()) === '';
  const touch = () => { touchedAt = performance.now(); };
  for (const kind of ['pointerdown', 'pointermove', 'keydown', 'wheel', 'touchmove'])
    addEventListener(kind, touch, {passive: true});

  const words = () => {
    if (status.problem) return 'Waiting for the run';
    const n = status.n_finished;
    const trials = `${n} trial${n === 1 ? '' : 's'} finished`;
    if (!status.is_driven) return `${trials}; no search is running`;
    return `Live: ${trials}` + (status.n_running ? `, ${status.n_running} running` : '');
  };
  const ask = async () => {
    try {
      const answer = await load('status', etag ? {'If-None-Match': etag} : {});
      if (answer.ok) {
        status = await answer.json();
        etag = answer.headers.get('ETag');
        say(words());
      }
      if (status.version !== version && isStill()) await renew();
    } catch {
      etag = '';
      say('No answer: autocompress watch has ended. What you see is its last page.');
    }
    show.hidden = status.version === version;
    setTimeout(ask, EVERY_MS);
  };
  ask();
})();
"""


def live_script(version: str) -> str:
    """The script of a served page.

    Args:
        version: Of the data that the page holds; compared with the status.
    """
    return _SCRIPT.replace("VERSION", json.dumps(version), 1)


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
