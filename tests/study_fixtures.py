"""A small space, a study factory and an executor that costs nothing."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocompress.errors import TrialError
from autocompress.executors.inline import SerialExecutor
from autocompress.executors.job import EvaluationJob, OnStage, ProbeJob
from autocompress.measurement import Measurement
from autocompress.run_record import RunRecord
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.space.sensitivity_table import Figures
from autocompress.study.optimize import run_search
from autocompress.study.stop_rules import StopRules
from autocompress.study.strategy import SearchMethod
from autocompress.study.study import Study
from tests.builders import make_measurement


@pytest.fixture
def space() -> SearchSpace:
    return SearchSpace(
        knobs=(
            *(
                Knob(kind="weight_bits", targets=(name,), levels=(32, 8, 6, 4, 3, 2), label=name)
                for name in ("stem", "body", "head")
            ),
            Knob(kind="pruning_ratio", targets=("stem",), levels=(0.0, 0.25, 0.5), label="stem"),
            Knob(
                kind="activation_bits",
                targets=("stem", "body", "head"),
                levels=(32, 8),
                label="all",
            ),
        )
    )


def figures_of(job: EvaluationJob) -> Measurement:
    """Figures that depend on plan, seed and fidelity alone, like a real evaluation's."""
    bits = [
        job.plan.layers[n].weight_bits if n in job.plan.layers else 32 for n in ("stem", "body")
    ]
    pruned = job.plan.pruning_ratios.get("stem", 0.0)
    noise = (job.seed % 997) / 1e5
    return make_measurement(
        fidelity=job.fidelity,
        accuracy=0.99 - 0.4 / min(bits) ** 2 - pruned**2 / 10 - noise,
        size_bytes=int(1000 * sum(bits) * (1 - pruned)),
        latency_ms=1.0 - pruned,
        latency_spread_ms=0.1,
        baseline_latency_ms=1.0,
        seconds=0.1,
    )


class MortalStudy(Study):
    """Leaves its note behind if the driver was killed, for nobody is there to take it away."""

    def __exit__(self, *exc_info: object) -> None:
        cut, note = (self.folder / name for name in (".power_cut", ".driver.json"))
        content = note.read_bytes() if note.exists() else b""
        super().__exit__(*exc_info)
        if cut.exists():
            cut.unlink()
            note.write_bytes(content)


class FakeExecutor(SerialExecutor):
    """Answers at once; `fail` may raise instead, given the number of the call."""

    def __init__(self, fail: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self.jobs: list[EvaluationJob] = []
        self.probes: list[ProbeJob] = []
        self._fail = fail

    def run(self, number: int, job: EvaluationJob, on_stage: OnStage) -> Measurement:
        self.jobs.append(job)
        on_stage(number, "tune", 0.5)
        if self._fail is not None:
            try:
                self._fail(len(self.jobs))
            except (Exception, KeyboardInterrupt):
                raise
            except BaseException:  # the power button: see `MortalStudy`
                (job.keep.parents[1] / ".power_cut").touch()
                raise
        job.keep.parent.mkdir(parents=True, exist_ok=True)
        job.keep.write_bytes(b"weights")
        return figures_of(job)

    def probe(self, job: ProbeJob) -> Figures:
        """Divergences and sizes that go with `figures_of`."""
        self.probes.append(job)
        figures = figures_of(EvaluationJob(plan=job.plan, seed=0, fidelity=1, keep=Path("nowhere")))
        size_bytes = figures.size_bytes
        return Figures(
            divergence=0.99 - figures.accuracy,
            size_bytes=size_bytes if job.has_size else None,
            layer_bytes={"stem": size_bytes} if job.has_size else {},
            latency_ratio=figures.latency_ms if job.has_latency else None,
        )


class ScreeningExecutor(FakeExecutor):
    """Probes whether a candidate has a chance, as the evaluator does."""

    def run(self, number: int, job: EvaluationJob, on_stage: OnStage) -> Measurement:
        figures = super().run(number, job, on_stage)
        untuned = 1.0 - figures.accuracy
        if job.rivals is not None:
            probed = Figures(
                divergence=untuned,
                size_bytes=figures.size_bytes,
                latency_ratio=figures.latency_ms,
            )
            try:
                job.rivals.check(probed)
            except TrialError:
                job.keep.unlink()
                raise
        return dataclasses.replace(figures, untuned_divergence=untuned)


@pytest.fixture
def make_executor() -> type[FakeExecutor]:
    return FakeExecutor


@pytest.fixture
def make_screening_executor() -> type[ScreeningExecutor]:
    return ScreeningExecutor


@pytest.fixture
def open_study(tmp_path: Path, space: SearchSpace) -> Callable[..., Study]:
    def open_(name: str = "run", **changes: Any) -> Study:
        settings = {"threads": 2, "device": "cpu"}
        identity = {"seed": 0, "model": "abc", "settings": settings, **changes.pop("identity", {})}
        objectives = changes.pop("objectives", "accuracy,size,latency")
        chosen = changes.pop("space", space)
        return MortalStudy(tmp_path / name, chosen, objectives, identity, {"task": "t"}, **changes)

    return open_


@pytest.fixture
def measure() -> Callable[[EvaluationJob], Measurement]:
    return figures_of


def search_study(study: Study, executor: Any, budget: int, **settings: Any) -> RunRecord:
    """Search with fields of `SearchMethod`, `StopRules` and arguments of `run_search` by name."""
    given = {"sampler": "random", "run_seed": 0, "budget": budget, **settings}

    def taken(kind: Any) -> dict[str, Any]:
        names = {field.name for field in dataclasses.fields(kind)}
        return {name: given.pop(name) for name in names & given.keys()}

    method, rules = SearchMethod(**taken(SearchMethod)), StopRules(**taken(StopRules))
    return run_search(study, executor, method, rules, **given)
