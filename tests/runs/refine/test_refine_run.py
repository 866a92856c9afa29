"""Refining trials of a run: what is kept, what is done again, what is refused."""

import dataclasses
import errno
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch
from torch import nn

from autocompress.errors import (
    AutocompressError,
    InputError,
    NoPointError,
    RunLockedError,
    TrialError,
)
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.runs.refine import refine_run as module
from autocompress.runs.refine.refine_run import RefineListener, choose_trials, refine_run
from autocompress.runs.refine.training import Epoch, Refinement
from autocompress.study.result_files import ResultFile, refined_trials, refined_weights_path
from autocompress.tasks.base import Task
from autocompress.tasks.prepare import prepare_task
from tests.builders import make_measurement, make_run, make_trial

N_TRIALS = 4
PLANS = [CompressionPlan(layers={"0": LayerPlan(weight_bits=b)} if b else {}) for b in (0, 8, 4, 3)]


def measurement(accuracy: float, size_bytes: int = 1000, fidelity: Any = 1) -> Measurement:
    return make_measurement(
        accuracy=accuracy, size_bytes=size_bytes, fidelity=fidelity, seconds=2.0
    )


def trial(number: int, accuracy: float, size_bytes: int, plan: CompressionPlan) -> TrialRecord:
    return make_trial(number, measurement(accuracy, size_bytes), plan=plan)


def record(folder: Path, *trials: TrialRecord) -> RunRecord:
    info = {"model": "abc", "data": {"train": "def"}, "settings": {"threads": 1}}
    return make_run(*trials, name="demo", folder=folder, info=info)


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    figures = ((0.9, 1000), (0.89, 250), (0.88, 125), (0.87, 90))
    pairs = zip(figures, PLANS, strict=True)
    return record(tmp_path, *(trial(n, *f, plan) for n, (f, plan) in enumerate(pairs)))


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    torch.manual_seed(0)
    data = (torch.randn(40, 6), torch.arange(40) % 3)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    task = Task(model=model, train=data, val=data, proxy_epochs=2)
    settings = EvaluationSettings(threads=1, has_latency=False, recipe={"penalty": "l1"})
    return Evaluator(prepare_task(task), settings)


@dataclasses.dataclass
class Refinements:
    """What was asked of `refine`; `fail` may raise in the middle of it, given the plan."""

    calls: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    fail: Callable[[CompressionPlan], None] = lambda plan: None

    def refine(
        self,
        evaluator: Evaluator,
        plan: CompressionPlan,
        refinement: Refinement,
        *,
        checkpoint: Path,
        keep: Path,
        on_epoch: Callable[[Epoch], None],
        **how: Any,
    ) -> tuple[Measurement, tuple[Epoch, ...]]:
        self.calls.append(
            {
                "plan": plan,
                "refinement": refinement,
                "evaluator": evaluator,
                "at": checkpoint,
                **how,
            }
        )
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text("epoch 1")
        epoch = Epoch(
            number=1,
            n_epochs=1,
            accuracy=0.9,
            loss=0.1,
            est_code_bits=None,
            is_final=True,
            seconds=1.0,
        )
        on_epoch(epoch)
        self.fail(plan)
        keep.write_text(plan.digest)
        return measurement(0.91, 80, fidelity=2), (epoch,)

    @property
    def plans(self) -> list[CompressionPlan]:
        return [call["plan"] for call in self.calls]


@pytest.fixture
def refinements(monkeypatch: pytest.MonkeyPatch, evaluator: Evaluator) -> Refinements:
    found = Refinements()
    monkeypatch.setattr(module, "reopen", lambda run: (evaluator.prepared, evaluator))
    monkeypatch.setattr(module, "refine", found.refine)
    return found


def results_of(run: RunRecord) -> list[dict[str, Any]]:
    path = run.folder / "refinements.json"
    return json.loads(path.read_text())["results"] if path.exists() else []


