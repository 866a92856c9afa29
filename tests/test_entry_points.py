"""Rows that another installed package adds: each kind at work, and all that can be wrong."""

import dataclasses
import importlib.metadata
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import optuna
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from autocompress.cli.main import cli
from autocompress.compress.importance.registry import CRITERIA
from autocompress.compress.importance.score import score_channels
from autocompress.compress.low_rank.registry import FACTORIZATIONS
from autocompress.compress.pipeline import apply_plan
from autocompress.compress.prune import PruningPolicy
from autocompress.compress.quantize import make_deployable
from autocompress.compress.quantizers.registry import (
    QUANTIZER_REGISTRY,
    QUANTIZERS,
    find_quantizer,
)
from autocompress.entry_points import Registry
from autocompress.errors import InputError
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.objective import parse_objectives
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.runs.tracking.registry import TRACKERS, make_trackers
from autocompress.runs.tracking.tracker import TrackedRun, TrackedTrial
from autocompress.runtime.process import RunningModel
from autocompress.runtime.registry import (
    RUNTIME_REGISTRY,
    find_runtime,
    runtimes_for,
    versions_of,
)
from autocompress.samplers.propose import SAMPLERS, check_sampler, propose_levels
from autocompress.space.build import build_space
from autocompress.space.rules import parse_rules
from autocompress.space.search_space import SearchSpace
from autocompress.space.targets import load_target
from autocompress.study.session import Session, open_session
from autocompress.tasks import trust
from autocompress.tasks.base import Task
from autocompress.tasks.factory import TASKS, load_task
from autocompress.tasks.trust import is_trusted, trust_task
from autocompress.train.recalibrate import recalibrate_

PACKAGE = Path(__file__).with_name("plugin_package")
NAME = "autocompress-example"
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package as pip would: its metadata stands in a folder on the path."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    paths = [str(site), str(PACKAGE), *sys.path]
    monkeypatch.setenv("PYTHONPATH", ":".join(paths))  # of processes that are started

    def install(
        name: str, groups: dict[str, dict[str, str]], version: str = "1.0", modules: Any = ()
    ) -> None:
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        lines = [
            f"[{group}]\n" + "\n".join(f"{key} = {value}" for key, value in rows.items())
            for group, rows in groups.items()
        ]
        (folder / "entry_points.txt").write_text("\n".join(lines))
        for module, text in dict(modules).items():
            (site / f"{module}.py").write_text(text)
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "path", [*sys.path, str(site / name)])  # a path not seen before

    return install


@pytest.fixture
def example(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of `tests/plugin_package`, installed."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    install(project["name"], project["entry-points"], project["version"])
    monkeypatch.syspath_prepend(str(PACKAGE))


@pytest.fixture(autouse=True)
def forget_modules() -> Iterable[None]:
    """Modules of a package are imported anew by each test."""
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] == "autocompress_example"]:
        del sys.modules[name]


# ---- each kind at work ----


@pytest.mark.usefixtures("example")
def test_quantizer_of_a_package_goes_from_a_space_file_to_stored_weights(zoo: Any) -> None:
    rules = parse_rules(
        "rules: [{weight_bits: [4], quantizer: [widest], activation_bits: [8]}]", "test"
    )
    net = zoo("plain")
    space = build_space(net.profile, rules).space
    plan = space.decode({knob.name: len(knob.levels) - 1 for knob in space.knobs})
    assert {layer.quantizer for layer in plan.layers.values()} == {"widest"}
    candidate = apply_plan(net.model, plan, net.profile.groups, net.inputs, PruningPolicy())
    assert candidate.skipped == ()
    recalibrate_(candidate.model, [net.inputs])
    stored = make_deployable(candidate.model).weights["hidden"]
    weight, found = net.model.hidden.weight.detach().numpy(), stored.dequantize()
    steps = np.abs(weight).max(axis=1, keepdims=True) / 7
    assert np.allclose(found, np.round(weight / steps) * steps, atol=1e-6)


@pytest.mark.usefixtures("example")
def test_input_grid_knows_which_quantizer_of_a_package_has_no_integer_form(
    zoo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "autocompress_example.quantizer.WIDEST",
        dataclasses.replace(find_quantizer("widest"), integer_bits=()),
    )
    net = zoo("plain")
    plan = CompressionPlan(
        layers={"hidden": LayerPlan(weight_bits=4, quantizer="widest", activation_bits=8)}
    )
    candidate = apply_plan(net.model, plan, net.profile.groups, net.inputs, PruningPolicy())
    (note,) = candidate.skipped
    assert "a scale per channel, and widest in 4 bits per channel is none" in note


