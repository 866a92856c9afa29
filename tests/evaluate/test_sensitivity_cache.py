"""Figures on disk: found again, damaged ones skipped, and no file is no error."""

import json
import logging
from pathlib import Path

import pytest

from autocompress.errors import TrialError
from autocompress.evaluate.sensitivity import SensitivityCache
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.space.sensitivity_table import Figures

PLAN = CompressionPlan(layers={"fc": LayerPlan(weight_bits=4)})
IDLE = CompressionPlan(layers={"fc": LayerPlan(weight_bits=4), "conv": LayerPlan(quantizer="x")})
FIGURES = Figures(divergence=0.25, size_bytes=100, layer_bytes={"fc": 60}, latency_ratio=0.5)


def never(plan: CompressionPlan) -> Figures:
    raise AssertionError(plan)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a" / "options.jsonl"


def test_option_cache_finds_again_what_another_process_kept(path: Path) -> None:
    SensitivityCache("k", path).put(PLAN.digest, FIGURES, 1.5)
    known = SensitivityCache("k", path).get(PLAN.digest)

    assert known is not None
    assert known.figures == FIGURES
    assert known.seconds == 1.5
    assert SensitivityCache("other", path).get(PLAN.digest) is None
    assert SensitivityCache("k", path).get("other") is None


def test_option_cache_lies_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "mine"))
    SensitivityCache("k").put("d", FIGURES, 1.0)
    assert SensitivityCache("k").path == tmp_path / "mine" / "options.jsonl"
    assert SensitivityCache("k").path.is_file()


def test_option_cache_measures_a_plan_once(path: Path) -> None:
    cache = SensitivityCache("k", path)
    first = cache.probed(PLAN, lambda plan: FIGURES)

    assert first.figures == FIGURES
    assert first.seconds >= 0.0
    assert cache.probed(PLAN, never) == first
    assert cache.probed(IDLE, never) == first  # what it says besides changes nothing
    assert SensitivityCache("k", path).probed(PLAN, never) == first


def test_option_cache_does_not_keep_failures(path: Path) -> None:
    def fail(plan: CompressionPlan) -> Figures:
        raise TrialError("timeout", "It took too long.")

    cache = SensitivityCache("k", path)
    with pytest.raises(TrialError):
        cache.probed(PLAN, fail)
    assert cache.probed(PLAN, lambda plan: FIGURES).figures == FIGURES


def test_option_cache_counts_the_first_of_two_entries(path: Path) -> None:
    one, two = SensitivityCache("k", path), SensitivityCache("k", path)
    one.put("d", FIGURES, 1.0)
    two.put("d", Figures(divergence=9.0), 2.0)
    known = SensitivityCache("k", path).get("d")
    assert known is not None
    assert known.seconds == 1.0
    assert one.put("d", Figures(divergence=9.0), 2.0) == known


@pytest.mark.parametrize(
    "damage",
    [
        b'{"key": "k", "plan": "torn", "seco',
        b'{"key": "k", "plan": "d"}',
        b'["k", "d"]',
        b"k \xff\xfe",
        b'{"key": "k", "plan": "d", "seconds": 1.0, "divergence": NaN}',
        b'{"key": "k", "plan": "d", "seconds": 1.0, "divergence": -1.0}',
        b'{"key": "k", "plan": "d", "seconds": 1.0, "divergence": "0.1"}',
        b'{"key": "k", "plan": "d", "seconds": 1.0, "divergence": 0.1, "size_bytes": Infinity}',
        b'{"key": "k", "plan": "d", "seconds": 1.0, "divergence": 0.1, "layer_bytes": [1]}',
        b'{"key": "k", "plan": "d", "seconds": 1.0, "divergence": 0.1, "more": 1}',
    ],
)
def test_option_cache_skips_damaged_lines(path: Path, damage: bytes) -> None:
    cache = SensitivityCache("k", path)
    cache.put("before", FIGURES, 1.0)
    with path.open("ab") as file:
        file.write(damage)  # and no line break: the writer died
    cache.put("after", FIGURES, 1.0)

    read = SensitivityCache("k", path)
    assert read.get("d") is None
    assert read.get("torn") is None
    assert [read.get(name) is not None for name in ("before", "after")] == [True, True]


def test_option_cache_without_a_file_lasts_as_long_as_the_object(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = SensitivityCache("k", tmp_path / "file" / "options.jsonl")
    with caplog.at_level(logging.WARNING):
        cache.put("d", FIGURES, 1.0)

    assert "cannot be written" in caplog.text
    assert cache.get("d") is not None


def test_option_cache_writes_lines_of_json(path: Path) -> None:
    SensitivityCache("k", path).put("d", FIGURES, 1.0)
    lines = [json.loads(line) for line in path.read_text().splitlines() if line]
    assert lines == [{"key": "k", "plan": "d", "seconds": 1.0, **FIGURES.to_json()}]