def refined_weights(run: RunRecord, number: int) -> Path:
    path = refined_weights_path(run.folder, number)
    assert path is not None
    return path


def left_behind(run: RunRecord) -> list[str]:
    return sorted(path.name for path in (run.folder / "refined").iterdir())


def test_refine_run_keeps_every_result(run: RunRecord, refinements: Refinements) -> None:
    told: list[Any] = []
    listener = RefineListener(
        on_begin=lambda missing, wanted: told.append((len(missing), len(wanted))),
        on_start=lambda trial: told.append(trial.number),
        on_epoch=lambda epoch: told.append("epoch"),
        on_finish=lambda trial, measured, reason: told.append((measured.accuracy, reason)),
    )
    refined = refine_run(run, run.trials[1:3], fields={}, listener=listener)
    assert told == [(2, 2), 1, "epoch", (0.91, None), 2, "epoch", (0.91, None)]
    assert [t.label for t in refined] == ["trial 1, refined", "trial 2, refined"]
    assert all(t.measurement == measurement(0.91, 80, fidelity=2) for t in refined)
    assert refined_trials(run.folder, run.trials) == refined
    assert left_behind(run) == [refined_weights(run, number).name for number in (1, 2)]
    assert [entry["trial"] for entry in results_of(run)] == [1, 2]
    assert [entry["epochs"][0]["number"] for entry in results_of(run)] == [1, 1]


def test_refine_run_has_a_full_recipe_by_default(
    run: RunRecord, refinements: Refinements, evaluator: Evaluator
) -> None:
    refine_run(run, run.trials[1:2], fields={})
    refinement = refinements.calls[0]["refinement"]
    assert refinement.recipe == dataclasses.replace(
        evaluator.recipe, epochs=30.0, entropy_strength=0.3, features="similarity", penalty="none"
    )
    assert (refinement.patience, refinement.minutes, refinement.is_progressive) == (10, None, True)
    fields = {"epochs": 3.0, "features": "none", "entropy_strength": 0.0, "learning_rate": 0.5}
    refine_run(run, run.trials[1:2], fields=fields, patience=2, minutes=7.0)
    refinement = refinements.calls[1]["refinement"]
    assert refinement.recipe == dataclasses.replace(evaluator.recipe, **fields, penalty="none")
    assert (refinement.patience, refinement.minutes) == (2, 7.0)
    assert results_of(run)[0]["recipe"] == dataclasses.asdict(refinement.recipe)


def test_weights_of_other_options_replace_the_old_ones_only_when_the_result_is_written(
    run: RunRecord, refinements: Refinements, monkeypatch: pytest.MonkeyPatch
) -> None:
    refine_run(run, run.trials[1:2], fields={})
    before = refined_weights(run, 1)

    def die(self: ResultFile, results: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResultFile, "write", die)
        with pytest.raises(KeyboardInterrupt):
            refine_run(run, run.trials[1:2], fields={"epochs": 3.0})
    assert refined_weights(run, 1) == before
    assert len(list(before.parent.glob("*.safetensors"))) == 2
    refine_run(run, run.trials[1:2], fields={"epochs": 3.0})
    assert refined_weights(run, 1) != before
    assert left_behind(run) == [refined_weights(run, 1).name]


def test_refine_run_trains_nothing_twice(run: RunRecord, refinements: Refinements) -> None:
    first = refine_run(run, run.trials[1:3], fields={})
    begun: list[int] = []
    listener = RefineListener(on_begin=lambda missing, wanted: begun.append(len(missing)))
    assert refine_run(run, run.trials[1:3], fields={}, listener=listener) == first
    assert begun == [0]
    assert len(refinements.calls) == 2
    assert len(refine_run(run, run.trials[1:], fields={})) == 3
    assert refinements.plans == PLANS[1:]


