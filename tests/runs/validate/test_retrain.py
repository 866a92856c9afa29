import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest

from autocompress.environment import processor_name
from autocompress.errors import InputError, RunLockedError, TrialError
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.runs.validate import retrain
from autocompress.runs.validate.retrain import RetrainListener, validate_run
from tests.builders import make_measurement, make_run, make_trial

N_TRIALS = 6


def plan_of(number: int) -> CompressionPlan:
    return CompressionPlan(layers={f"fc{number}": LayerPlan(weight_bits=4)} if number else {})


def trial(number: int) -> TrialRecord:
    measured = make_measurement(accuracy=0.8 + number / 100, seconds=2.0)
    return make_trial(number, measured, plan=plan_of(number))


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    folder = tmp_path / "demo"
    folder.mkdir()
    return make_run(
        *map(trial, range(N_TRIALS + 1)),
        name="demo",
        folder=folder,
        info={
            "model": "abc",
            "data": {"train": "def"},
            "settings": {"threads": 1, "recipe": {}},
            "recipe": {"epochs": 0.5, "learning_rate": 0.01},
            "machine": {"processor": processor_name()},
        },
    )


@dataclasses.dataclass
class Trainings:
    """What was asked of the evaluator; `fail` may raise instead, given the plan."""

    calls: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    settings: EvaluationSettings | None = None
    n_reopened: int = 0
    fail: Callable[[CompressionPlan], None] = lambda plan: None

    @property
    def plans(self) -> list[CompressionPlan]:
        return [call["plan"] for call in self.calls]

    def evaluate(
        self, plan: CompressionPlan, *, seed: int, fidelity: int, on_stage: Any
    ) -> Measurement:
        self.calls.append({"plan": plan, "seed": seed, "fidelity": fidelity})
        on_stage("tune", 0.5)
        self.fail(plan)
        return make_measurement(
            accuracy=0.9 + len(str(plan)) % 7 / 100, seconds=40.0, fidelity=fidelity
        )


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    trainings = Trainings()
    proxy = EvaluationSettings(threads=1, proxy_epochs=0.5, learning_rate=0.01)

    class Proxy:
        settings = proxy

    def reopen(run: RunRecord) -> Any:
        trainings.n_reopened += 1
        return "prepared", Proxy()

    def make(prepared: Any, settings: EvaluationSettings) -> Trainings:
        assert prepared == "prepared"
        trainings.settings = settings
        return trainings

    monkeypatch.setattr(retrain, "reopen", reopen)
    monkeypatch.setattr(retrain, "Evaluator", make)
    return trainings


def test_validate_run_trains_the_sample_in_full_with_the_runs_settings(
    run: RunRecord, trainings: Trainings
) -> None:
    found = validate_run(run, n_sample=4)
    assert trainings.settings == EvaluationSettings(
        threads=1, proxy_epochs=10.0, learning_rate=0.01, has_latency=False
    )
    assert [call["fidelity"] for call in trainings.calls] == [2] * 4
    assert (found.epochs, found.proxy_epochs, found.n_candidates) == (10.0, 0.5, N_TRIALS)
    assert [r.trial.number for r in found.retrainings] == [1, 2, 4, 6]
    assert trainings.plans == [r.trial.plan for r in found.retrainings]
    assert all(r.full is not None and r.full.fidelity == 2 for r in found.retrainings)
    assert found.cost_ratio() == pytest.approx(2.0 / 40.0)


def test_validate_run_gives_each_training_a_seed_of_its_own(
    run: RunRecord, trainings: Trainings
) -> None:
    validate_run(run, seed=0)
    validate_run(run, seed=1)
    seeds = [call["seed"] for call in trainings.calls]
    assert len(set(seeds)) == 2 * N_TRIALS


def test_validate_run_continues_where_it_was_stopped(run: RunRecord, trainings: Trainings) -> None:
    def stop_in_third(plan: CompressionPlan) -> None:
        if len(trainings.calls) == 3:
            raise KeyboardInterrupt

    trainings.fail = stop_in_third
    with pytest.raises(KeyboardInterrupt):
        validate_run(run)
    document = json.loads((run.folder / "validation.json").read_text())
    assert [entry["trial"] for entry in document["results"]] == [1, 2]

    trainings.fail = lambda plan: None
    started: list[int] = []
    told: list[tuple[list[int], int, float | None]] = []
    listener = RetrainListener(
        on_begin=lambda open_, n, ratio: told.append(([t.number for t in open_], n, ratio)),
        on_start=lambda trial: started.append(trial.number),
    )
    found = validate_run(run, listener=listener)
    assert started == [3, 4, 5, 6]
    assert told == [([3, 4, 5, 6], 6, 20.0)]
    assert len(found.done) == N_TRIALS

    (run.folder / "validation.json").unlink()
    assert validate_run(run) == found  # an unbroken one gives the same


