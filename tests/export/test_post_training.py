"""`autocompress quantize`: ONNX in, ONNX out."""

import json
import wave
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from autocompress.cli.main import cli
from autocompress.errors import AutocompressError, InputError, TrialError
from autocompress.export.judgement import Judge, error_of
from autocompress.export.onnx_examples import read_examples
from autocompress.export.post_training import quantize_file
from autocompress.measurement import LEAST_NOISE
from autocompress.onnx_graph.graph import constants
from autocompress.onnx_graph.session import make_session
from autocompress.packing.packed import read_packed
from autocompress.runtime.foreign import quantize_weights, read_onnx, weight_axes
from autocompress.runtime.latency import Latency
from tests.needs import need_data

CLASSES = Judge(kind="classes")


class Counter(nn.Module):
    """Takes and gives a state, as streaming models do."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.Linear(40, 32), nn.Linear(32, 1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(self.cell(torch.cat([x, state], 1)))
        return torch.sigmoid(self.head(state)), state


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )


def save(path: Path, module: nn.Module, inputs: tuple[Tensor, ...], names: list[str]) -> Path:
    torch.onnx.export(
        module.eval(),
        inputs,
        str(path),
        dynamo=False,
        input_names=names,
        output_names=["y", "next"][: len(names)],
        dynamic_axes={name: {0: "batch"} for name in names},
    )
    return path


class Tokens(nn.Module):
    """ONNX Runtime rounds the inputs of such products too, once their weights are integers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 256), nn.Linear(256, 40)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x))).mean(1)


@pytest.fixture
def convolutional(tmp_path: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    path = save(tmp_path / "net.onnx", conv_net(), (torch.randn(2, 3, 8, 8),), ["x"])
    np.savez(tmp_path / "data.npz", x=torch.randn(40, 3, 8, 8).numpy())
    return path, tmp_path / "data.npz"


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def test_quantize_keeps_decisions_and_takes_the_fastest_form(
    convolutional: tuple[Path, Path], tmp_path: Path
) -> None:
    path, data = convolutional
    result = quantize_file(path, data, tmp_path / "out", least_agreement=0.9)
    assert {made.form for made in result.forms} == {"weights", "static", "dynamic"}
    assert result.chosen.agreement >= 0.9
    chosen = result.chosen.latency
    others = [made.latency for made in result.forms if made.agreement >= 0.9]
    assert not [o for o in others if o.ratio_high * (1.0 + LEAST_NOISE) < chosen.ratio_low]
    assert result.packed_bytes == (tmp_path / "out" / "model.acz").stat().st_size
    assert result.packed_bytes < result.original_bytes / 3
    static = next(made for made in result.forms if made.form == "static")
    assert static.n_integer_nodes >= 3
    for stored in static.packed.quantized.values():  # no processor saturates
        assert 32 < np.abs(stored.codes).max() <= 64
    x = np.load(data)["x"]
    shipped = make_session(tmp_path / "out" / "model.onnx", 1).run(None, {"x": x})[0]
    packed = make_session(read_packed(tmp_path / "out" / "model.acz").graph, 1)
    np.testing.assert_allclose(packed.run(None, {"x": x})[0], shipped, atol=1e-4)
    original = make_session(path, 1).run(None, {"x": x})[0]
    assert CLASSES.agreement(original, shipped) >= 0.9


def test_quantize_carries_a_state_from_example_to_example(tmp_path: Path) -> None:
    torch.manual_seed(0)
    example = (torch.randn(1, 8), torch.zeros(1, 32))
    path = save(tmp_path / "net.onnx", Counter(), example, ["x", "state"])
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(30, 8)).astype("f4"))
    options = ["--data", str(tmp_path / "data.npz"), "--state", "next=state", "--json"]
    options += ["-o", str(tmp_path / "out"), "--min-agreement", "80%"]
    done = CliRunner().invoke(cli, ["quantize", str(path), *options])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert sum(form["chosen"] for form in found["forms"]) == 1
    assert found["packed_bytes"] < found["original_bytes"]


def test_quantize_leaves_weights_float_that_change_decisions(
    convolutional: tuple[Path, Path], tmp_path: Path
) -> None:
    result = quantize_file(*convolutional, tmp_path / "out", bits=3, least_agreement=0.85)
    assert result.left_float
    assert result.chosen.agreement >= 0.85


def test_weights_in_branches_and_cut_ones_are_found() -> None:
    """As in exported recurrent cells: rows are cut into gates and put together inside an If."""
    name = "onnx/silero_vad_16k_op15.onnx"
    model = read_onnx(need_data(name) / name)
    axes = weight_axes(model.graph, constants(model.graph))
    assert axes["model.decoder.rnn.weight_ih"] == axes["model.decoder.rnn.weight_hh"] == 0
    assert axes["model.encoder.0.reparam_conv.weight"] == 0
    exported = quantize_weights(model, 8)
    assert "model.decoder.rnn.weight_ih" not in exported.layer_nodes  # in branches: stored only


