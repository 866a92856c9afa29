"""One architecture through everything: what passes, what fails, what does not apply and why.

The steps are those of the conformance suite of the tests, taken apart so that each is told by name.
"""

import importlib.util
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch

STEPS: Final = (
    "analyze",
    "prune",
    "factorize",
    "quantize",
    "train",
    "export",
    "pack",
    "match",
)
_RULES: Final = {
    "prune": {"pruning_ratio": [0.5]},
    "factorize": {"rank_ratio": [0.5], "factorization": "svd"},
    "quantize": {"weight_bits": [8]},
}
_ROOT = Path(__file__).parents[2]
# Of the largest output, as tests/conformance/suite.py: scales and biases are stored as float16
_TOLERANCE: Final = 5e-3


class _UnmetError(Exception):
    """A step did not do what it should, and raised nothing."""


class Record:
    """Outcome of each step, and figures.

    Attributes:
        row: Column -> value, of what is known so far.
    """

    def __init__(self, name: str, kind: str) -> None:
        self.row: dict[str, Any] = {"name": name, "kind": kind} | dict.fromkeys(STEPS, "")
        self._reasons: list[str] = []
        self.row["tracebacks"] = 0

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """Run a step; returns what it returns, or None if it failed."""
        from autocompress.errors import AutocompressError

        try:
            found = work()
        except (AutocompressError, _UnmetError) as error:
            self.fail(name, str(error))
        except Exception as error:  # noqa: BLE001 - told apart, since a user would see a traceback
            traceback.print_exc()
            self.row["tracebacks"] += 1
            self.fail(name, f"{type(error).__name__}: {error}")
        else:
            self.row[name] = "pass"
            return found
        return None

    def fail(self, name: str, reason: str) -> None:
        """Note a failure and its one line."""
        self.row[name] = "fail"
        self.say(name, reason)

    def does_not_apply(self, name: str, reason: str) -> None:
        """Note that a step has nothing to do, and autocompress's own words for why."""
        self.row[name] = "n/a"
        self.say(name, reason)

    def finish(self) -> dict[str, Any]:
        """The row of the table."""
        self.row["reasons"] = " | ".join(self._reasons)
        return self.row

    def say(self, name: str, reason: str) -> None:
        """Note something about a step in one line."""
        self._reasons.append(f"{name}: {' '.join(reason.split())[:400]}")