def test_refine_run_continues_where_it_was_stopped(
    run: RunRecord, refinements: Refinements
) -> None:
    def stop_in_second(plan: CompressionPlan) -> None:
        if plan == PLANS[2]:
            raise KeyboardInterrupt

    refinements.fail = stop_in_second
    with pytest.raises(KeyboardInterrupt):
        refine_run(run, run.trials[1:], fields={})
    assert [entry["trial"] for entry in results_of(run)] == [1]
    checkpoint = refinements.calls[1]["at"]
    assert left_behind(run) == [refined_weights(run, 1).name, checkpoint.name]

    refinements.fail = lambda plan: None
    assert len(refine_run(run, run.trials[1:], fields={})) == 3
    assert refinements.plans == [PLANS[1], PLANS[2], PLANS[2], PLANS[3]]
    assert refinements.calls[2]["at"] == checkpoint
    assert refinements.calls[2]["seed"] == refinements.calls[1]["seed"]
    assert not checkpoint.exists()


def test_refine_run_keeps_the_checkpoint_until_the_result_is_written(
    run: RunRecord, refinements: Refinements, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*arguments: Any) -> None:
        raise InputError("No space left on device.")

    with monkeypatch.context() as patch:
        patch.setattr(ResultFile, "write", full_disk)
        with pytest.raises(InputError, match="No space left"):
            refine_run(run, run.trials[1:2], fields={})
    assert refinements.calls[0]["at"].exists()
    refine_run(run, run.trials[1:2], fields={})
    assert not refinements.calls[0]["at"].exists()


FAILURES = pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TrialError("nonfinite_loss", "The loss is NaN."), "nonfinite_loss: The loss is NaN."),
        (ValueError("augment broke"), "crashed: ValueError: augment broke"),
    ],
)


@FAILURES
def test_refine_run_records_what_failed_and_goes_on(
    run: RunRecord, refinements: Refinements, error: Exception, reason: str
) -> None:
    def fail_first(plan: CompressionPlan) -> None:
        if plan == PLANS[1]:
            raise error

    refinements.fail = fail_first
    reasons: list[str | None] = []
    listener = RefineListener(on_finish=lambda t, measured, why: reasons.append(why))
    refined = refine_run(run, run.trials[1:], fields={}, listener=listener)
    assert [t.number for t in refined] == [2, 3]
    assert reasons[0] is not None
    assert reasons[0].startswith(reason)  # and where it was raised
    assert reasons[1:] == [None, None]
    assert results_of(run)[0]["reason"] == reasons[0]
    assert not [name for name in left_behind(run) if name.endswith("checkpoint")]

    assert refine_run(run, run.trials[1:], fields={}, listener=listener) == refined
    assert len(refinements.calls) == 3
    assert reasons[3:] == [reasons[0]]  # said again, not tried again


@pytest.mark.parametrize(
    "error", [RuntimeError("can't allocate memory"), OSError(errno.ENOSPC, "No space left")]
)
def test_refine_run_goes_on_later_where_the_machine_had_no_room(
    run: RunRecord, refinements: Refinements, error: Exception
) -> None:
    def fail(plan: CompressionPlan) -> None:
        raise error

    refinements.fail = fail
    with pytest.raises(AutocompressError) as caught:
        refine_run(run, run.trials[1:2], fields={})
    assert not isinstance(caught.value, TrialError)
    assert refinements.calls[0]["at"].exists()  # its checkpoint
    refinements.fail = lambda plan: None
    assert len(refine_run(run, run.trials[1:2], fields={})) == 1


def test_refine_run_replaces_the_result_of_another_recipe(
    run: RunRecord, refinements: Refinements
) -> None:
    refine_run(run, run.trials[1:3], fields={})
    for changes in ({"fields": {"epochs": 9.0}}, {"patience": 3}, {"minutes": 1.0}, {"seed": 1}):
        refine_run(run, run.trials[1:2], **{"fields": {}, **changes})
    assert len(refinements.calls) == 6
    assert [entry["trial"] for entry in results_of(run)] == [2, 1]
    assert len(refined_trials(run.folder, run.trials)) == 2


