import dataclasses
import functools
import os
import re
import runpy
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from autocompress.errors import InputError
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.plan import CompressionPlan
from autocompress.search.session import open_session
from autocompress.tasks.base import top1
from autocompress.tasks.base_training import TrainingRecipe
from autocompress.tasks.factory import load_task
from autocompress.tasks.leakage import val_looks_seen
from autocompress.tasks.prepare import prepare_task

_EXAMPLES = Path(__file__).parents[2] / "examples"
_RESNET = str(_EXAMPLES / "02_cifar10_resnet20.py")


@pytest.fixture
def resnet_classes():
    """What example 02 defines, without its weights."""
    return runpy.run_path(_RESNET)


@pytest.fixture
def fake_data(tmp_path, resnet_classes):
    """A folder like the real one: 100 + 60 CIFAR-10 images, and random weights."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, n in [(f"data_batch_{i}", 20) for i in range(1, 6)] + [("test_batch", 60)]:
        labels = np.arange(n, dtype=np.uint8)[:, None] % 10
        images = generator.integers(0, 256, (n, 3072), dtype=np.uint8)
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels, images], axis=1).tobytes())
    (tmp_path / "models").mkdir()
    save_file(
        resnet_classes["ResNet"](20).state_dict(),
        tmp_path / "models" / "cifar10_resnet20.safetensors",
    )
    return tmp_path


@pytest.fixture
def real_data():
    folder = os.environ.get("AUTOCOMPRESS_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set AUTOCOMPRESS_DATA to a folder that holds CIFAR-10 and trained weights")
    return folder


@pytest.mark.parametrize("path", sorted(_EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_begins_with_its_own_command_line(path):
    header = path.read_text().split('"""')[1]

    commands = re.findall(r"^    autocompress search (\S+)", header, flags=re.MULTILINE)
    assert commands == [f"examples/{path.name}"]


def test_example_01_is_the_digits_task(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path))
    short = functools.partial(TrainingRecipe, n_epochs=1)
    monkeypatch.setattr("autocompress.tasks.digits.TrainingRecipe", short)

    spelled_out = load_task(str(_EXAMPLES / "01_digits.py"), {})
    embedded = load_task("digits", {})

    for field in ("name", "batch_size", "learning_rate", "proxy_epochs", "distill"):
        assert getattr(spelled_out, field) == getattr(embedded, field)
    assert repr(spelled_out.augment) == repr(embedded.augment)
    for split in ("train", "val", "test"):
        mine, theirs = getattr(spelled_out, split), getattr(embedded, split)
        assert mine.fingerprint() == theirs.fingerprint()
    for a, b in zip(spelled_out.model.parameters(), embedded.model.parameters(), strict=True):
        assert torch.equal(a, b)
    prepare_task(spelled_out)


def test_example_02_splits_the_test_images_in_balanced_halves(fake_data):
    task = load_task(_RESNET, {"data": str(fake_data)})

    prepared = prepare_task(task)
    assert (len(prepared.train), len(prepared.val), len(prepared.test)) == (100, 30, 30)
    assert prepared.val.targets.bincount().tolist() == [3] * 10
    assert prepared.test.targets.bincount().tolist() == [3] * 10
    halves = [{i.numpy().tobytes() for i in s.inputs[0]} for s in (prepared.val, prepared.test)]
    assert len(halves[0] | halves[1]) == 60
    assert not prepared.is_val_carved


def test_example_02_has_the_papers_sizes(resnet_classes):
    resnet = resnet_classes["ResNet"]

    # He et al. 2016, table 6: 0.27 M and 0.85 M parameters.
    assert sum(p.numel() for p in resnet(20).parameters()) == 269_722
    assert sum(p.numel() for p in resnet(56).parameters()) == 853_018


def test_example_02_shortcut_pads_channels_and_takes_every_second_pixel(resnet_classes):
    block = resnet_classes["Block"](4, 8, 2).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 4, 6, 6)

    y = block(x)

    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, :2].any()
    assert not y[:, 6:].any()


def test_example_02_exports_to_onnx_with_a_free_batch(fake_data, tmp_path):
    model = load_task(_RESNET, {"data": str(fake_data)}).model
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        # This exporter and parts it calls are deprecated; what replaces it takes seconds.
        warnings.simplefilter("ignore", DeprecationWarning)
        # It says that slices with a step stay in the graph, which is what they should do.
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        torch.onnx.export(
            model,
            (torch.rand(2, 3, 32, 32),),
            str(path),
            dynamo=False,
            input_names=["images"],
            dynamic_axes={"images": {0: "n"}},
        )
    images = torch.rand(5, 3, 32, 32)

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})

    with torch.no_grad():
        np.testing.assert_allclose(logits, model(images).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs the argument 'data'"),
        ({"depth": "19"}, r"must be 6n \+ 2 .* got 19"),
        ({"depth": "56"}, r"cifar10_resnet56\.safetensors does not"),
        ({"weights": "no.safetensors"}, r"no\.safetensors does not"),
    ],
)
def test_example_02_says_what_is_missing(fake_data, arguments, message):
    data = {"data": str(fake_data)} if arguments else {}

    with pytest.raises(InputError, match=message):
        load_task(_RESNET, {**data, **arguments})


