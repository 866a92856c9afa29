"""Every runtime passes the same suite: what it writes computes what the candidate does."""

import functools
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autocompress.errors import InputError, TrialError
from autocompress.evaluate.deploy import deploy
from autocompress.export.bench import size_of
from autocompress.runtime.base import Runtime, Shipment
from autocompress.runtime.process import RunningModel
from autocompress.runtime.registry import RUNTIMES, find_runtime, runtimes_for
from tests.needs import need_extra

# All nets of the zoo were run once in all runtimes; these have what runtimes get wrong: residual
# sums and zero-padded shortcuts, depthwise layers, attention, recurrence.
_NETS = {
    "onnxruntime": ("zero_padded_shortcut", "inverted_bottleneck", "bert_like", "lstm"),
    "openvino": ("zero_padded_shortcut", "inverted_bottleneck", "bert_like", "lstm"),
    "openvino_bf16": ("zero_padded_shortcut",),
    "executorch": ("zero_padded_shortcut",),  # ten seconds each; and mixed plans, below
    "torch_export": ("bert_like",),
}
_TOLERANCES = {"openvino_bf16": 0.02}  # share of the largest output; others: float32 sums reordered
_FLOAT_TOLERANCE, _INTEGER_TOLERANCE = 1e-4, 0.1


@functools.cache
def _shipment(suite_name: str, net_name: str, form: str) -> tuple[Any, Shipment, np.ndarray]:
    """A net as it ships, float or with 8-bit activations, and what the candidate computes."""
    suite = sys.modules[suite_name]
    net = suite.make_net(net_name, *sys.modules["zoo"].build(net_name))
    model = net.model
    if form == "int8":
        rules = suite.rules_of(suite.BY_NAME["8-bit activations"])
        built, why = suite.build(net, rules)
        assert built is not None, why
        model = suite.make_candidate(net, rules, suite.strongest(built)).model
    with torch.no_grad():
        expected = model.eval()(*net.prepared.example_inputs).numpy()
    return net, deploy(model, net.prepared), expected


def _cases() -> list[tuple[str, str, str]]:
    cases = [(name, net, form) for name, nets in _NETS.items() for net in nets for form in FORMS]
    return [case for case in cases if case != ("torch_export", "bert_like", "float")]


FORMS = ("float", "int8")


def _installed(name: str) -> Runtime:
    runtime = next(runtime for runtime in RUNTIMES if runtime.name == name)
    if runtime.extra:
        need_extra(runtime.extra)
    return runtime


def test_every_runtime_is_in_the_suite() -> None:
    assert set(_NETS) == {runtime.name for runtime in RUNTIMES}


@pytest.mark.parametrize(("name", "net_of_zoo", "form"), _cases())
def test_runtime_computes_what_the_candidate_does(
    suite: ModuleType, tmp_path: Path, name: str, net_of_zoo: str, form: str
) -> None:
    runtime = _installed(name)
    net, shipment, expected = _shipment(suite.__name__, net_of_zoo, form)
    path = tmp_path / f"model{runtime.suffix}"
    n_examples = len(expected)
    runtime.write(shipment, path, n_examples)
    arrays = tuple(x.numpy() for x in net.prepared.example_inputs)
    with RunningModel(runtime, path, threads=1) as model:
        got = model.predict(arrays, n_examples)
        assert len(model.inputs) == len(arrays)
        for spec, array in zip(model.inputs, arrays, strict=True):
            assert spec.dtype == str(array.dtype)
            assert spec.shape[1:] == array.shape[1:]
            assert spec.shape[0] == (n_examples if runtime.has_own_batch else None)
        if runtime.has_own_batch:
            with pytest.raises(TrialError, match=re.escape(f"takes {list(arrays[0].shape)}")):
                model.feed(tuple(array[1:] for array in arrays))
        model.feed(arrays)
        assert model.time_block(2) > 0.0
        peak = model.peak_memory_bytes()
        assert peak is None or 0 < peak < 2**30
    assert size_of(path) >= path.stat().st_size > 0
    tolerance = _INTEGER_TOLERANCE if form == "int8" else _FLOAT_TOLERANCE
    tolerance = max(tolerance, _TOLERANCES.get(name, 0.0))
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("name", [name for name in _NETS if name != "torch_export"])
def test_runtime_refuses_nonsense_and_other_batches_in_one_line(name: str, tmp_path: Path) -> None:
    runtime = _installed(name)
    path = tmp_path / f"model{runtime.suffix}"
    path.write_bytes(b"this is no model, " * 64)
    with pytest.raises(TrialError) as caught:
        RunningModel(runtime, path, threads=1)
    assert caught.value.reason in ("runtime", "runtime_crash")
    assert "\n" not in caught.value.message
    assert "model" in caught.value.message