def test_refine_run_that_fails_leaves_an_earlier_result(
    run: RunRecord, refinements: Refinements
) -> None:
    (before,) = refine_run(run, run.trials[1:2], fields={})

    def fail(plan: CompressionPlan) -> None:
        raise TrialError("nonfinite_loss", "The loss is NaN.")

    refinements.fail = fail
    for _ in range(2):
        assert refine_run(run, run.trials[1:2], fields={"learning_rate": 99.0}) == ()
    assert refined_trials(run.folder, run.trials) == (before,)
    assert len(results_of(run)) == 2
    assert refine_run(run, run.trials[1:2], fields={}) == (before,)
    assert len(refinements.calls) == 2


def test_refine_run_gives_each_trial_a_seed_of_its_own(
    run: RunRecord, refinements: Refinements
) -> None:
    refine_run(run, run.trials[1:], fields={}, seed=0)
    refine_run(run, run.trials[1:], fields={}, seed=1)
    assert len({call["seed"] for call in refinements.calls}) == 6


def test_refine_run_is_done_by_one_process_at_a_time(
    run: RunRecord, refinements: Refinements
) -> None:
    with (
        filelock.FileLock(run.folder / ".refinements.lock"),
        pytest.raises(RunLockedError, match="refined by another process"),
    ):
        refine_run(run, run.trials[1:2], fields={})
    assert refinements.calls == []
    assert len(refine_run(run, run.trials[1:2], fields={})) == 1


def test_refine_run_learns_from_the_teacher_that_is_named(
    run: RunRecord, refinements: Refinements, evaluator: Evaluator
) -> None:
    teacher = nn.Linear(6, 3)
    refine_run(run, run.trials[1:2], fields={}, teacher=teacher)
    used = refinements.calls[0]["evaluator"]
    assert used.prepared.teachers == (teacher,)
    assert used.settings == evaluator.settings
    assert refinements.calls[0]["refinement"].recipe.features == "none"  # those of the base model
    refine_run(run, run.trials[1:2], fields={})
    assert len(refinements.calls) == 2
    with torch.no_grad():
        teacher.bias.add_(1.0)
    refine_run(run, run.trials[1:2], fields={}, teacher=teacher)
    assert len(refinements.calls) == 3


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"teacher": nn.Linear(6, 4)}, r"must return outputs of the model's shape \(2, 3\)"),
        ({"teacher": nn.Linear(7, 3)}, "must run on a batch of the training data"),
        (
            {"teacher": nn.Linear(6, 3), "fields": {"features": "similarity"}},
            "the task names another teacher",
        ),
        ({"fields": {"prune_steps": 3}}, "`prune_steps` says how a candidate is built"),
        ({"fields": {"penalty": "l0"}}, "`penalty` says how a candidate is built"),
        ({"patience": 0}, "`patience` must be at least 1 epoch, but got 0"),
    ],
)
def test_refine_run_refuses_what_it_cannot_do_before_any_training(
    run: RunRecord, refinements: Refinements, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        refine_run(run, run.trials[1:2], **{"fields": {}, **how})
    assert refinements.calls == []
    assert results_of(run) == []


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"format": 7}',
        '{"format": 1, "results": [{"key": "a"}]}',
        '{"format": 1, "results": [{"key": "a", "trial": 1, "plan_digest": "d", "recipe": {}, '
        '"seed": 0, "epochs": [], "measurement": {"accuracy": 1}, "reason": null}]}',
        '{"format": 1, "results": [{"key": "a", "trial": [1], "plan_digest": "d", "recipe": {}, '
        '"seed": 0, "epochs": [], "measurement": 7, "reason": null}]}',
    ],
)
def test_damaged_refinements_are_refused_in_one_line(
    run: RunRecord, refinements: Refinements, content: str
) -> None:
    (run.folder / "refinements.json").write_text(content)
    with pytest.raises(
        InputError, match=r"refinements\.json cannot be read: .*delete it"
    ) as caught:
        refined_trials(run.folder, run.trials)
    assert "\n" not in caught.value.message
    assert (run.folder / "refinements.json").read_text() == content


