"""`autocompress verify`: a bundle keeps its promises, and each broken one has an exit code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autocompress.cli.main import cli
from autocompress.cli.verify import EXIT_CODES
from autocompress.errors import BrokenPromiseError, InputError
from autocompress.export.bundle import digest_of
from autocompress.export.manifest import MANIFEST

Change = Callable[[Path, dict[str, Any]], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run with a bundle, in a folder of its own."""
    folder = tmp_path_factory.mktemp("verify")
    (folder / "my_task.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from autocompress import Task\n"
        "def task():\n"
        "    torch.manual_seed(0)\n"
        "    x = torch.randn(300, 12)\n"
        "    y = x[:, :3].argmax(1)\n"
        "    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 3))\n"
        "    optimizer = torch.optim.Adam(model.parameters(), 0.01)\n"
        "    for _ in range(60):\n"
        "        optimizer.zero_grad()\n"
        "        nn.functional.cross_entropy(model(x), y).backward()\n"
        "        optimizer.step()\n"
        "    return Task(model=model, train=(x[:200], y[:200]), val=(x[200:250], y[200:250]),\n"
        "                test=(x[250:], y[250:]))\n",
        encoding="utf-8",
    )
    results = str(folder / "results")
    options = ["--budget", "3", "--run", "r", "--results", results, "--quiet", "--threads", "1"]
    options += ["--without", "table,seeds,ladder", "--objectives", "accuracy,size"]
    runner = CliRunner()
    done = runner.invoke(cli, ["search", str(folder / "my_task.py"), *options])
    assert done.exit_code == 0, done.output
    done = runner.invoke(
        cli, ["export", "r", "--trial", "1", "--results", results, "--safetensors"]
    )
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, still inside its run."""
    shutil.copytree(made / "results", tmp_path / "results")
    (found,) = (tmp_path / "results" / "r" / "exports").iterdir()
    return found


def _spoil_file(bundle: Path, manifest: dict[str, Any]) -> None:
    path = bundle / "plan.json"
    path.write_bytes(path.read_bytes() + b" ")


def _lose_file(bundle: Path, manifest: dict[str, Any]) -> None:
    (bundle / "model.acz").unlink()


def _other_size(bundle: Path, manifest: dict[str, Any]) -> None:
    manifest["measurements"]["size_bytes"] -= 1


def _other_outputs(bundle: Path, manifest: dict[str, Any]) -> None:
    import onnx

    model = onnx.load(bundle / "model.onnx")
    bias = next(i for i in model.graph.initializer if i.name.endswith("bias"))
    changed = onnx.numpy_helper.to_array(bias) + 10_000  # floats, or many small steps
    bias.CopyFrom(onnx.numpy_helper.from_array(changed, bias.name))
    onnx.save(model, bundle / "model.onnx")
    manifest["files"]["model.onnx"] = digest_of(bundle / "model.onnx")
    manifest["runtimes"]["onnxruntime"]["size_bytes"] = (bundle / "model.onnx").stat().st_size


def _better_accuracy(bundle: Path, manifest: dict[str, Any]) -> None:
    manifest["runtimes"]["onnxruntime"]["test_accuracy"] += 0.05


def _faster(bundle: Path, manifest: dict[str, Any]) -> None:
    promised = manifest["runtimes"]["onnxruntime"]
    for name in ("speedup", "speedup_low", "speedup_high"):
        promised[name] *= 1000


@pytest.mark.parametrize(
    ("change", "promise"),
    [
        (_spoil_file, "files"),
        (_lose_file, "files"),
        (_other_size, "sizes"),
        (_other_outputs, "outputs"),
        (_better_accuracy, "accuracy"),
        (_faster, "latency"),
    ],
)
def test_verify_says_which_promise_is_broken(bundle: Path, change: Change, promise: str) -> None:
    path = bundle / MANIFEST
    manifest = json.loads(path.read_text())
    change(bundle, manifest)
    path.write_text(json.dumps(manifest))
    done = CliRunner().invoke(cli, ["verify", str(bundle), "--json"])
    assert isinstance(done.exception, BrokenPromiseError)
    assert done.exception.exit_code == EXIT_CODES[promise]
    broken = {check["promise"] for check in json.loads(done.stdout) if check["verdict"] == "broken"}
    assert promise in broken


def test_verify_checks_everything_inside_its_run(bundle: Path) -> None:
    done = CliRunner().invoke(cli, ["verify", str(bundle), "--json"])
    assert done.exit_code == 0, done.output
    checks = json.loads(done.stdout)
    assert {check["promise"] for check in checks} == set(EXIT_CODES)
    assert {check["verdict"] for check in checks} == {"kept"}
    assert (bundle / "model.safetensors").is_file()


def test_verify_says_what_it_cannot_check_elsewhere(bundle: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(bundle, alone)
    done = CliRunner().invoke(cli, ["verify", str(alone)])
    assert done.exit_code == 0, done.output
    assert "not checked: accuracy of model.onnx: the task is not known" in done.output


def test_verify_compares_times_of_one_processor_only(bundle: Path) -> None:
    path = bundle / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["environment"]["hardware"]["processor"] = "Abacus 1"
    path.write_text(json.dumps(manifest))
    done = CliRunner().invoke(cli, ["verify", str(bundle)])
    assert done.exit_code == 0, done.output
    assert "not checked: latency of model.onnx: it was timed on Abacus 1" in done.output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "makes no sense"),
        (b"[]", "makes no sense"),
        (b'{"format": 1}', "must have format"),
        (b'{"format": 2, "files": {"../../x": {}}, "runtimes": {}, "measurements": {}, '
         b'"timed": {}, "environment": {}}', "outside the bundle"),
    ],
)  # fmt: skip
def test_verify_refuses_manifests_that_make_no_sense(
    content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    done = CliRunner().invoke(cli, ["verify", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert words in done.exception.message


def test_a_manifest_that_promises_nothing_is_refused(bundle: Path) -> None:
    """It passed: "2 of 2 checks made"."""
    path = bundle / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["files"]["model.acz"]
    path.write_text(json.dumps(manifest))
    done = CliRunner().invoke(cli, ["verify", str(bundle)])
    assert isinstance(done.exception, InputError)
    assert "it must promise model.acz" in done.exception.message


def test_more_threads_than_machines_have_are_refused(bundle: Path) -> None:
    path = bundle / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["timed"]["threads"] = 4096
    path.write_text(json.dumps(manifest))
    done = CliRunner().invoke(cli, ["verify", str(bundle)])
    assert isinstance(done.exception, InputError)
    assert "timed.threads" in done.exception.message


def test_a_file_that_the_manifest_does_not_name_is_said(bundle: Path) -> None:
    (bundle / "run_me.sh").write_text("echo")
    done = CliRunner().invoke(cli, ["verify", str(bundle)])
    assert done.exit_code == 0, done.output
    assert "not checked: files of run_me.sh: the manifest does not name it" in done.output


def test_verify_needs_a_bundle(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["verify", str(tmp_path / "nowhere")])
    assert isinstance(done.exception, InputError)
    assert "must be a bundle" in done.exception.message
