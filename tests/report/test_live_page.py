import base64
import dataclasses
import hashlib
import json
import re
import threading
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from autocompress.errors import InputError
from autocompress.report.live_page import LivePage
from autocompress.run_record import RunRecord

MakeRun = Callable[..., RunRecord]


class Run:
    """What a page is made of, all of it under the test's control."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.stamp = 0
        self.now_s = 0.0
        self.is_driven = True
        self.error: Exception | None = None
        self.n_read = 0
        self.reading_s = 0.0

    def load(self) -> tuple[RunRecord, tuple[RunRecord, ...]]:
        self.n_read += 1
        self.now_s += self.reading_s
        if self.error is not None:
            raise self.error
        return self.record, ()

    def page(self) -> LivePage:
        return LivePage(
            stamp=lambda: self.stamp,
            load=self.load,
            is_driven=lambda: self.is_driven,
            clock=lambda: self.now_s,
            work_clock=lambda: self.now_s,
            start=lambda action: action(),
        )


@pytest.fixture
def run(make_run: MakeRun) -> Run:
    """Without a trial: its page is small, for it holds no charts."""
    return Run(dataclasses.replace(make_run(1), trials=()))


def status(page: LivePage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.newest().status)
    return found


def test_live_page_is_rendered_once_per_change_however_many_ask(run: Run) -> None:
    page = run.page()
    first = page.newest()
    for _ in range(50):
        run.now_s += 1.0
        assert page.newest().page is first.page
    assert run.n_read == 1

    run.stamp, run.record = 1, dataclasses.replace(run.record, name="another")
    run.now_s += 1.0
    assert b"another" in page.newest().page.plain
    assert page.newest().etag != first.etag
    assert run.n_read == 2


def test_live_page_keeps_its_version_when_the_content_stays(run: Run) -> None:
    page = run.page()
    first = page.newest()
    run.stamp, run.now_s = 1, 1.0
    assert page.newest().etag == first.etag
    assert run.n_read == 2


def test_live_page_leaves_four_fifths_of_a_core_to_the_trials(run: Run) -> None:
    run.reading_s = 5.0
    page = run.page()
    page.newest()
    run.stamp = 1
    for now_s, n_read in ((24.0, 1), (25.0, 2)):
        run.now_s = now_s
        page.newest()
        assert run.n_read == n_read


def test_live_page_says_who_drives_without_a_change_of_the_study(run: Run) -> None:
    page = run.page()
    before = page.newest()
    assert status(page)["is_driven"] is True
    run.is_driven, run.now_s = False, 1.0
    assert status(page)["is_driven"] is False
    assert page.newest().etag != before.etag
    assert page.newest().page is before.page


def test_live_page_counts_trials(make_run: MakeRun) -> None:
    record = make_run(3, n_failed=1)
    last = dataclasses.replace(record.trials[-1], state="running")
    run = Run(dataclasses.replace(record, trials=(*record.trials[:-1], last)))
    found = status(run.page())
    assert (found["n_finished"], found["n_running"]) == (len(record.trials) - 1, 1)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("The run folder a<b is gone.", "Moved?"), b"a&lt;b is gone.</p><p>Moved?"),
        (PermissionError(13, "Permission denied"), b"cannot be read: [Errno 13] Permission denied"),
    ],
)
def test_live_page_says_what_keeps_it_and_recovers(
    run: Run, error: Exception, words: bytes
) -> None:
    page = run.page()
    version = status(page)["version"]
    run.stamp, run.error, run.now_s = 1, error, 1.0
    broken = page.newest()
    assert words in broken.page.plain
    assert json.loads(broken.status)["problem"]

    run.error, run.now_s = None, 2.0  # no file has changed
    assert status(page)["version"] == version
    assert status(page)["problem"] is None


def test_live_page_does_not_keep_who_asks_for_the_last_one_waiting(run: Run) -> None:
    waiting: list[Callable[[], None]] = []
    page = LivePage(
        stamp=lambda: run.stamp,
        load=run.load,
        is_driven=lambda: True,
        clock=lambda: run.now_s,
        start=waiting.append,
    )
    before = page.last()  # the first has to wait
    run.stamp, run.now_s, run.record = 1, 1.0, dataclasses.replace(run.record, name="another")
    assert [page.last() for _ in range(9)] == [before] * 9
    assert len(waiting) == 1
    waiting[0]()
    assert b"another" in page.last().page.plain


def test_live_page_is_read_by_one_of_many_threads(run: Run) -> None:
    page = LivePage(stamp=lambda: run.stamp, load=run.load, is_driven=lambda: True)
    threads = [threading.Thread(target=page.newest) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert run.n_read == 1


def test_live_page_is_the_same_when_unzipped(run: Run) -> None:
    snapshot = run.page().newest()
    for content in (snapshot.page, snapshot.data):
        assert zlib.decompress(content.zipped, 16 + zlib.MAX_WBITS) == content.plain


def test_live_page_holds_its_version_and_may_ask_its_own_origin_only(make_run: MakeRun) -> None:
    snapshot = Run(make_run(2)).page().newest()
    text = snapshot.page.plain.decode()
    stated = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert stated is not None
    policy = dict(part.split(" ", 1) for part in stated[1].split("; "))
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == len(policy["script-src"].split())
    assert f'let version = "{snapshot.version}"' in scripts[-1]
    assert json.loads(snapshot.data.plain)["parts"]


def test_live_page_without_a_report_allows_its_own_script(run: Run) -> None:
    run.error = InputError("Gone.")
    text = run.page().newest().page.plain.decode()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'; connect-src 'self'" in text
