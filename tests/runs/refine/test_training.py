"""Refining one plan: what comes out, and that a training that dies goes on where it was."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autocompress.errors import InputError
from autocompress.evaluate.deploy import deploy
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.packed_size import packed_bytes
from autocompress.evaluate.scoring import score
from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.runs.refine import training
from autocompress.runs.refine.training import Epoch, Refinement, best_of, refine

LOW_BITS = CompressionPlan(
    pruning_ratios={"conv1": 0.5},
    layers={
        "conv1": LayerPlan(weight_bits=4, activation_bits=8),
        "conv2": LayerPlan(weight_bits=2, activation_bits=8, sparsity=0.3),
        "fc": LayerPlan(weight_bits=3),
    },
)
FLOAT = CompressionPlan(pruning_ratios={"conv1": 0.5}, layers={"conv2": LayerPlan(rank_ratio=0.5)})
CODEBOOK = CompressionPlan(
    layers={"conv2": LayerPlan(weight_bits=2, quantizer="kmeans"), "fc": LayerPlan(weight_bits=1)}
)
N_EPOCHS = 4


class KilledError(Exception):
    """Stands for whatever ends a process."""


@dataclasses.dataclass
class Result:
    measured: Measurement
    epochs: tuple[Epoch, ...]
    weights: bytes

    @property
    def figures(self) -> tuple[Measurement, list[Epoch], bytes]:
        """Everything but the time it took."""
        epochs = [dataclasses.replace(epoch, seconds=0.0) for epoch in self.epochs]
        return dataclasses.replace(self.measured, seconds=0.0), epochs, self.weights


Refine = Callable[..., Result]


@pytest.fixture
def make(evaluator: Evaluator, tmp_path: Path) -> Refine:
    """Refine a plan; `changes` are those of the recipe and of the refinement."""

    def run(
        plan: CompressionPlan,
        on_epoch: Callable[[Epoch], None] = lambda epoch: None,
        on_stage: Callable[[str, float], None] = lambda stage, share: None,
        **changes: Any,
    ) -> Result:
        how = {k: changes.pop(k) for k in ("patience", "minutes", "is_progressive") if k in changes}
        recipe = dataclasses.replace(
            evaluator.recipe,
            **{"epochs": N_EPOCHS, "entropy_strength": 0.3, "features": "similarity", **changes},
        )
        measured, epochs = refine(
            evaluator,
            plan,
            Refinement(recipe=recipe, **how),
            seed=5,
            checkpoint=tmp_path / "a.checkpoint",
            keep=tmp_path / "kept" / "a.safetensors",
            on_epoch=on_epoch,
            on_stage=on_stage,
        )
        return Result(measured, epochs, (tmp_path / "kept" / "a.safetensors").read_bytes())

    return run


def kill_after(number: int) -> Callable[[Epoch], None]:
    def on_epoch(epoch: Epoch) -> None:
        if epoch.number == number:
            raise KilledError

    return on_epoch


def kill_at(stage: str, share: float) -> Callable[[str, float], None]:
    def on_stage(now: str, done: float) -> None:
        if (now, done >= share) == (stage, True):
            raise KilledError

    return on_stage


@pytest.mark.parametrize("plan", [LOW_BITS, FLOAT, CODEBOOK], ids=["low bits", "float", "codebook"])
def test_refine_killed_after_any_epoch_goes_on_bit_for_bit(
    make: Refine, plan: CompressionPlan, tmp_path: Path
) -> None:
    unbroken = make(plan)
    (tmp_path / "a.checkpoint").unlink()
    (tmp_path / "kept" / "a.safetensors").unlink()
    for number in range(1, N_EPOCHS + 1):
        with pytest.raises(KilledError):
            make(plan, kill_after(number))
        torch.rand(7)  # another process draws other numbers before
    assert not (tmp_path / "kept" / "a.safetensors").exists()
    numbers: list[int] = []
    resumed = make(plan, lambda epoch: numbers.append(epoch.number))
    assert numbers == []  # all epochs were there already
    assert resumed.figures == unbroken.figures


@pytest.mark.parametrize(("stage", "share"), [("tune", 0.5), ("refine", 0.6), ("export", 0.0)])
def test_refine_killed_within_a_stage_repeats_no_whole_epoch(
    make: Refine, stage: str, share: float, tmp_path: Path
) -> None:
    unbroken = make(LOW_BITS)
    (tmp_path / "a.checkpoint").unlink()
    with pytest.raises(KilledError):
        make(LOW_BITS, on_stage=kill_at(stage, share))
    numbers: list[int] = []
    assert make(LOW_BITS, lambda epoch: numbers.append(epoch.number)).figures == unbroken.figures
    assert numbers == {"tune": [1, 2, 3, 4], "refine": [3, 4], "export": []}[stage]


def test_refine_measures_what_it_kept(make: Refine, evaluator: Evaluator, tmp_path: Path) -> None:
    result = make(LOW_BITS)
    measured, epochs = result.measured, result.epochs
    assert measured.fidelity == 2
    assert measured.accuracy > 0.9
    assert measured.train_images_per_s is None
    assert measured.seconds >= epochs[-1].seconds > epochs[0].seconds > 0.0
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
    assert {epoch.n_epochs for epoch in epochs} == {N_EPOCHS}
    assert [epoch.is_final for epoch in epochs] == [False, False, False, True]

    model = evaluator.rebuild(LOW_BITS, tmp_path / "kept" / "a.safetensors")
    val = evaluator.prepared.val
    with torch.no_grad():
        accuracy, loss = score(
            evaluator.prepared.task, model(*val.batch(slice(None))[0]), val.targets
        )
    assert measured.accuracy == accuracy
    assert measured.loss == pytest.approx(loss, rel=1e-5)
    assert (
        measured.size_bytes
        == packed_bytes(deploy(model, evaluator.prepared).graph, LOW_BITS, {})[0]
    )
    bits = {name: module.bits for name, module in model.named_modules() if hasattr(module, "bits")}
    assert sorted(bits.values()) == [2, 3, 4]


def test_refine_takes_the_best_of_the_epochs_with_the_plans_own_grids(make: Refine) -> None:
    result = make(LOW_BITS, entropy_strength=0.0, epochs=8)
    # two of eight epochs have finer grids
    assert [epoch.is_final for epoch in result.epochs] == [False] * 2 + [True] * 6
    best = best_of(list(result.epochs))
    assert best is not None
    assert result.measured.accuracy >= best.accuracy  # statistics are re-estimated if that helps


@pytest.mark.parametrize("changes", [{"epochs": 1}, {"epochs": 0.5}, {"minutes": 1e-6}])
def test_refine_of_one_epoch_has_the_plans_own_grids(
    make: Refine, evaluator: Evaluator, tmp_path: Path, changes: dict[str, float]
) -> None:
    result = make(LOW_BITS, **changes)
    (epoch,) = result.epochs
    assert epoch.is_final
    model = evaluator.rebuild(LOW_BITS, tmp_path / "kept" / "a.safetensors")
    val = evaluator.prepared.val
    with torch.no_grad():
        outputs = model(*val.batch(slice(None))[0])
    accuracy, _ = score(evaluator.prepared.task, outputs, val.targets)
    assert result.measured.accuracy == accuracy > 0.8


def test_refine_takes_a_last_epoch_that_is_not_whole(make: Refine, tmp_path: Path) -> None:
    unbroken = make(LOW_BITS, epochs=1.5)
    assert [epoch.n_epochs for epoch in unbroken.epochs] == [2, 2]
    (tmp_path / "a.checkpoint").unlink()
    for number in (1, 2):
        with pytest.raises(KilledError):
            make(LOW_BITS, kill_after(number), epochs=1.5)
    assert make(LOW_BITS, epochs=1.5).figures == unbroken.figures


def test_refine_without_a_ladder_trains_the_plans_grids_from_the_start(make: Refine) -> None:
    steep = make(LOW_BITS, is_progressive=False, entropy_strength=0.0)
    assert all(epoch.is_final for epoch in steep.epochs)
    assert steep.figures != make(LOW_BITS, entropy_strength=0.0).figures


def test_refine_of_a_plan_without_grids_has_no_bits(make: Refine) -> None:
    result = make(FLOAT)
    assert {epoch.est_code_bits for epoch in result.epochs} == {None}
    assert result.measured.accuracy > 0.9


def test_refine_ends_early_when_nothing_gets_better(make: Refine) -> None:
    result = make(FLOAT, epochs=60, patience=1, entropy_strength=0.0)
    best = best_of(list(result.epochs))
    assert best is not None
    assert len(result.epochs) < 60
    assert result.epochs[-1].number - best.number == 1


def test_refine_takes_its_epochs_from_the_time(
    make: Refine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training._Run, "_epoch_seconds", lambda run: 1000.0)
    with pytest.raises(KilledError):
        make(LOW_BITS, kill_after(1), minutes=3500.0 / 60.0)
    monkeypatch.setattr(training._Run, "_epoch_seconds", None)  # is known from the checkpoint
    result = make(LOW_BITS, minutes=3500.0 / 60.0)
    assert [epoch.n_epochs for epoch in result.epochs] == [4, 4, 4, 4]  # the last one is half


def test_the_time_of_an_epoch_is_measured_with_the_recipe_itself(
    make: Refine, evaluator: Evaluator
) -> None:
    """It fills the time, whether or not the candidate was tuned before."""
    plan = CompressionPlan(layers={"fc": LayerPlan(weight_bits=8, rate_price=0.01)})
    result = make(plan, minutes=4.0 / 60.0, patience=10_000)
    assert result.epochs[-1].seconds > 1.0
    assert result.epochs[0].n_epochs > 1


def test_refine_with_a_price_on_entropy_gives_smaller_files(make: Refine, tmp_path: Path) -> None:
    plan = CompressionPlan(layers={n: LayerPlan(weight_bits=4) for n in ("conv1", "conv2", "fc")})
    results = []
    for strength in (0.0, 20.0):
        results.append(make(plan, epochs=16, entropy_strength=strength))
        (tmp_path / "a.checkpoint").unlink()
    free, priced = results
    assert free.epochs[0].est_code_bits == priced.epochs[0].est_code_bits
    assert priced.epochs[-1].est_code_bits < 0.8 * free.epochs[-1].est_code_bits
    assert priced.measured.size_bytes < 0.95 * free.measured.size_bytes


def test_refine_says_that_a_checkpoint_is_damaged(make: Refine, tmp_path: Path) -> None:
    (tmp_path / "a.checkpoint").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a\.checkpoint cannot be read: .* Delete it"):
        make(LOW_BITS)
    assert (tmp_path / "a.checkpoint").read_bytes() == b"nothing"


def test_refine_loses_nothing_where_its_weights_cannot_be_written(
    make: Refine, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("in the way")
    with pytest.raises(InputError, match="must be writable"):
        make(LOW_BITS)
    (tmp_path / "kept").unlink()
    numbers: list[int] = []
    assert make(LOW_BITS, lambda epoch: numbers.append(epoch.number)).measured.fidelity == 2
    assert numbers == []