@pytest.mark.realdata
def test_quantize_makes_a_voice_detector_three_times_smaller(tmp_path: Path) -> None:
    folder = need_data("onnx", "audio")
    with wave.open(str(Path(folder) / "audio" / "silero_test_60s_16k.wav")) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    windows = (sound[: len(sound) // 512 * 512].astype(np.float32) / 32768).reshape(-1, 512)
    before = np.concatenate([np.zeros((1, 64), np.float32), windows[:-1, -64:]])
    np.savez(tmp_path / "d.npz", input=np.hstack([before, windows])[:600], sr=np.array(16000))
    path = Path(folder) / "onnx" / "silero_vad_16k_op15.onnx"
    result = quantize_file(path, tmp_path / "d.npz", tmp_path / "out", state={"stateN": "state"})
    assert result.chosen.agreement >= 0.99
    assert result.original_bytes >= 3 * result.packed_bytes


def test_bad_input_is_named(convolutional: tuple[Path, Path], tmp_path: Path) -> None:
    path, data = convolutional
    model = read_onnx(path)
    nonsense = tmp_path / "nonsense.onnx"
    nonsense.write_bytes(b"no graph")
    with pytest.raises(InputError, match=r"nonsense\.onnx is no ONNX model"):
        read_onnx(nonsense)
    for arrays, words in (
        ({"y": np.zeros((3, 1))}, "must hold the inputs x, but holds y"),
        ({"x": np.zeros((0, 3, 8, 8))}, "one at least"),
    ):
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(InputError, match=words):
            read_examples(tmp_path / "bad.npz", model, {})
    with pytest.raises(InputError, match=r"must be a \.npz file"):
        read_examples(nonsense, model, {})
    with pytest.raises(InputError, match="`state` must name an output and an input"):
        read_examples(data, model, {"y": "z"})
    np.savez(tmp_path / "wide.npz", x=np.zeros((3, 3, 9, 8), np.float32))
    with pytest.raises(InputError, match="does not run on the examples"):
        quantize_file(path, tmp_path / "wide.npz", tmp_path / "out")
    with pytest.raises(AutocompressError, match=r"must agree by 100\.0%.*judged by classes \(y\)"):
        quantize_file(path, data, tmp_path / "out", bits=2, least_agreement=1.0)
    for options, words in (
        (["--bits", "9"], "`--bits` must be in 2 to 8"),
        (["--state", "y"], "must look like output=input"),
        (["--threads", "0"], "must be positive"),
    ):
        done = CliRunner().invoke(cli, ["quantize", str(path), "--data", str(data), *options])
        assert isinstance(done.exception, InputError)
        assert words in done.exception.message


def test_old_opsets_are_converted_or_refused(tmp_path: Path) -> None:
    size = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 16]) for n in "xy"]
    weight = onnx.numpy_helper.from_array(np.ones((16, 16), np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", size[:1], size[1:], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 11)])
    onnx.save(model, tmp_path / "old.onnx")
    assert read_onnx(tmp_path / "old.onnx").opset_import[0].version == 13


@pytest.mark.parametrize("opset", [9, 13])
def test_quantize_takes_files_that_list_their_weights_as_inputs(opset: int, tmp_path: Path) -> None:
    """As every file had to until IR 3, and some exporters still do."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    torch.onnx.export(
        net,
        (torch.randn(1, 16),),
        str(tmp_path / "net.onnx"),
        dynamo=False,
        opset_version=opset,
        input_names=["x"],
        keep_initializers_as_inputs=True,
    )
    listed = onnx.load(tmp_path / "net.onnx")
    assert len(listed.graph.input) == 5
    listed.ir_version = 3
    onnx.save(listed, tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=torch.randn(40, 16).numpy())
    result = quantize_file(
        tmp_path / "net.onnx", tmp_path / "data.npz", tmp_path / "out", least_agreement=0.8
    )
    assert {made.form for made in result.forms} == {"weights", "static", "dynamic"}
    shipped = make_session(tmp_path / "out" / "model.onnx", 1)
    assert [value.name for value in shipped.get_inputs()] == ["x"]
    assert len(onnx.load(tmp_path / "out" / "model.onnx").graph.input) == 1


def test_quantize_says_why_no_form_could_be_made(
    convolutional: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise TrialError("runtime", "ONNX Runtime refuses the graph: no kernel.")

    monkeypatch.setattr("autocompress.export.post_training.time_files", refuse)
    with pytest.raises(AutocompressError, match=r"static: ONNX Runtime refuses .*: no kernel\."):
        quantize_file(*convolutional, tmp_path / "out", least_agreement=0.5)


def test_quantize_judges_the_files_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_fast = Latency(
        median_ms=1.0,
        spread_ms=0.0,
        baseline_median_ms=1.0,
        ratio=1.0,
        ratio_low=1.0,
        ratio_high=1.0,
        n_runs=1,
        peak_memory_bytes=None,
    )
    monkeypatch.setattr("autocompress.export.post_training.time_files", lambda *_: as_fast)
    torch.manual_seed(2)  # with these weights, decisions do change by the inputs' rounding
    path = save(tmp_path / "net.onnx", Tokens(), (torch.randn(2, 4, 32),), ["x"])
    x = torch.randn(200, 4, 32).numpy()
    np.savez(tmp_path / "data.npz", x=x)
    result = quantize_file(path, tmp_path / "data.npz", tmp_path / "out", least_agreement=0.99)

    def outputs(model: onnx.ModelProto | Path) -> np.ndarray:
        session = make_session(model, 1)
        return np.concatenate([session.run(None, {"x": row[None]})[0] for row in x])

    original = outputs(path)
    assert CLASSES.agreement(original, outputs(tmp_path / "out" / "model.onnx")) >= 0.99
    for made in result.forms:
        answers = [outputs(made.graph), outputs(made.packed.model)]
        assert made.agreement == min(CLASSES.agreement(original, found) for found in answers)
        assert made.error == max(error_of(original, found) for found in answers)