def test_example_02_refuses_weights_of_another_depth(fake_data):
    weights = fake_data / "models" / "cifar10_resnet20.safetensors"
    arguments = {"data": str(fake_data), "weights": str(weights), "depth": "32"}

    with pytest.raises(InputError, match="must hold the weights of a CIFAR-10 ResNet-32"):
        load_task(_RESNET, arguments)


def test_example_03_learns_in_a_moment_and_leaves_val_unseen():
    torch.manual_seed(1)
    task = load_task(str(_EXAMPLES / "03_your_own_model.py"), {})

    prepared = prepare_task(task)
    inputs, targets = prepared.val.batch(slice(None))
    with torch.no_grad():
        assert top1(task.model(*inputs), targets) >= 0.9
    assert val_looks_seen(prepared) is None


@pytest.mark.realdata
@pytest.mark.slow
def test_example_02_scores_what_was_published_and_its_val_is_unseen(real_data):
    prepared = prepare_task(load_task(_RESNET, {"data": real_data}))
    n_right = 0.0
    with torch.no_grad():
        for split in (prepared.val, prepared.test):
            for start in range(0, len(split), 500):
                inputs, targets = split.batch(slice(start, start + 500))
                n_right += top1(prepared.task.model(*inputs), targets) * len(targets)

    assert n_right / 10_000 == pytest.approx(0.9173, abs=5e-4)
    assert val_looks_seen(prepared) is None


@pytest.mark.realdata
@pytest.mark.slow
def test_example_02_would_be_warned_of_a_carved_val(real_data):
    task = load_task(_RESNET, {"data": real_data})

    warning = val_looks_seen(prepare_task(dataclasses.replace(task, val=None)))

    assert "carved from the training data" in warning


def test_example_08_finds_tickets(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path))
    task = load_task(str(_EXAMPLES / "08_lottery_ticket.py"), {})
    session = open_session(
        task, "lottery_ticket", EvaluationSettings(threads=1, has_latency=False, proxy_epochs=3)
    )
    space = session.built.space
    plan = space.decode({knob.name: 1 for knob in space.knobs})
    baseline = session.evaluator.evaluate(CompressionPlan(), seed=0)
    ticket = session.evaluator.evaluate(plan, seed=0)

    assert baseline.accuracy > 0.9
    assert ticket.accuracy > 0.5  # it starts from weights of step 20, and trains briefly
    assert ticket.size_bytes < 0.6 * baseline.size_bytes
    assert "teacher_0" in session.identity(run_seed=0, sampler="tpe")["data"]


@pytest.fixture
def fake_sentences(tmp_path):
    """SST-2 in miniature: a sentence is positive if it says so."""
    folder = tmp_path / "text" / "sst2"
    folder.mkdir(parents=True)
    words = ["a", "film", "that", "is", "long", "and", "slow", "or", "short"]
    generator = np.random.default_rng(0)
    for name, n in (("train", 3000), ("dev", 80)):
        rows = ["label\tsentence"]
        for _ in range(n):
            label = int(generator.integers(2))
            said = [*generator.choice(words, 5), "good" if label else "bad"]
            rows.append(f"{label}\t{' '.join(generator.permutation(said))}")
        (folder / f"{name}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def test_example_04_learns_and_can_be_made_integer(fake_sentences, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    task = load_task(
        str(_EXAMPLES / "04_bert_text.py"), {"data": str(fake_sentences), "quick": "true"}
    )
    session = open_session(task, "transformer", EvaluationSettings(threads=1, integer="auto"))
    evaluator = session.evaluator
    assert evaluator.settings.integer in ("static", "dynamic")  # whichever was faster here
    space = session.built.space
    kinds = {knob.kind for knob in space.knobs}
    assert {"drop_block", "pruning_ratio", "weight_bits", "activation_bits"} <= kinds
    eight_bits = {
        knob.name: 1 if knob.kind in ("weight_bits", "activation_bits") else 0
        for knob in space.knobs
    }
    baseline = evaluator.evaluate(CompressionPlan(), seed=0)
    integer = evaluator.evaluate(space.decode(eight_bits), seed=0, fidelity=0)
    assert integer.size_bytes < 0.4 * baseline.size_bytes
    assert integer.accuracy >= baseline.accuracy - 0.1


def test_example_04_names_the_file_it_misses(tmp_path):
    with pytest.raises(InputError, match=r"train\.tsv"):
        load_task(str(_EXAMPLES / "04_bert_text.py"), {"data": str(tmp_path)})