def test_openvino_executes_integer_convolutions(suite: ModuleType, tmp_path: Path) -> None:
    """After its own optimisation: counted in the compiled model."""
    runtime = _installed("openvino")
    _, shipment, _ = _shipment(suite.__name__, "zero_padded_shortcut", "int8")
    path = tmp_path / "model.xml"
    runtime.write(shipment, path, 1)
    code = (
        "import sys, openvino as ov\n"
        "hint = {'INFERENCE_PRECISION_HINT': 'f32'}\n"
        "model = ov.Core().compile_model(sys.argv[1], 'CPU', hint).get_runtime_model()\n"
        "print(sum(op.get_rt_info()['layerType'].value in ('Convolution', 'FullyConnected')\n"
        "          and op.get_rt_info()['runtimePrecision'].value in ('i8', 'u8')\n"
        "          for op in model.get_ops()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    n_layers = sum(len(nodes) for nodes in shipment.graph.layer_nodes.values())
    assert int(done.stdout) == n_layers


def test_torch_export_writes_no_pickle(suite: ModuleType, tmp_path: Path) -> None:
    import zipfile

    runtime = find_runtime("torch_export")
    _, shipment, _ = _shipment(suite.__name__, "bert_like", "int8")
    path = tmp_path / "model.pt2"
    runtime.write(shipment, path, 1)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert not [name for name, data in contents.items() if data[:2] in (b"PK", b"\x80\x02")]
    assert b'"use_pickle": true' not in b"".join(contents.values())
    with pytest.raises(InputError, match="can run any code"):
        runtimes_for(path)


def test_missing_runtime_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, extra in (("openvino", "openvino"), ("executorch", "executorch")):
        with pytest.raises(InputError) as caught:
            find_runtime(name)
        assert f"pip install 'autocompress[{extra}]'" in caught.value.hint
    with pytest.raises(InputError, match="Unknown runtime 'onnxruntim'") as caught:
        find_runtime("onnxruntim")
    assert "onnxruntime" in caught.value.hint


def test_runtime_names_an_operator_it_does_not_know(tmp_path: Path) -> None:
    import onnx

    runtime = _installed("openvino")
    node = onnx.helper.make_node("NoSuchOperator", ["x"], ["y"], domain="com.example")
    sizes = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy"]
    graph = onnx.helper.make_graph([node], "g", sizes[:1], sizes[1:])
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.example", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets)
    shipment = SimpleNamespace(static_graph=SimpleNamespace(model=model))
    with pytest.raises(TrialError, match="NoSuchOperator") as caught:
        runtime.write(shipment, tmp_path / "model.xml", 1)  # type: ignore[arg-type]
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "executorch"])
def test_runtime_takes_mixed_plans_with_pooling(
    suite: ModuleType, tmp_path: Path, name: str
) -> None:
    """A float layer before pooling, integer ones behind it: grids are shared across the pooling."""
    from autocompress.plan import LayerPlan

    runtime = _installed(name)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Conv2d(8, 16, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Conv2d(16, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Flatten(), torch.nn.Linear(16, 5)),
    )
    net = suite.make_net("mixed", model.eval(), (torch.randn(4, 3, 18, 18),))
    rules = suite.rules_of(suite.BY_NAME["8-bit activations"])
    built, why = suite.build(net, rules)
    assert built is not None, why
    plan = suite.strongest(built)
    layers = {n: layer for n, layer in plan.layers.items() if n != "0"} | {"0": LayerPlan()}
    candidate = suite.make_candidate(net, rules, type(plan)(layers=layers)).model.eval()
    with torch.no_grad():
        expected = candidate(*net.prepared.example_inputs).numpy()
    path = tmp_path / f"model{runtime.suffix}"
    shipment = deploy(candidate, net.prepared)
    assert set(shipment.deployable.activations) == {"3", "6", "10"}
    runtime.write(shipment, path, len(expected))
    with RunningModel(runtime, path, threads=1) as running:
        got = running.predict(tuple(x.numpy() for x in net.prepared.example_inputs), len(expected))
    assert np.abs(got - expected).max() <= _INTEGER_TOLERANCE * np.abs(expected).max()
