"""What every executor does alike."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from autocompress.errors import TrialError
from autocompress.evaluate.dominance import HopelessError, Rival, Rivals
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.executors.job import EvaluationJob, Executor, ProbeJob
from autocompress.executors.ray_cluster import RayExecutor
from autocompress.executors.registry import EXECUTORS, Resources, make_executor
from autocompress.executors.worker import WorkerSpec
from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.tasks.factory import load_task
from autocompress.tasks.fingerprint import model_fingerprint
from autocompress.tasks.prepare import prepare_task
from tests.needs import need_extra

PLAN = CompressionPlan(layers={"0": LayerPlan(weight_bits=2), "2": LayerPlan(weight_bits=8)})
UNKNOWN = CompressionPlan(layers={"nowhere": LayerPlan(weight_bits=4)})


@pytest.fixture
def evaluator(task_path: Path) -> Evaluator:
    settings = EvaluationSettings(threads=1, has_latency=False)
    return Evaluator(prepare_task(load_task(str(task_path), {})), settings)


@pytest.fixture(params=list(EXECUTORS))
def executor(
    request: pytest.FixtureRequest, task_path: Path, evaluator: Evaluator
) -> Iterator[Executor]:
    if request.param == "ray":
        need_extra("ray")
    spec = WorkerSpec(
        task=str(task_path),
        arguments={},
        settings=evaluator.settings,
        model=model_fingerprint(evaluator.model),
    )
    executor = make_executor(request.param, evaluator, spec, Resources(timeout_s=120.0))
    yield executor
    executor.close()


def run(executor: Executor, job: EvaluationJob, stages: list[str] | None = None) -> Measurement:
    executor.submit(7, job)
    told: list[tuple[int, str]] = []
    outcome = executor.wait(lambda number, stage, share: told.append((number, stage)))
    assert outcome is not None
    assert {number for number, _ in told} <= {7}
    assert outcome.number == 7
    if stages is not None:
        stages += [stage for _, stage in told]
    return outcome.measurement()


def job(tmp_path: Path, plan: CompressionPlan, rivals: Rivals | None = None) -> EvaluationJob:
    keep = tmp_path / "w.safetensors"
    return EvaluationJob(plan=plan, seed=1, fidelity=1, keep=keep, rivals=rivals)


def test_executor_does_one_job_after_the_other_and_says_why_one_failed(
    executor: Executor, evaluator: Evaluator, task_path: Path, tmp_path: Path
) -> None:
    probed = executor.probe(ProbeJob(plan=PLAN))
    assert probed == evaluator.probe(PLAN)
    assert probed.size_bytes is None

    with pytest.raises(TrialError, match="nowhere") as caught:
        executor.probe(ProbeJob(plan=UNKNOWN, has_size=True))
    assert caught.value.reason == "invalid"

    stages: list[str] = []
    measured = run(executor, job(tmp_path, PLAN), stages)
    assert measured.untuned_divergence == probed.divergence
    if not isinstance(executor, RayExecutor):  # which cannot tell
        assert {"build", "tune", "score", "export"} <= set(stages)
    assert (tmp_path / "w.safetensors").is_file()

    sized = executor.probe(ProbeJob(plan=PLAN, has_size=True))
    assert sized == evaluator.probe(PLAN, has_size=True)
    assert sized.size_bytes is not None
    assert sum(sized.layer_bytes.values()) < sized.size_bytes

    with pytest.raises(TrialError, match="nowhere") as caught:
        run(executor, job(tmp_path, UNKNOWN))
    assert caught.value.reason == "invalid"

    rival = Rival(label="trial 3", accuracy=1.0, size_bytes=1, latency_ratio=None)
    rivals = Rivals(front=(rival,), history=((1e6, 0.5),) * 6, has_latency=False)
    with pytest.raises(HopelessError, match="trial 3 has 100") as hopeless:
        run(executor, job(tmp_path, PLAN, rivals))
    assert hopeless.value.figures == sized
    assert executor.probe(ProbeJob(plan=PLAN)) == probed

    for does, reason in (("raise", "crashed"), ("exhaust", "oom")):
        task_path.with_name("augment_does").write_text(does)
        with pytest.raises(TrialError) as caught:
            run(executor, job(tmp_path, PLAN))
        assert caught.value.reason == reason
