import os
import signal
from types import SimpleNamespace

import numpy as np
import onnx
import psutil
import pytest
import torch
from torch import nn

from autocompress.errors import TrialError
from autocompress.runtime import process as process_module
from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.process import RunningModel
from autocompress.runtime.registry import RUNTIMES, find_runtime
from tests.needs import need_extra

ONNX = find_runtime("onnxruntime")
EXAMPLE = (np.ones((1, 5), np.float32),)


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    onnx.save(export_onnx(module, (torch.zeros(2, 5),), {}).model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def child_of(model):
    return psutil.Process(model._process.pid)


def test_running_model_computes_in_batches_as_at_once(path):
    x = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    with RunningModel(ONNX, path, threads=1) as model:
        (spec,) = model.inputs
        assert (spec.name, spec.shape, spec.dtype) == ("input", (None, 5), "float32")
        np.testing.assert_array_equal(model.predict((x,), 3), model.predict((x,), 7))


def test_running_model_stays_on_as_many_cores_as_threads(path):
    with RunningModel(ONNX, path, threads=1) as model:
        assert len(child_of(model).cpu_affinity()) == 1


def test_running_model_leaves_nothing_behind(path):
    with RunningModel(ONNX, path, threads=1) as model:
        child, folder = child_of(model), model._process.folder
        model.feed(EXAMPLE)
    assert not child.is_running()
    assert not os.path.exists(folder)


def test_running_model_ends_with_who_started_it(path):
    model = RunningModel(ONNX, path, threads=1)
    child = child_of(model)
    model._process._process.stdin.close()  # what the death of this process does
    assert child.wait(timeout=30) == 0
    model.close()


def test_running_model_says_what_killed_the_runtime(path):
    with RunningModel(ONNX, path, threads=1) as model:
        os.kill(model._process.pid, signal.SIGSEGV)
        with pytest.raises(TrialError, match=r"model\.onnx crashed: SIGSEGV") as caught:
            model.feed(EXAMPLE)
    assert caught.value.reason == "runtime_crash"


def test_running_model_gives_up_one_that_hangs(path, monkeypatch):
    with RunningModel(ONNX, path, threads=1) as model:
        os.kill(model._process.pid, signal.SIGSTOP)
        monkeypatch.setattr(process_module, "PATIENCE_S", 0.2)
        with pytest.raises(TrialError, match="hangs") as caught:
            model.feed(EXAMPLE)
    assert caught.value.reason == "runtime_crash"


def test_running_model_goes_on_after_inputs_that_do_not_fit(path):
    with RunningModel(ONNX, path, threads=1) as model:
        with pytest.raises(TrialError, match=r"does not run on inputs of \[1, 6\]") as caught:
            model.feed((np.ones((1, 6), np.float32),))
        assert "\n" not in caught.value.message
        model.feed(EXAMPLE)
        assert model.time_block(3) > 0.0


def write_linear(runtime, path):
    """A layer of 5 inputs as a file that the runtime opens."""
    layer, inputs = nn.Linear(5, 3).eval(), (torch.zeros(2, 5),)
    if path.suffix == ".onnx":
        onnx.save(export_onnx(layer, inputs, {}).model, path)
    else:
        deployable = SimpleNamespace(model=layer, activations={})
        runtime.write(SimpleNamespace(deployable=deployable, example_inputs=inputs), path, 1)
    return path


@pytest.mark.parametrize(
    ("name", "ending", "words"),
    [
        ("onnxruntime", ".onnx", "Got: 6 Expected: 5."),
        ("openvino", ".onnx", r"model input \(shape=\[\?,5\]\) and the tensor \(shape=\(1.6\)\)"),
        ("torch_export", ".pt2", "to be equal to 5, but got 6"),
    ],
)
def test_running_model_says_which_size_does_not_fit(tmp_path, name, ending, words):
    runtime = next(runtime for runtime in RUNTIMES if runtime.name == name)
    if runtime.extra:
        need_extra(runtime.extra)
    with RunningModel(
        runtime, write_linear(runtime, tmp_path / f"model{ending}"), threads=1
    ) as model:
        with pytest.raises(TrialError, match=rf"on inputs of \[1, 6\]: .*{words}") as caught:
            model.feed((np.ones((1, 6), np.float32),))
        assert "\n" not in caught.value.message
        assert caught.value.reason == "runtime"
        model.feed(EXAMPLE)
