"""A run that was searched in no time, and trackers that write into this test's folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocompress.errors import TrialError
from autocompress.run_record import RunRecord
from autocompress.search.driver import run_search
from autocompress.search.study import Study

N_TRIALS = 4
_FAILS_AT = 3


@pytest.fixture
def search(open_study: Callable[..., Study], make_executor: type) -> Callable[..., RunRecord]:
    """Search to a budget, with what is told of it; the third call fails."""

    def fail(call: int) -> None:
        if call == _FAILS_AT:
            raise TrialError("export", "no kernel")

    def run(budget: int = N_TRIALS, tracking: Any = None) -> RunRecord:
        with open_study() as study:
            if tracking is None:
                return run_search(
                    study, make_executor(fail), budget=budget, sampler="random", run_seed=0
                )
            tracking.begin(study.record())
            with tracking:
                return run_search(
                    study,
                    make_executor(fail),
                    budget=budget,
                    sampler="random",
                    run_seed=0,
                    listener=tracking.listener,
                )

    return run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Where `search` keeps its study."""
    return tmp_path / "run"
