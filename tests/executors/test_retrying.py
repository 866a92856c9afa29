from collections.abc import Callable
from pathlib import Path

import pytest

from autocompress.errors import AutocompressError, TrialError
from autocompress.executors.job import EvaluationJob, ProbeJob
from autocompress.executors.local import LocalExecutor
from autocompress.executors.retrying import RetryingExecutor
from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan, LayerPlan

PLAN = CompressionPlan(layers={"0": LayerPlan(weight_bits=2)})
Make = Callable[..., LocalExecutor]


def evaluate(executor: RetryingExecutor, folder: Path) -> object:
    keep = folder / "w.safetensors"
    executor.submit(3, EvaluationJob(plan=PLAN, seed=1, fidelity=1, keep=keep))
    outcome = executor.wait(lambda number, stage, share: None)
    assert outcome is not None
    return outcome.measurement()


def probed(executor: RetryingExecutor, folder: Path) -> object:
    return executor.probe(ProbeJob(plan=PLAN, has_size=True))


ASK = pytest.mark.parametrize("ask", [evaluate, probed])


@ASK
def test_a_trial_whose_worker_was_killed_is_evaluated_again(
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[..., object],
) -> None:
    monkeypatch.setenv("AUGMENT_DOES", "die once")
    assert ask(RetryingExecutor(make()), tmp_path) is not None
    assert (tmp_path / "died").exists()


@ASK
def test_a_trial_that_always_kills_its_worker_fails(
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[..., object],
) -> None:
    monkeypatch.setenv("AUGMENT_DOES", "die")
    with pytest.raises(TrialError, match=r"killed by signal 9 \(SIGKILL\)") as caught:
        ask(RetryingExecutor(make()), tmp_path)
    assert caught.value.reason == "worker_died"


def test_a_trial_that_ran_out_of_memory_is_tried_with_half_the_batch(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGMENT_DOES", "exhaust once")
    measured = evaluate(RetryingExecutor(make()), tmp_path)
    assert isinstance(measured, Measurement)
    assert measured.skipped == ("batches of 128: memory ran out; 64 used",)
    assert measured.has_half_batch

    monkeypatch.setenv("AUGMENT_DOES", "exhaust")
    with pytest.raises(TrialError) as caught:
        evaluate(RetryingExecutor(make()), tmp_path)
    assert caught.value.reason == "oom"


@ASK
def test_a_full_disk_is_not_held_against_the_candidate(
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[..., object],
) -> None:
    monkeypatch.setenv("AUGMENT_DOES", "fill the disk")
    with pytest.raises(AutocompressError, match="Nothing can be written: File too large") as caught:
        ask(RetryingExecutor(make()), tmp_path)
    assert not isinstance(caught.value, TrialError)
    assert "Make room" in caught.value.hint