def test_refined_trials_are_those_of_the_same_plan(
    run: RunRecord, refinements: Refinements
) -> None:
    refine_run(run, run.trials[1:3], fields={})
    other = dataclasses.replace(run.trials[1], plan=PLANS[3])  # a new study in the same folder
    found = refined_trials(run.folder, (run.trials[0], other, run.trials[2]))
    assert [t.number for t in found] == [2]


def _regained(point: TrialRecord, base: TrialRecord) -> float:
    assert point.measurement is not None
    assert base.measurement is not None
    return (point.measurement.accuracy + base.measurement.accuracy) / 2


def volume(points: list[TrialRecord], base: TrialRecord) -> float:
    """Mean halvings of the size over losses of accuracy up to 4 points, in equal steps of log.

    Half of each loss is expected to come back.
    """
    assert base.measurement is not None
    steps = [(i + 0.5) / 2000 for i in range(2000)]
    grid = [base.measurement.accuracy - 0.0025 * (17.0**step - 1.0) for step in steps]
    total = 0.0
    for accuracy in grid:
        sizes = [
            p.measurement.size_bytes
            for p in points
            if p.measurement is not None and _regained(p, base) >= accuracy
        ]
        total += math.log2(base.measurement.size_bytes / min([*sizes, base.measurement.size_bytes]))
    return total / len(grid)


@pytest.mark.parametrize("seed", range(5))
def test_choose_trials_takes_greedily_what_dominates_most(tmp_path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    losses, sizes = (0.035 * torch.rand(9)).sort().values, (900 * torch.rand(9)).sort().values
    plan = PLANS[1]
    base = trial(0, 0.9, 1000, PLANS[0])
    points = [
        trial(n, 0.9 - loss, 30 + int(size), plan)
        for n, (loss, size) in enumerate(
            zip(losses.tolist(), sizes.flip(0).tolist(), strict=True), start=1
        )
    ]
    run = record(tmp_path, base, *points)
    expected: list[TrialRecord] = []
    for top in (1, 2, 3):
        left = [t for t in run.front() if t not in expected and t.number]
        expected.append(max(left, key=lambda t: volume([*expected, t], base)))
        chosen = choose_trials(run, numbers=(), top=top)
        assert [t.number for t in chosen] == sorted(t.number for t in expected)


def test_choose_trials_takes_named_ones_first_and_nothing_twice(run: RunRecord) -> None:
    def numbers(*named: int, top: int = 0) -> list[int]:
        return [t.number for t in choose_trials(run, numbers=named, top=top)]

    assert numbers(3, 1, 3) == [3, 1]
    assert numbers(3, top=9) == [3, 1, 2]
    assert numbers(top=9) == [1, 2, 3]


def test_choose_trials_refuses_what_cannot_be_refined(run: RunRecord) -> None:
    failed = dataclasses.replace(run.trials[2], measurement=None, state="failed")
    untouched = dataclasses.replace(run.trials[3], plan=CompressionPlan())
    broken = dataclasses.replace(run, trials=(*run.trials[:2], failed, untouched))
    for number, message in (
        (4, r"`trial` must be in \[0, 3\] for run 'demo', but got 4\."),
        (-1, "but got -1"),
        (0, "Trial 0 of 'demo' cannot be refined: it is the original model."),
        (2, "Trial 2 of 'demo' cannot be refined: it is failed."),
        (3, "Trial 3 of 'demo' cannot be refined: it is the original model."),
    ):
        with pytest.raises(InputError, match=message):
            choose_trials(broken, numbers=(number,), top=0)
    alone = dataclasses.replace(run, trials=run.trials[:1])
    with pytest.raises(NoPointError, match="No compressed point of 'demo' is on the front"):
        choose_trials(alone, numbers=(), top=1)