@pytest.mark.usefixtures("example")
def test_target_may_name_a_quantizer_of_a_package(tmp_path: Path) -> None:
    path = tmp_path / "target.yaml"
    path.write_text("quantizers: [widest]\n")
    assert load_target(path).quantizers == ["widest"]
    assert "autocompress_example" not in sys.modules
    path.write_text("quantizers: [wides]\n")
    with pytest.raises(InputError, match="Unknown name") as caught:
        load_target(path)
    assert "Did you mean 'widest'?" in caught.value.hint


@pytest.mark.usefixtures("example")
def test_criterion_of_a_package_scores_channels(zoo: Any) -> None:
    net = zoo("plain")
    group = next(g for g in net.profile.groups if g.name == "conv1")
    scores = score_channels(net.model, group, "largest_weight")
    expected = np.zeros(8)
    for weight in (net.model.conv1.weight, net.model.conv2.weight.transpose(0, 1)):
        largest = weight.detach().flatten(1).abs().amax(dim=1).double().numpy()
        expected += largest / largest.mean()
    assert np.argsort(scores).tolist() == np.argsort(expected).tolist()


@pytest.mark.usefixtures("example")
def test_factorization_of_a_package_splits_what_it_can(zoo: Any) -> None:
    net = zoo("plain")
    rules = parse_rules("rules: [{rank_ratio: [0.25], factorization: random_svd}]", "test")
    built = build_space(net.profile, rules)
    assert built.refused["rank_ratio", "conv1"] == "it splits no conv layers"
    plan = built.space.decode({knob.name: 1 for knob in built.space.knobs})
    candidate = apply_plan(net.model, plan, net.profile.groups, net.inputs, PruningPolicy())
    reduce, expand = candidate.model.hidden
    assert (reduce.out_features, expand.in_features) == (4, 4)


@pytest.mark.usefixtures("example")
def test_runtime_of_a_package_runs_a_file_in_a_process_of_its_own(tmp_path: Path) -> None:
    runtime = find_runtime("onnx_reference")
    assert versions_of(runtime) == {"onnx": onnx.__version__, NAME: "1.0"}
    path = tmp_path / "model.onnx"
    shapes = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 4]) for name in "xy"
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Softmax", ["x"], ["y"])], "g", shapes[:1], shapes[1:]
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    assert runtimes_for(path, ["onnx_reference"]) == (runtime,)
    assert [r.name for r in runtimes_for(path)] == ["onnxruntime"]
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    outputs = []
    for name in ("onnx_reference", "onnxruntime"):
        with RunningModel(find_runtime(name), path, threads=1) as model:
            outputs.append(model.predict((x,), 2))
    assert np.allclose(*outputs, atol=1e-5)


@pytest.mark.usefixtures("example")
def test_runtime_must_have_the_name_of_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autocompress_example.runtime.OnnxReference.name", "other")
    with pytest.raises(InputError, match=r"'onnx_reference' must have that name, .*'other'"):
        find_runtime("onnx_reference")


@pytest.mark.usefixtures("example")
def test_task_of_a_package_is_loaded_by_name_with_arguments() -> None:
    found = load_task("parity", {"n": "40"})
    assert isinstance(found, Task)
    assert len(found.train[0]) == 20
    again = load_task("parity", {"n": "40"})
    assert torch.equal(found.model[0].weight, again.model[0].weight)


@pytest.mark.usefixtures("example")
def test_analyze_takes_a_task_and_a_space_of_a_package(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "pruning: {criterion: largest_weight}\n"
        "rules: [{pruning_ratio: [0.5], weight_bits: [4], quantizer: [widest]}]\n"
    )
    result = CliRunner().invoke(cli, ["analyze", "parity", "--space", str(path)])
    assert result.exit_code == 0, result.output
    assert "widest" in result.output


@pytest.mark.usefixtures("example")
def test_task_of_a_package_needs_trust_once_and_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trust, "_asked_here", set())
    assert not is_trusted("parity", {})
    trust_task("parity", {})
    monkeypatch.chdir(tmp_path)
    assert is_trusted("parity", {})


@pytest.mark.usefixtures("example")
def test_tracker_of_a_package_is_told_of_a_trial(tmp_path: Path) -> None:
    path = tmp_path / "told.jsonl"
    trial = TrialRecord(
        number=0,
        role="baseline",
        label="baseline",
        state="failed",
        levels={},
        plan=CompressionPlan(),
        measurement=None,
        reason="export: no kernel",
    )
    run_of_one = RunRecord(
        name="run",
        folder=tmp_path,
        objectives=parse_objectives("accuracy,size"),
        knobs=(),
        trials=(trial,),
        info={"seed": 0},
    )
    (tracker,) = make_trackers([f"jsonl:{path}"], tmp_path).values()
    run = TrackedRun.of(run_of_one)
    assert tracker.open(run) == set()
    tracker.log(TrackedTrial.of(run_of_one, run_of_one.trials[0]), {}, 1)
    tracker.close()
    assert json.loads(path.read_text())["trial"] == 0
    assert make_trackers([f"jsonl:{path}"], tmp_path)["jsonl"].open(run) == {0}


