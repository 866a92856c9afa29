"""A session's cache of options: the key follows what the figures depend on."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from autocompress.evaluate.settings import EvaluationSettings
from autocompress.executors.job import ProbeJob
from autocompress.plan import CompressionPlan
from autocompress.space.sensitivity_table import Figures
from autocompress.study.session import Session, open_session, probe_with, sensitivity_cache
from autocompress.tasks.base import Task

PLAN = CompressionPlan()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))


def make_task(seed: int = 0) -> Task:
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    y = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    return Task(model=model, train=(x, y), val=(x[:32], y[:32]))


def session_of(task: Task, **settings: object) -> Session:
    wanted = EvaluationSettings(**{"threads": 1, "has_latency": False, **settings})
    return open_session(task, "default", wanted)


def is_known(session: Session, *, has_latency: bool = False) -> bool:
    return sensitivity_cache(session, has_latency=has_latency).get(PLAN.digest) is not None


def test_option_cache_is_that_of_one_way_of_measuring() -> None:
    task = make_task()
    sensitivity_cache(session_of(task), has_latency=False).put(
        PLAN.digest, Figures(divergence=0.0), 1.0
    )
    more = dataclasses.replace(task, augment=lambda inputs, generator: (inputs[0] + 1.0,))

    assert is_known(session_of(make_task()))
    assert is_known(session_of(task, proxy_epochs=7))  # nothing is trained
    assert not is_known(session_of(task), has_latency=True)
    assert not is_known(session_of(make_task(seed=1)))
    assert not is_known(session_of(more))
    assert not is_known(session_of(task, threads=2))


def test_probe_with_asks_for_sizes_and_for_latency_if_wanted() -> None:
    class Executor:
        def probe(self, job: ProbeJob) -> Figures:
            asked.append(job)
            return Figures(divergence=1.0)

    asked: list[ProbeJob] = []
    for has_latency in (False, True):
        figures = probe_with(Executor(), has_latency=has_latency)(PLAN)
        assert figures.divergence == 1.0
    assert asked == [
        ProbeJob(plan=PLAN, has_size=True, has_latency=has_latency) for has_latency in (False, True)
    ]
