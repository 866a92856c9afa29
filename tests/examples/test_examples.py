import dataclasses
import functools
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
from autocompress.study.session import open_session
from autocompress.tasks.base import top1
from autocompress.tasks.digits import TrainingRecipe
from autocompress.tasks.factory import load_task
from autocompress.tasks.leakage import val_looks_seen
from autocompress.tasks.prepare import prepare_task
from tests.needs import need_data

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
    return str(need_data("cifar-10-batches-bin", "models"))


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
        rows = ["label\tcontent"]
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


def test_example_04_names_the_file_it_misses_or_cannot_read(tmp_path):
    with pytest.raises(InputError, match=r"train\.tsv, but: No such file"):
        load_task(str(_EXAMPLES / "04_bert_text.py"), {"data": str(tmp_path)})
    (tmp_path / "text" / "sst2").mkdir(parents=True)
    (tmp_path / "text" / "sst2" / "train.tsv").write_text("label\tcontent\ngood\ta film\n")
    with pytest.raises(InputError, match=r"train\.tsv must hold .* but: .*'good'"):
        load_task(str(_EXAMPLES / "04_bert_text.py"), {"data": str(tmp_path)})


def _eight_bits_and_half_pruned(space):
    """Levels: the first of each 8-bit knob, and the first pruning ratio everywhere."""
    kinds = ("weight_bits", "activation_bits", "pruning_ratio")
    return space.decode({knob.name: int(knob.kind in kinds) for knob in space.knobs})


@pytest.fixture
def fake_vowels(tmp_path, monkeypatch):
    """Sequences of 4 to 9 steps around a place of their speaker's; returns the data folder."""
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    places = generator.normal(size=(3, 4))
    arrays = {}
    for name, n, n_steps in (("train", 60, 8), ("test", 41, 9)):
        speakers = np.arange(n) % 3
        lengths = generator.integers(4, n_steps + 1, n)
        x = places[speakers][:, None] + 0.3 * generator.normal(size=(n, n_steps, 4))
        x[np.arange(n_steps) >= lengths[:, None]] = 0.0
        arrays |= {f"x_{name}": x, f"len_{name}": lengths, f"y_{name}": speakers}
    (tmp_path / "timeseries").mkdir()
    np.savez(tmp_path / "timeseries" / "japanese_vowels.npz", **arrays)
    return tmp_path


_LSTM = str(_EXAMPLES / "05_lstm_series.py")


def test_example_05_learns_and_is_compressed(fake_vowels):
    task = load_task(_LSTM, {"data": str(fake_vowels), "quick": "true"})
    session = open_session(task, "recurrent", EvaluationSettings(threads=1, has_latency=False))
    plan = _eight_bits_and_half_pruned(session.built.space)

    baseline = session.evaluator.evaluate(CompressionPlan(), seed=0)
    small = session.evaluator.evaluate(plan, seed=0)

    assert baseline.accuracy >= 0.9
    assert small.accuracy >= 0.9
    assert small.size_bytes < 0.3 * baseline.size_bytes
    assert (len(task.train), len(task.val), len(task.test)) == (60, 21, 20)


def test_example_05_reads_nothing_after_a_sequences_end(fake_vowels):
    task = load_task(_LSTM, {"data": str(fake_vowels), "quick": "true"})
    (x, lengths), _ = task.val.batch(slice(0, 8))
    assert lengths.min() < x.shape[1]
    past = torch.arange(x.shape[1]) >= lengths[:, None]

    with torch.no_grad():
        assert torch.equal(
            task.model(x, lengths), task.model(x.masked_fill(past[:, :, None], 9.0), lengths)
        )


def test_example_05_names_the_file_it_misses_or_cannot_read(tmp_path):
    with pytest.raises(InputError, match=r"japanese_vowels\.npz, but: No such file"):
        load_task(_LSTM, {"data": str(tmp_path)})
    (tmp_path / "timeseries").mkdir()
    path = tmp_path / "timeseries" / "japanese_vowels.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"japanese_vowels\.npz must hold the arrays"):
        load_task(_LSTM, {"data": str(tmp_path)})
    np.savez(path, x_train=np.zeros((2, 3, 4)))
    with pytest.raises(InputError, match=r"but: .*x_test"):
        load_task(_LSTM, {"data": str(tmp_path)})


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    """Lines that count, and at the end a character that is nowhere else."""
    data = tmp_path_factory.mktemp("text")
    folder = data / "text" / "tinyshakespeare"
    folder.mkdir(parents=True)
    lines = "".join(f"{i % 1000} is what comes next.\n" for i in range(500))
    (folder / "input.txt").write_text(lines + "!", encoding="utf-8")
    return data


