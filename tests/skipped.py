"""Plugin: what was skipped and why, at the end of a run and as a file that a second run can read.

`.ci/run` calls `make test` in an environment without extras, then runs what was skipped there in
one that has them all: `--write-skipped FILE`, `--only-listed FILE`.
"""

import collections
from pathlib import Path
from typing import Any

import pytest


def add_options(parser: pytest.Parser) -> None:
    """The two options."""
    group = parser.getgroup("autocompress")
    group.addoption("--write-skipped", type=Path, metavar="FILE", help="list what is skipped")
    group.addoption("--only-listed", type=Path, metavar="FILE", help="run only what FILE lists")


class SkippedTests:
    """Collects the skipped tests of a run, those of pytest-xdist's processes included.

    A module that is skipped as a whole counts once; xdist itself would not tell of it.

    Args:
        config: pytest's configuration, with the two options.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._reasons: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep what the file lists: tests by their names, or by that of their module or folder."""
        if (path := self._config.getoption("--only-listed")) is None:
            return
        names = {line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()}
        is_listed = [any(n.nodeid in names for n in item.listchain()) for item in items]
        left = [item for item, listed in zip(items, is_listed, strict=True) if not listed]
        self._config.hook.pytest_deselected(items=left)
        items[:] = [item for item, listed in zip(items, is_listed, strict=True) if listed]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module or a folder was skipped as a whole."""
        if report.skipped:
            self._reasons[report.nodeid] = _reason(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test was skipped."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._reasons[report.nodeid] = _reason(report)

    def pytest_sessionfinish(self) -> None:
        """Hand them to the process that shows them."""
        if (output := getattr(self._config, "workeroutput", None)) is not None:
            output["skipped"] = self._reasons

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over those of a process of pytest-xdist."""
        self._reasons |= getattr(node, "workeroutput", {}).get("skipped", {})

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """One line for each reason, so that a newcomer knows what was not run."""
        if self._reasons:
            terminalreporter.section("skipped (a module that is skipped whole counts once)")
        for reason, n_tests in collections.Counter(self._reasons.values()).most_common():
            terminalreporter.line(f"{n_tests:6,}  {reason}")
        if (path := self._config.getoption("--write-skipped")) is not None:
            lines = [f"{name}\t{reason}\n" for name, reason in sorted(self._reasons.items())]
            path.write_text("".join(lines), encoding="utf-8")


def _reason(report: pytest.CollectReport | pytest.TestReport) -> str:
    if not isinstance(report.longrepr, tuple):
        return str(report.longrepr)
    return report.longrepr[2].removeprefix("Skipped: ")
