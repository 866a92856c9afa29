"""Outputs of every kind are judged by what they are: no per cent of nonsense."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from autocompress.cli.main import cli
from autocompress.errors import InputError
from autocompress.export import quantize_process
from autocompress.export.judgement import Judge, judge_of
from autocompress.export.post_training import quantize_file
from autocompress.onnx_graph.session import make_session

RANDOM = np.random.default_rng(0)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


MAP = RANDOM.normal(size=(6, 4, 5, 5)).astype(np.float32)
VECTORS = RANDOM.normal(size=(20, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("outputs", "kind", "axis"),
    [
        (VECTORS, "classes", 1),
        (softmax(MAP, 1), "classes", 1),
        (softmax(MAP, 3), "classes", 3),
        (MAP, "values", 1),
        (RANDOM.normal(size=(6, 30, 4)), "values", 2),
        (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True), "cosine", 1),
        (RANDOM.uniform(size=(20, 1)), "threshold", 0),
        (RANDOM.normal(size=(20, 1)), "values", 0),
        (RANDOM.normal(size=20), "values", 0),
        (np.arange(20), "equal", 1),
    ],
)
def test_an_output_is_taken_for_what_it_looks_like(
    outputs: np.ndarray, kind: str, axis: int
) -> None:
    assert judge_of("y", outputs) == Judge(kind=kind, axis=axis)


def test_what_is_asked_for_counts_and_nonsense_is_refused() -> None:
    assert judge_of("y", VECTORS, "values") == Judge(kind="values", axis=1)
    assert judge_of("y", MAP, "classes") == Judge(kind="classes", axis=1)
    with pytest.raises(InputError, match=r"`judge` must be one of .*, but got 'colour' for y"):
        judge_of("y", VECTORS, "colour")
    with pytest.raises(InputError, match="two values at least, but y has shape"):
        judge_of("y", RANDOM.normal(size=20), "classes")


def test_classes_are_told_at_each_place() -> None:
    """One flattened argmax said 100 % of a segmentation that had lost every other place."""
    other = MAP.copy()
    other[:, :, 0] = -other[:, :, 0]
    share = Judge(kind="classes").agreement(MAP, other)
    assert 0.8 <= share < 0.9
    masked = np.where(MAP < -1, -np.inf, MAP)
    assert Judge(kind="classes").agreement(masked, masked) == 1.0


def test_values_are_held_against_the_spread_of_their_own_column() -> None:
    """A box's width in pixels and its score in [0, 1] stand side by side."""
    boxes = np.stack([RANDOM.normal(size=(50, 9)) * 100, RANDOM.uniform(size=(50, 9))], axis=2)
    judge = judge_of("boxes", boxes)
    assert judge.agreement(boxes, boxes + 0.001) == 1.0
    off = boxes.copy()
    off[..., 1] += 0.2
    assert judge.agreement(boxes, off) == 0.5
    constant = np.ones((10, 3))
    assert Judge(kind="values").agreement(constant, constant) == 1.0


def test_embeddings_are_held_by_their_direction() -> None:
    judge = Judge(kind="cosine")
    assert judge.agreement(VECTORS, 2 * VECTORS) == 1.0
    assert judge.agreement(VECTORS, np.roll(VECTORS, 1, axis=0)) == 0.0