@pytest.fixture
def fake_text(text_folder, monkeypatch):
    """The data folder, with a cache that its tests share: the model is trained once."""
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(text_folder / "cache"))
    return text_folder


_GPT = str(_EXAMPLES / "06_gpt_like.py")
_SHORT = {"quick": "true", "steps": "40"}


def test_example_06_learns_and_is_compressed(fake_text):
    task = load_task(_GPT, {"data": str(fake_text), **_SHORT})
    settings = EvaluationSettings(threads=1, has_latency=False, proxy_epochs=0.1)
    session = open_session(task, "transformer", settings)
    plan = _eight_bits_and_half_pruned(session.built.space)
    assert plan != CompressionPlan()

    baseline = session.evaluator.evaluate(CompressionPlan(), seed=0)
    small = session.evaluator.evaluate(plan, seed=0, fidelity=0)

    assert baseline.accuracy > 0.4  # always the likeliest character: 0.13
    assert small.accuracy > 0.2
    assert small.size_bytes < 0.3 * baseline.size_bytes


def test_example_06_splits_the_text_in_stretches_and_sees_no_later_character(fake_text):
    task = load_task(_GPT, {"data": str(fake_text), **_SHORT})
    text = (fake_text / "text" / "tinyshakespeare" / "input.txt").read_text()
    prepared = prepare_task(task)
    n_characters = [split.inputs[0].numel() for split in (prepared.train, prepared.val)]
    ids, following = prepared.test.inputs[0], prepared.test.targets

    assert torch.equal(ids[:, 1:], following[:, :-1])
    assert torch.equal(ids[1:, 0], following[:-1, -1])
    assert n_characters[0] <= 0.8 * len(text)
    assert n_characters[1] <= 0.1 * len(text)
    known = {int(i) for i in prepared.train.inputs[0].unique()}
    assert known == set(range(1, len(set(text[:-1])) + 1))  # 0: not in the training text
    later = ids.clone()
    later[:, 40:] = 1
    with torch.no_grad():
        same, other = (task.model.eval()(tokens)[:, :40] for tokens in (ids, later))
    torch.testing.assert_close(same, other)


def test_example_06_names_what_is_wrong_with_its_text(tmp_path):
    with pytest.raises(InputError, match=r"input\.txt, but: No such file"):
        load_task(_GPT, {"data": str(tmp_path)})
    folder = tmp_path / "text" / "tinyshakespeare"
    folder.mkdir(parents=True)
    (folder / "input.txt").write_text("To be.")
    with pytest.raises(InputError, match="must have 2560 characters or more, but has 6"):
        load_task(_GPT, {"data": str(tmp_path)})
    (folder / "input.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="must be UTF-8"):
        load_task(_GPT, {"data": str(tmp_path)})


_VIT = str(_EXAMPLES / "07_vit.py")


def test_example_07_keeps_val_aside_and_is_compressed(fake_data, monkeypatch):
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(fake_data / "cache"))
    task = load_task(_VIT, {"data": str(fake_data), "quick": "true"})
    session = open_session(task, "transformer", EvaluationSettings(threads=1, has_latency=False))
    space = session.built.space
    assert {"drop_block", "pruning_ratio", "weight_bits"} <= {knob.kind for knob in space.knobs}
    assert "weight_bits:stem.0.0" in {knob.name for knob in space.knobs}

    baseline = session.evaluator.evaluate(CompressionPlan(), seed=0)
    small = session.evaluator.evaluate(_eight_bits_and_half_pruned(space), seed=0, fidelity=0)

    assert small.size_bytes < 0.3 * baseline.size_bytes
    assert task.val.targets.bincount().tolist() == [1] * 10
    assert len(task.test) == 60
    seen = {image.numpy().tobytes() for image in task.train.inputs[0]}
    assert len(seen) == 9
    assert not seen & {image.numpy().tobytes() for image in task.val.inputs[0]}


def test_example_07_names_the_folder_it_misses(tmp_path):
    with pytest.raises(InputError, match="must be or hold cifar-10-batches-bin"):
        load_task(_VIT, {"data": str(tmp_path / "nowhere")})


@pytest.mark.realdata
@pytest.mark.slow
def test_example_05_scores_on_real_sequences_in_its_quick_form(real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path))
    prepared = prepare_task(load_task(_LSTM, {"data": real_data, "quick": "true"}))
    inputs, speakers = prepared.val.batch(slice(None))

    with torch.no_grad():
        assert top1(prepared.task.model(*inputs), speakers) >= 0.9
    assert val_looks_seen(prepared) is None
