import http.client
import json
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from autocompress.cli.watch import command, page_of
from autocompress.errors import InputError
from autocompress.report.live_page import LivePage
from autocompress.storages.run_lock import RunLock


def status(page: LivePage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.newest().status)
    return found


def fresh(folder: Path) -> LivePage:
    """A page that looks at every call."""
    page = page_of(folder)
    times = iter(range(0, 10_000, 100))
    page._clock = lambda: float(next(times))
    return page


def test_page_of_a_run_that_vanishes_says_so_and_comes_back(untimed: Path, tmp_path: Path) -> None:
    page = fresh(untimed)
    assert status(page)["n_finished"] == 8
    assert status(page)["is_driven"] is False
    untimed.rename(tmp_path / "away")
    assert b"is gone.</p>" in page.newest().page.plain
    assert status(page)["problem"]
    (tmp_path / "away").rename(untimed)
    assert status(page)["n_finished"] == 8
    (untimed / "study.db").rename(untimed / "other.db")
    assert b"holds no study.db.</p>" in page.newest().page.plain


def test_page_of_a_run_without_a_finished_trial_says_so(untimed: Path) -> None:
    with sqlite3.connect(untimed / "study.db") as database:
        database.execute("UPDATE trials SET state = 'RUNNING'")
    database.close()
    page = fresh(untimed)
    assert (status(page)["n_finished"], status(page)["n_running"]) == (0, 8)
    assert re.search(rb"(?i)no trial|nothing", page.newest().page.plain)


def test_page_of_a_damaged_study_says_so(untimed: Path) -> None:
    (untimed / "study.db").write_bytes(b"no database at all" * 100)
    assert b"cannot be read" in fresh(untimed).newest().page.plain


def test_page_of_leaves_the_study_as_it_is(untimed: Path) -> None:
    before = (untimed / "study.db").read_bytes()
    page = fresh(untimed)
    for _ in range(3):
        page.newest()
    assert (untimed / "study.db").read_bytes() == before


def test_watch_refuses_a_run_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["x", "--results", str(tmp_path)])
    assert isinstance(result.exception, InputError)
    assert CliRunner().invoke(command, ["--port", "65536"]).exit_code == 2


def test_watch_serves_until_ctrl_c_and_ends_quietly(
    untimed: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        pytest.skip("The tests were started in a way that ignores Ctrl-C, such as `&` in a script.")
    with subprocess.Popen(
        [sys.executable, "-m", "autocompress", "watch", "u"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            address = urlsplit(process.stdout.readline().strip())
            assert (address.hostname, address.path) == ("127.0.0.1", "/")
            assert re.fullmatch(r"token=[\w-]{43}", address.query)
            for query, code in ((f"?{address.query}", 200), ("", 401)):
                connection = http.client.HTTPConnection(address.netloc, timeout=60)
                connection.request("GET", f"/{query}")
                assert connection.getresponse().status == code
                connection.close()
            process.send_signal(signal.SIGINT)
            rest, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert (rest, said.rstrip()) == ("", f"Serving {Path('results') / 'u'} until Ctrl-C.")


def test_watch_explains_how_to_copy_a_study_for_others(
    untimed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    help_text = CliRunner().invoke(command, ["--help"]).stdout
    assert "optuna-dashboard sqlite:///copy.db" in help_text
    line = re.search(r"python -c .*?copy\.db", help_text, re.DOTALL)
    assert line is not None
    shell = line[0].replace("results/RUN", "results/u").replace("python -c", f"{sys.executable} -c")
    monkeypatch.chdir(tmp_path)
    subprocess.run(shell, shell=True, check=True, timeout=60)
    copied = Path("copy.db")
    assert _n_trials(copied) == _n_trials(untimed / "study.db") == 8


def _n_trials(path: Path) -> int:
    database = sqlite3.connect(path)
    (count,) = database.execute("SELECT count(*) FROM trials").fetchone()
    database.close()
    return int(count)


def test_watch_opens_a_browser_where_it_is_told_to(
    untimed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: bool(opened.append(url)))
    monkeypatch.setattr("os.nice", lambda by: by)

    def stop(self: Any, poll_interval: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autocompress.report.watch_server.WatchServer.serve_forever", stop)
    arguments = ["u", "--open", "--results", str(untimed.parent)]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert opened == [result.stdout.splitlines()[0]]
    assert "Warning: no browser was found" in result.stderr


def test_page_of_a_run_says_whether_it_is_driven(untimed: Path) -> None:
    page, lock = fresh(untimed), RunLock(untimed)
    assert status(page)["is_driven"] is False
    lock.acquire()
    assert status(page)["is_driven"] is True
    lock.release()
    assert status(page)["is_driven"] is False