def test_validate_run_trains_nothing_twice(run: RunRecord, trainings: Trainings) -> None:
    first = validate_run(run, n_sample=4)
    n_trained = len(trainings.calls)
    assert validate_run(run, n_sample=4) == first
    assert trainings.n_reopened == 1
    assert len(validate_run(run, n_sample=6).done) == 6
    assert len(trainings.calls) == n_trained + 2


def test_validate_run_keeps_results_of_other_recipes_apart(
    run: RunRecord, trainings: Trainings
) -> None:
    validate_run(run)
    validate_run(run, epochs=1.0)
    validate_run(run, seed=1)
    assert len(trainings.calls) == 3 * N_TRIALS
    validate_run(run)
    assert len(trainings.calls) == 3 * N_TRIALS
    # a new study in the same folder: another plan, or the same one for another model
    trials = (*run.trials[:1], dataclasses.replace(run.trials[1], plan=plan_of(9)), *run.trials[2:])
    validate_run(dataclasses.replace(run, trials=trials))
    assert len(trainings.calls) == 3 * N_TRIALS + 1
    validate_run(dataclasses.replace(run, info={**run.info, "model": "other"}))
    assert len(trainings.calls) == 4 * N_TRIALS + 1


FAILURES = pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TrialError("nonfinite_loss", "The loss is NaN."), "nonfinite_loss: The loss is NaN."),
        (ValueError("augment broke"), "crashed: ValueError: augment broke"),
    ],
)


@FAILURES
def test_validate_run_records_what_cannot_be_trained_and_goes_on(
    run: RunRecord, trainings: Trainings, error: Exception, reason: str
) -> None:
    def fail_second(plan: CompressionPlan) -> None:
        if plan == plan_of(2):
            raise error

    trainings.fail = fail_second
    found = validate_run(run)
    assert len(found.done) == N_TRIALS - 1
    said = found.retrainings[1].reason
    assert said is not None
    assert said.startswith(reason)  # and where it was raised
    assert validate_run(run) == found
    assert len(trainings.calls) == N_TRIALS


def test_validate_run_of_an_untrained_proxy_takes_its_recipe(
    run: RunRecord, trainings: Trainings
) -> None:
    trials = tuple(
        dataclasses.replace(
            t, measurement=make_measurement(accuracy=0.5 + t.number / 100, seconds=0.2, fidelity=0)
        )
        for t in run.trials
    )
    found = validate_run(dataclasses.replace(run, trials=trials, fidelity=0))
    assert (found.proxy_epochs, found.epochs) == (0.0, 10.0)
    assert len(found.done) == N_TRIALS


def test_validate_run_says_that_a_machine_is_another(run: RunRecord, trainings: Trainings) -> None:
    elsewhere = dataclasses.replace(run, info={**run.info, "machine": {"processor": "z80"}})
    assert validate_run(elsewhere).cost_ratio() is None


def test_validate_run_refuses_samples_and_epochs_that_are_too_small(
    run: RunRecord, trainings: Trainings
) -> None:
    with pytest.raises(InputError, match=r"`sample` must be at least 3, but got 2"):
        validate_run(run, n_sample=2)
    with pytest.raises(InputError, match=r"must be at least the proxy's 0.5, but got 0.4"):
        validate_run(run, epochs=0.4)
    untrained = dataclasses.replace(run, fidelity=0)
    for epochs in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="`epochs`"):
            validate_run(run, epochs=epochs)
        with pytest.raises(InputError, match="must be positive"):
            validate_run(untrained, epochs=epochs)
    few = dataclasses.replace(run, trials=run.trials[:3])
    with pytest.raises(InputError, match=r"at least 3 measured trials .* but has 2\. .*`budget`"):
        validate_run(few)
    assert trainings.calls == []


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": 7}', '{"format": 1, "results": [{"key": "a"}]}']
)
def test_validate_run_refuses_a_damaged_file(
    run: RunRecord, trainings: Trainings, content: str
) -> None:
    (run.folder / "validation.json").write_text(content)
    with pytest.raises(InputError, match=r"validation.json cannot be read: .*delete it"):
        validate_run(run)
    assert (run.folder / "validation.json").read_text() == content


def test_validate_run_is_done_by_one_process_at_a_time(
    run: RunRecord, trainings: Trainings
) -> None:
    with (
        filelock.FileLock(run.folder / ".validation.lock"),
        pytest.raises(RunLockedError, match="validated by another process"),
    ):
        validate_run(run)
    assert len(validate_run(run).done) == N_TRIALS