class Detector(nn.Module):
    """Two heads: the first is easy, the second is what gets lost."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 64), nn.ReLU())
        self.scores, self.boxes = nn.Linear(64, 4), nn.Linear(64, 12)
        with torch.no_grad():
            self.boxes.weight[:, ::2] *= 40.0  # a scale per channel is too coarse for the rest

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        return self.scores(hidden), self.boxes(hidden).reshape(-1, 3, 4)


@pytest.fixture
def detector(tmp_path: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["scores", "boxes"]}
    axes = {name: {0: "batch"} for name in ("x", "scores", "boxes")}
    net, path = Detector().eval(), tmp_path / "net.onnx"
    torch.onnx.export(
        net, (torch.randn(2, 16),), str(path), dynamo=False, dynamic_axes=axes, **names
    )
    np.savez(tmp_path / "data.npz", x=torch.randn(60, 16).numpy())
    return path, tmp_path / "data.npz"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_every_output_is_judged_and_the_worst_counts(
    detector: tuple[Path, Path], tmp_path: Path
) -> None:
    found = quantize_file(*detector, tmp_path / "out", bits=4, least_agreement=0.5)
    assert found.judges == {"scores": "classes", "boxes": "values"}
    loose = quantize_file(
        *detector, tmp_path / "o", bits=4, least_agreement=0.5, judges={"boxes": "cosine"}
    )
    assert loose.judges["boxes"] == "cosine"
    weights = [next(m for m in made.forms if m.form == "weights") for made in (found, loose)]
    assert weights[0].agreement < weights[1].agreement
    with pytest.raises(InputError, match="`judge` must name an output, but got 'z'"):
        quantize_file(*detector, tmp_path / "out", judges={"z": "classes"})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("by", ["size", "download"])
def test_the_smallest_form_can_be_asked_for(
    detector: tuple[Path, Path], tmp_path: Path, by: str
) -> None:
    path, data = detector
    options = ["--data", str(data), "--by", by, "--min-agreement", "50%", "--json"]
    options += ["--judge", "boxes=values", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, ["quantize", str(path), *options])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    field = "onnx_bytes" if by == "size" else "download_bytes"
    made = [form for form in found["forms"] if field in form]
    chosen = next(form for form in made if form["chosen"])
    assert chosen[field] == min(form[field] for form in made if form["agreement"] >= 0.5)
    assert found["judged"] == {"scores": "classes", "boxes": "values"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_file_that_is_hardly_smaller_is_warned_of(
    detector: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = quantize_file(*detector, tmp_path / "o", least_agreement=0.5, by="size").to_json()
    monkeypatch.setattr(quantize_process, "quantize_apart", lambda *_, **__: made)
    arguments = ["quantize", str(detector[0]), "--data", str(detector[1])]
    assert "hardly smaller" not in CliRunner().invoke(cli, arguments).stderr
    made["onnx_bytes"] = made["original_bytes"]
    said = CliRunner().invoke(cli, arguments).stderr
    assert "Warning: model.onnx is hardly smaller than net.onnx. Another form is smaller" in said


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_labels_tell_the_true_accuracy_of_each_form(
    detector: tuple[Path, Path], tmp_path: Path
) -> None:
    x = np.load(detector[1])["x"]
    scores, boxes = make_session(detector[0], 1).run(None, {"x": x})
    labels = scores.argmax(1)
    labels[:15] = (labels[:15] + 1) % 4  # a quarter is wrong
    labels[-1] = -100  # nobody knows
    np.save(tmp_path / "labels.npy", labels)
    options = {"labels": str(tmp_path / "labels.npy"), "least_agreement": 0.1}
    found = quantize_file(*detector, tmp_path / "out", bits=8, **options)
    assert found.original_accuracy == pytest.approx(44 / 59)
    shipped = make_session(tmp_path / "out" / "model.onnx", 1).run(["scores"], {"x": x})[0]
    own = (shipped.argmax(1) == labels)[labels >= 0].mean()
    assert found.chosen.accuracy == pytest.approx(own)
    assert found.chosen.to_json(1, is_chosen=True)["accuracy"] == found.chosen.accuracy

    (tmp_path / "m.py").write_text(
        "def widths(outputs, labels):\n    return abs(outputs['boxes'] - labels).mean()\n"
        "def broken(outputs, labels):\n    return outputs['nothing']\n"
    )
    np.save(tmp_path / "boxes.npy", boxes)
    options = {"labels": str(tmp_path / "boxes.npy"), "least_agreement": 0.1}
    by_metric = quantize_file(
        *detector, tmp_path / "out", metric=f"{tmp_path / 'm.py'}:widths", **options
    )
    assert by_metric.original_accuracy == 0.0
    assert by_metric.chosen.accuracy is not None
    for wrong, words in (
        ({"metric": f"{tmp_path / 'm.py'}:broken", **options}, "must return a number, but raised"),
        ({"metric": f"{tmp_path / 'm.py'}:none", **options}, "must define the function 'none'"),
        (options, r"must hold integers of shape \(60,\), but holds float32"),
        ({"labels": str(detector[1])}, "of one array, but holds several"),
        ({"labels": str(detector[0])}, "must be a .npy file of labels"),
        ({"metric": "m.py:widths"}, "`metric` needs `labels`"),
    ):
        with pytest.raises(InputError, match=words):
            quantize_file(*detector, tmp_path / "out", **wrong)