def check(name: str, kind: str, build: Callable[[str], Any]) -> dict[str, Any]:
    """Build an architecture and take it through every step."""
    suite = _suite()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    record = Record(name, kind)
    model, inputs = build(name)
    record.row["n_params"] = sum(p.numel() for p in model.parameters())
    record.row["float_bytes"] = sum(t.numel() * t.element_size() for t in model.parameters())
    before, start = _reset_peak_mb(), time.process_time()
    net = record.step("analyze", lambda: suite.make_net(name, model, inputs))
    record.row["analyze_s"] = round(time.process_time() - start, 2)
    record.row["analyze_peak_mb"] = round(_peak_mb() - before, 1)
    if net is None:
        return record.finish()
    _describe(record, net)
    works: dict[str, Any] = {}
    for step, rule in _RULES.items():
        _technique(record, suite, net, step, rule, works)
    _ship(record, suite, net, works)
    record.row["seconds"] = round(time.process_time() - start, 1)
    record.row["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return record.finish()


def _technique(
    record: Record, suite: ModuleType, net: Any, step: str, rule: Any, works: dict[str, Any]
) -> None:
    """The strongest plan of one technique, built and run; its rule is kept where that works."""
    rules = suite.SpaceRules.model_validate({"pruning": {"round_to": 1}, "rules": [rule]})
    built, why = suite.build(net, rules)
    if built is None:
        record.does_not_apply(step, why)
        return

    def work() -> Any:
        plan = suite.strongest(built)
        candidate = _build(net, rules, plan)
        try:
            suite.check_realised(net, rules, plan, candidate)
        except AssertionError as error:
            line = traceback.extract_tb(error.__traceback__)[-1].line
            raise _UnmetError(f"the plan is not what was built: {line} {error}") from error
        output = candidate.model.eval()(*net.prepared.example_inputs)
        if not bool(torch.isfinite(output).all()):
            raise _UnmetError("the candidate's output is not finite")
        return candidate

    candidate = record.step(step, work)
    if candidate is None:
        return
    works.update(rule)
    if step == "prune":
        kept = sum(p.numel() for p in candidate.model.parameters()) / net.profile.n_params
        record.row["pruned_share"] = round(1 - kept, 3)


def _build(net: Any, rules: Any, plan: Any) -> Any:
    from autocompress.compress.pipeline import apply_plan
    from autocompress.compress.prune import PruningPolicy

    policy = PruningPolicy(**rules.pruning.model_dump())
    inputs, profile = net.prepared.example_inputs, net.profile
    return apply_plan(net.model, plan, profile.groups, inputs, policy, blocks=profile.blocks)


def _ship(record: Record, suite: ModuleType, net: Any, rule: dict[str, Any]) -> None:
    """Everything that applies together: one step of training, ONNX, packed file, its outputs."""
    from autocompress.evaluate.deploy import deploy
    from autocompress.export.load import load
    from autocompress.onnx_graph.session import make_session
    from autocompress.packing.packed import read_packed, write_packed
    from autocompress.runtime.onnxruntime import predict

    rules = suite.SpaceRules.model_validate(
        {"pruning": {"round_to": 1}, "rules": [rule or _RULES["quantize"]]}
    )
    built, _ = suite.build(net, rules) if rule else (None, "")
    plan = suite.strongest(built) if built else suite.CompressionPlan()
    candidate = record.step("train", lambda: suite.make_candidate(net, rules, plan))
    if candidate is None:
        return
    model, inputs = candidate.model.eval(), net.prepared.example_inputs
    with torch.no_grad():
        expected = model(*inputs).numpy()
    arrays = tuple(x.numpy() for x in inputs)

    def export() -> Any:
        graph = deploy(model, net.prepared).graph
        if graph.unmatched:  # as the measurement of a trial says; not a failure
            record.say("export", f"ships as exported: {', '.join(graph.unmatched)}")
        return graph

    exported = record.step("export", export)
    if exported is None:
        return
    metadata = {"plan": plan.to_json()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.acz"
        size = record.step(
            "pack", lambda: write_packed(path, exported.model, exported.quantized, metadata)
        )
        if size is None:
            return
        record.row["packed_bytes"] = size

        def match() -> float:
            graph = read_packed(path).graph
            shipped, direct = (
                predict(make_session(g, threads=1), arrays, len(arrays[0]))
                for g in (graph, exported.model)
            )
            if not np.array_equal(shipped, direct):
                raise _UnmetError(
                    "the unpacked file computes something else than the exported graph"
                )
            difference = float(np.abs(shipped - expected).max() / (np.abs(expected).max() + 1e-3))
            record.row["difference"] = f"{difference:.1e}"
            if not difference <= _TOLERANCE:
                # Rounding scales and biases to float16 can be felt in deep nets. The file's own
                # values in PyTorch must agree with it to 1e-3, or `load` refuses it.
                load(path, net.model, inputs)
            return difference

        record.step("match", match)


def _describe(record: Record, net: Any) -> None:
    profile = net.profile
    record.row["n_layers"] = len(profile.layers)
    record.row["n_groups"] = len(profile.groups)
    record.row["n_refused_groups"] = len(profile.refused_groups)
    record.row["n_blocks"] = len(profile.blocks)


def _suite() -> ModuleType:
    """The conformance suite of the tests, loaded by path as `scripts/conformance_table.py` does."""
    path = _ROOT / "tests" / "conformance" / "suite.py"
    spec = importlib.util.spec_from_file_location("conformance_suite", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _reset_peak_mb() -> float:
    """Forget the peak so far; returns what the process holds now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_mb()


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) / 1024
