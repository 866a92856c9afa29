"""Many readers watch a run during a search: failures, lock errors, waiting times.

    python benchmarks/watch_load.py --work FOLDER [--readers 50] [--seconds 30]

The small net of `soak.py` is searched, with a trial every second or so, and served by `autocompress
watch`. Each reader does what the page does, five times as often: it asks for the status, and for
the page when there is a newer one. Then the search is stopped, and its study is checked. A row
is written to `results/`.
"""

import argparse
import http.client
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from published import result_path
from soak import TASK

_PAUSE_S = 0.4
_FIRST_TRIALS = 3


class Reader(threading.Thread):
    """One browser: keeps a connection, an ETag and the version it shows.

    Attributes:
        status_s: Seconds of each answer to a question for the status.
        page_s: Seconds of each page.
        codes: Status codes that were answered.
        failures: What went wrong, a line each.
    """

    def __init__(self, url: str, until_s: float) -> None:
        super().__init__()
        self.status_s: list[float] = []
        self.page_s: list[float] = []
        self.codes: list[int] = []
        self.failures: list[str] = []
        self.problems: list[str] = []
        self._address = urlsplit(url)
        self._until_s = until_s
        self._etag = self._version = ""

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._address.netloc, timeout=60)
        while time.perf_counter() < self._until_s:
            try:
                self._ask(connection)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                connection.close()
            time.sleep(_PAUSE_S)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        headers = {"If-None-Match": self._etag} if self._etag else {}
        content, etag = self.get(connection, "/status", headers, self.status_s)
        if not content:
            return
        status = json.loads(content)
        self._etag = etag
        if status["problem"]:
            self.problems.append(status["problem"])
        if status["version"] != self._version:
            path = "/data" if self._version else "/"
            page, _ = self.get(connection, path, {"Accept-Encoding": "gzip"}, self.page_s)
            self._version = status["version"]
            if not page:
                self.failures.append("empty page")

    def get(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        headers: dict[str, str],
        times_s: list[float],
    ) -> tuple[bytes, str]:
        start_s = time.perf_counter()
        connection.request("GET", f"{path}?{self._address.query}", headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        times_s.append(time.perf_counter() - start_s)
        self.codes.append(answer.status)
        return content, answer.headers.get("ETag", "")


def main() -> int:
    """Search, watch, count; returns 1 if anything failed or was locked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    work: Path = arguments.work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "soak_task.py").write_text(TASK)
    search = _start(
        work,
        *("search", "soak_task.py", "--run", "watched", "--results", ".", "--budget", "100000"),
        *("--threads", "1", "--objectives", "accuracy,size"),
    )
    watch = None
    try:
        while _n_finished(work) < _FIRST_TRIALS:
            if search.poll() is not None:
                raise RuntimeError(f"The search has ended: {_log(work, 'search')}")
            time.sleep(0.2)
        watch = _start(work, "watch", "watched", "--results", ".", has_output=True)
        assert watch.stdout is not None
        url = watch.stdout.readline().decode().strip()
        first_s = _first_page(url)
        n_before = _n_finished(work)
        readers = _read(url, arguments.readers, arguments.seconds)
        n_during = _n_finished(work) - n_before
    finally:
        codes = [_stop(process) for process in (search, watch) if process is not None]
    row = _row(work, readers, arguments.seconds, n_during, first_s)
    print(json.dumps(row, indent=2))
    for line in sorted({line for reader in readers for line in reader.failures})[:5]:
        print(line, file=sys.stderr)
    pd.DataFrame([row]).to_csv(result_path("watch-load", "csv"), index=False, lineterminator="\n")
    bad = ("failed_trials", "lock_errors", "problem_pages", "failed_requests", "other_codes")
    is_sound = row["integrity_check"] == "ok" and codes == [130, 130] and n_during > 0
    return 0 if is_sound and not any(row[name] for name in bad) else 1


def _read(url: str, n_readers: int, seconds: float) -> list[Reader]:
    until_s = time.perf_counter() + seconds
    readers = [Reader(url, until_s) for _ in range(n_readers)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return readers


def _first_page(url: str) -> float:
    """Seconds until the first page, which has to be rendered."""
    reader = Reader(url, time.perf_counter())
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    reader.get(connection, "/", {}, reader.page_s)
    connection.close()
    return reader.page_s[0]


def _row(
    work: Path, readers: list[Reader], seconds: float, n_during: int, first_s: float
) -> dict[str, Any]:
    with sqlite3.connect(work / "watched" / "study.db") as database:
        (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
        counted = database.execute("SELECT state, count(*) FROM trials GROUP BY state").fetchall()
    states = dict(counted)
    logs = _log(work, "search") + _log(work, "watch")
    codes = [code for reader in readers for code in reader.codes]
    status_ms = 1000 * np.array([s for reader in readers for s in reader.status_s])
    page_ms = 1000 * np.array([s for reader in readers for s in reader.page_s])
    return {
        "readers": len(readers),
        "seconds": seconds,
        "status_requests": len(status_ms),
        "not_modified": codes.count(304),
        "page_requests": len(page_ms),
        "failed_requests": sum(len(reader.failures) for reader in readers),
        "other_codes": sum(code not in (200, 304) for code in codes),
        "problem_pages": sum(len(reader.problems) for reader in readers),
        "first_page_ms": round(1000 * first_s),
        "status_p50_ms": round(float(np.percentile(status_ms, 50)), 1),
        "status_p99_ms": round(float(np.percentile(status_ms, 99)), 1),
        "page_p50_ms": round(float(np.percentile(page_ms, 50)), 1),
        "page_p99_ms": round(float(np.percentile(page_ms, 99)), 1),
        "finished_trials_meanwhile": n_during,
        "finished_trials": states.get("COMPLETE", 0) + states.get("PRUNED", 0),
        "failed_trials": states.get("FAIL", 0),
        "lock_errors": logs.count("locked"),
        "integrity_check": verdict,
    }


def _start(work: Path, *arguments: str, has_output: bool = False) -> subprocess.Popen[bytes]:
    with (work / f"{arguments[0]}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "autocompress", *arguments],
            cwd=work,
            stdout=subprocess.PIPE if has_output else log,
            stderr=log,
        )


def _stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(120)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _log(work: Path, name: str) -> str:
    return (work / f"{name}.log").read_text(errors="replace")


def _n_finished(work: Path) -> int:
    """Read off what the search says: the study is left to those who are watched."""
    path = work / "search.log"
    return path.read_text(errors="replace").count("\n[") if path.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
