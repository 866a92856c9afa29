"""The table is measured once, goes on where it was, and says what failed."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocompress.errors import TrialError
from autocompress.evaluate.sensitivity import (
    SensitivityCache,
    TablePlans,
    measure_levels,
    options_key,
)
from autocompress.plan import CompressionPlan
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.space.sensitivity_table import Figures, SensitivityTable

SPACE = SearchSpace(
    knobs=(
        Knob(kind="weight_bits", targets=("a",), levels=(32, 8, 4), label="a"),
        Knob(kind="weight_bits", targets=("b",), levels=(32, 8), label="b"),
        Knob(kind="pruning_ratio", targets=("a",), levels=(0.0, 0.5), label="a"),
        Knob(kind="activation_bits", targets=("a", "b"), levels=(32, 8), label="all"),
        Knob(kind="quantizer", targets=("a",), levels=("uniform", "kmeans"), label="a"),
    )
)
# untouched, the levels, and both weights at 8 bits; the 8-bit activations of that. The quantizer is
# probed where weights of `a` have 8 bits, which is a level already, and so is not counted.
N_PLANS = 1 + 2 + 1 + 1 + 1 + 1 + 1


def figures_of(plan: CompressionPlan) -> Figures:
    """Figures that tell plans apart."""
    return Figures(divergence=int(plan.effective.digest, 16) / 16**12, size_bytes=1)


class Counting:
    def __init__(self, fails: Callable[[CompressionPlan], bool] = lambda plan: False) -> None:
        self.plans: list[CompressionPlan] = []
        self._fails = fails

    def __call__(self, plan: CompressionPlan) -> Figures:
        self.plans.append(plan)
        if self._fails(plan):
            raise TrialError("does_not_run", "It broke.")
        return figures_of(plan)


@pytest.fixture
def cache(tmp_path: Path) -> SensitivityCache:
    return SensitivityCache("k", tmp_path / "options.jsonl")


def without_seconds(table: SensitivityTable) -> SensitivityTable:
    return dataclasses.replace(table, seconds=0.0, seconds_here=None)


def test_measure_options_looks_at_every_level_in_its_context_once(cache: SensitivityCache) -> None:
    probe = Counting()
    table = measure_levels(SPACE, probe, cache)
    alone = {knob.name: 0 for knob in SPACE.knobs}

    def at(**levels: int) -> Figures:
        named = {name.replace("__", ":"): level for name, level in levels.items()}
        return figures_of(SPACE.decode({**alone, **named}))

    assert len(probe.plans) == N_PLANS
    assert len({plan.effective for plan in probe.plans}) == N_PLANS
    assert table.baseline == at()
    assert dict(table.contexts) == {
        "activation_bits:all": at(weight_bits__a=1, weight_bits__b=1),
        "quantizer:a": at(weight_bits__a=1),
    }
    assert {(o.knob, o.level): o.figures for o in table.options} == {
        ("weight_bits:a", 1): at(weight_bits__a=1),
        ("weight_bits:a", 2): at(weight_bits__a=2),
        ("weight_bits:b", 1): at(weight_bits__b=1),
        ("pruning_ratio:a", 1): at(pruning_ratio__a=1),
        ("activation_bits:all", 1): at(weight_bits__a=1, weight_bits__b=1, activation_bits__all=1),
        ("quantizer:a", 1): at(weight_bits__a=1, quantizer__a=1),
    }
    assert all(option.reason is None for option in table.options)


def test_measure_options_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "options.jsonl"
    whole = measure_levels(SPACE, Counting(), SensitivityCache("k", tmp_path / "other.jsonl"))
    first = Counting()

    def killed(plan: CompressionPlan) -> Figures:
        if len(first.plans) == 3:
            raise KeyboardInterrupt
        return first(plan)

    with pytest.raises(KeyboardInterrupt):
        measure_levels(SPACE, killed, SensitivityCache("k", path))
    second, told = Counting(), []
    table = measure_levels(
        SPACE, second, SensitivityCache("k", path), on_progress=lambda *now: told.append(now)
    )

    assert len(first.plans) == 3
    assert len(second.plans) == N_PLANS - 3
    assert without_seconds(table) == without_seconds(whole)
    assert told[0] == (3, N_PLANS, "")
    assert [n for n, _, _ in told] == list(range(3, N_PLANS + 1))
    assert told[-1] == (N_PLANS, N_PLANS, "quantizer:a = kmeans")


def test_measure_options_counts_the_seconds_of_what_it_knew(tmp_path: Path) -> None:
    path = tmp_path / "options.jsonl"
    for digest, (_, plan) in TablePlans(SPACE).by_digest.items():
        SensitivityCache("k", path).put(digest, figures_of(plan), 2.0)

    table = measure_levels(SPACE, Counting(lambda plan: True), SensitivityCache("k", path))
    assert (table.seconds, table.seconds_here) == (2.0 * N_PLANS, 0.0)


def test_measure_options_says_why_an_option_failed(cache: SensitivityCache) -> None:
    probe = Counting(lambda plan: "a" in plan.pruning_ratios)
    table = measure_levels(SPACE, probe, cache)
    failed = [option for option in table.options if option.figures is None]

    assert [(o.knob, o.level, o.reason) for o in failed] == [
        ("pruning_ratio:a", 1, "does_not_run: It broke.")
    ]


def test_measure_options_gives_up_what_was_to_be_measured_in_a_context_that_failed(
    cache: SensitivityCache,
) -> None:
    def is_context(plan: CompressionPlan) -> bool:
        bits = [layer.weight_bits for layer in plan.layers.values()]
        return bits == [8, 8] and all(la.activation_bits == 32 for la in plan.layers.values())

    table = measure_levels(SPACE, Counting(is_context), cache)
    failed = [option for option in table.options if option.figures is None]

    assert list(table.contexts) == ["quantizer:a"]
    assert [(o.knob, o.reason) for o in failed] == [
        ("activation_bits:all", "what it works on failed: does_not_run: It broke.")
    ]


def test_measure_options_fails_where_the_untouched_model_does(cache: SensitivityCache) -> None:
    probe = Counting(lambda plan: True)
    with pytest.raises(TrialError, match=r"It broke\."):
        measure_levels(SPACE, probe, cache)
    assert len(probe.plans) == 1


KEY: dict[str, Any] = {
    "model": "m",
    "data": {"train": "t"},
    "policy": {"criterion": "l2"},
    "recipe": {"rounding": "nearest"},
    "has_size": True,
    "has_latency": True,
    "threads": 1,
    "runtime": {"threads": 1},
    "machine": {"processor": "p"},
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "other"),
        ("data", {"train": "other"}),
        ("policy", {"criterion": "l1"}),
        ("recipe", {"rounding": "compensated"}),
        ("has_size", False),
        ("has_latency", False),
        ("threads", 2),
        ("runtime", {"threads": 2}),
        ("machine", {"processor": "other"}),
    ],
)
def test_options_key_changes_with_everything_it_is_made_of(name: str, value: object) -> None:
    assert options_key(**KEY) == options_key(**KEY)
    assert options_key(**{**KEY, name: value}) != options_key(**KEY)


def test_options_key_forgets_the_runtimes_threads_where_nothing_is_timed() -> None:
    one, two = (
        options_key(**{**KEY, "has_latency": False, "runtime": {"threads": n}}) for n in (1, 2)
    )
    assert one == two


def test_options_key_changes_with_the_sources(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "autocompress"
    (package / "compress").mkdir(parents=True)
    (package / "compress" / "one.py").write_text("a = 1")
    monkeypatch.setattr(
        "autocompress.evaluate.sensitivity.__file__", str(package / "evaluate" / "sensitivity.py")
    )
    keys = [options_key(**KEY)]
    (package / "compress" / "one.py").write_text("a = 2")
    keys.append(options_key(**KEY))
    (package / "compress" / "one.py").rename(package / "compress" / "two.py")
    keys.append(options_key(**KEY))
    (package / "report").mkdir()
    (package / "report" / "page.py").write_text("changes no figure")

    assert len(set(keys)) == 3
    assert options_key(**KEY) == keys[-1]