@pytest.mark.usefixtures("example")
def test_sampler_of_a_package_proposes(space: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    check_sampler("tpe_wide")
    seeds = []

    def noted(seed: int) -> optuna.samplers.BaseSampler:
        seeds.append(seed)
        return optuna.samplers.TPESampler(seed=seed)

    monkeypatch.setattr("autocompress_example.sampler.tpe_wide", noted)
    levels = propose_levels(space, "tpe_wide", ("maximize", "minimize"), [], run_seed=0, number=0)
    assert levels is not None
    assert levels.keys() == {knob.name for knob in space.knobs}
    assert len(seeds) == 1


# ---- what identifies a run ----


def session_of(rules: str) -> Session:
    torch.manual_seed(0)
    x = torch.randn(32, 4)
    y = (x[:, 0] > 0).long()
    task = Task(
        model=nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), train=(x, y), val=(x, y)
    )
    return open_session(
        task, parse_rules(rules, "test"), EvaluationSettings(threads=1, has_latency=False)
    )


PLAIN = "rules: [{weight_bits: [8, 4]}]"


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("rules", "sampler", "task"),
    [
        ("rules: [{weight_bits: [8, 4], quantizer: widest}]", "tpe", "digits"),
        ("rules: [{weight_bits: [8, 4], quantizer: [uniform, widest]}]", "guided", ""),
        (f"pruning: {{criterion: largest_weight}}\n{PLAIN}", "tpe", "digits"),
        ("rules: [{rank_ratio: [0.25], factorization: [random_svd]}]", "tpe", "digits"),
        (PLAIN, "tpe_wide", "digits"),
        (PLAIN, "tpe", "parity"),
    ],
)
def test_a_package_whose_row_is_used_identifies_a_run(rules: str, sampler: str, task: str) -> None:
    identity = session_of(rules).identity(run_seed=0, sampler=sampler, task=task)
    assert identity["machine"][NAME] == "1.0"


@pytest.mark.usefixtures("example")
def test_a_package_whose_rows_are_not_used_does_not_identify_a_run() -> None:
    identity = session_of(PLAIN).identity(run_seed=0, sampler="guided", task="digits")
    assert identity["machine"].keys() == {"processor", "precision", "onnxruntime", "torch"}
    assert "autocompress_example" not in sys.modules


def test_nni_identifies_a_run_under_the_key_it_always_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "3.0" if name == "nni" else real(name)
    )
    for rules in (
        f"pruning: {{criterion: nni_l1}}\n{PLAIN}",
        "rules: [{weight_bits: [8, 4], quantizer: nni_qat}]",
        "rules: [{weight_bits: [8, 4], quantizer: [nni_qat]}]",
    ):
        identity = session_of(rules).identity(run_seed=0, sampler="tpe")
        assert identity["machine"]["nni"] == "3.0"


@pytest.mark.parametrize("table", [QUANTIZERS, CRITERIA])
def test_every_row_of_nni_says_so(table: Any) -> None:
    said = {name for name, row in table.items() if row.packages == ("nni",)}
    assert said == {name for name in table if name.startswith("nni_")}


# ---- what can be wrong ----

GROUP = "autocompress.quantizers"


def test_no_package_is_needed() -> None:
    assert QUANTIZER_REGISTRY.names == tuple(QUANTIZERS)
    assert RUNTIME_REGISTRY.target_of("onnxruntime") is None


def test_a_name_of_this_package_is_refused_only_where_it_is_used(install: Install) -> None:
    install("bold", {GROUP: {"kmeans": "nowhere:X"}, "autocompress.samplers": {"guided": "a:b"}})
    with pytest.raises(InputError) as caught:
        find_quantizer("kmeans")
    assert caught.value.message == (
        "The quantizer 'kmeans' must come from one package, but these have one of that name: "
        "autocompress, bold."
    )
    assert find_quantizer("uniform") is QUANTIZERS["uniform"]
    with pytest.raises(InputError, match=r"sampler 'guided' must come from one package.*bold\."):
        check_sampler("guided")


def test_two_packages_with_one_name_are_both_told(install: Install) -> None:
    for name in ("one-package", "another"):
        install(name, {GROUP: {"mine": "nowhere:X"}})
    with pytest.raises(InputError, match=r"of that name: \S+, \S+\. ") as caught:
        find_quantizer("mine")
    assert "one-package" in caught.value.message
    assert "another" in caught.value.message
    assert QUANTIZER_REGISTRY.names.count("mine") == 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("broken_on_import:X", "RuntimeError: no luck"),
        ("leaves_on_import:X", "SystemExit: 3"),
        ("not_there_at_all:X", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("fine_module:Y", "AttributeError: module 'fine_module' has no attribute 'Y'"),
        ("no value of an entry point!", "Error: "),  # of which kind differs between versions
        ("fine_module:X", "is of type str"),
    ],
)
def test_a_row_that_cannot_be_imported_is_one_line_where_it_is_used(
    install: Install, value: str, reason: str, zoo: Any
) -> None:
    modules = {
        "broken_on_import": "raise RuntimeError('no luck\\nat all')",
        "leaves_on_import": "raise SystemExit(3)",
        "fine_module": "X = 'no row'",
    }
    install("faulty", {GROUP: {"mine": value}}, modules=modules)
    assert find_quantizer("uniform") is QUANTIZERS["uniform"]
    with pytest.raises(InputError) as caught:
        build_space(
            zoo("plain").profile, parse_rules("rules: [{weight_bits: [4], quantizer: mine}]", "t")
        )
    message = caught.value.message
    assert message.startswith("The quantizer 'mine' of the package 'faulty' must be ")
    assert repr(value) in message
    assert reason in message
    assert "\n" not in message
    assert caught.value.hint
    for name in modules:
        sys.modules.pop(name, None)


def test_a_task_that_cannot_be_imported_names_its_package(install: Install) -> None:
    install("faulty", {"autocompress.tasks": {"theirs": "not_there_at_all:task"}})
    with pytest.raises(InputError, match=r"The task 'theirs' of the package 'faulty' must be"):
        load_task("theirs", {})


def test_a_file_is_not_taken_for_a_task_of_a_package(install: Install) -> None:
    install("faulty", {"autocompress.tasks": {"my_task.py": "os:getcwd", "a.b:c": "os:getcwd"}})
    with pytest.raises(InputError, match=r"my_task\.py does not"):
        load_task("my_task.py", {})
    with pytest.raises(InputError, match=r"The task's module 'a\.b'"):
        load_task("a.b:c", {})


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("look_up", "ours", "theirs"),
    [
        (find_quantizer, QUANTIZERS, "widest"),
        (find_runtime, RUNTIME_REGISTRY.built_in, "onnx_reference"),
        (check_sampler, SAMPLERS, "tpe_wide"),
        (lambda name: make_trackers([name], Path()), TRACKERS, "jsonl"),
        (lambda name: load_task(name, {}), TASKS, "parity"),
    ],
)
def test_an_unknown_name_lists_those_of_packages_without_importing_them(
    look_up: Callable[[str], object], ours: Iterable[str], theirs: str
) -> None:
    with pytest.raises(InputError, match=r"Unknown .* 'nonsense'") as caught:
        look_up("nonsense")
    assert f"Choose from: {', '.join(sorted([*ours, theirs]))}." in caught.value.hint
    assert "autocompress_example" not in sys.modules


@pytest.mark.usefixtures("example")
def test_help_and_startup_import_no_package() -> None:
    code = (
        "import sys, autocompress\n"
        "from click.testing import CliRunner\n"
        "from autocompress.cli.main import cli\n"
        "for words in (['--help'], ['search', '--help'], ['bench', '--help']):\n"
        "    assert CliRunner().invoke(cli, words).exit_code == 0\n"
        "assert 'autocompress_example' not in sys.modules\n"
        "import autocompress.compress.quantizers.registry as registry\n"
        "assert 'widest' in registry.QUANTIZER_REGISTRY.names\n"
        "assert 'autocompress_example' not in sys.modules\n"
        "registry.find_quantizer('widest')\n"
        "assert 'autocompress_example' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_extra_is_that_of_the_package_a_row_comes_from(install: Install) -> None:
    install("theirs-too", {"colours": {"red": "colorsys:rgb_to_hls"}})
    colours = Registry(kind="colour", group="colours", built_in={"blue": print}, is_row=callable)
    assert colours.install_command("blue", "x") == "pip install 'autocompress[x]'"
    assert colours.install_command("red", "x") == "pip install 'theirs-too[x]'"


def test_every_factorization_can_say_what_it_needs() -> None:
    assert all(spec.packages == () for spec in FACTORIZATIONS.values())
