"""The two nets, and evaluations of them that are kept: equal plans are trained once per seed."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path

from autocompress.errors import TrialError
from autocompress.evaluate.sensitivity import OptionCache, measure_options
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan
from autocompress.space.option_table import Figures, OptionTable
from autocompress.study.session import Session, open_session
from autocompress.tasks.factory import load_task

_SPACE = Path(__file__).parent / "space.yaml"
_CIFAR = Path(__file__).parents[2] / "examples" / "02_cifar10_resnet20.py"


def open_net(name: str, data: Path | None, epochs: float | None = None) -> Session:
    """`digits`, or `cifar`: a ResNet-20 on CIFAR-10; `space.yaml`, one thread, no latency."""
    settings = EvaluationSettings(threads=1, has_latency=False, proxy_epochs=epochs)
    task = (
        load_task("digits", {}) if name == "digits" else load_task(str(_CIFAR), {"data": str(data)})
    )
    return open_session(task, str(_SPACE), settings)


class Lab:
    """Measures plans of one net, and remembers what they took.

    Args:
        net: `digits` or `cifar`.
        data: Folder with CIFAR-10 and its weights.
        work: Where results are kept: JSON lines, appended to.
        epochs: Length of the fine-tune; None takes the task's.
    """

    def __init__(self, net: str, data: Path | None, work: Path, epochs: float | None) -> None:
        self.session = open_net(net, data, epochs)
        self.space = self.session.built.space
        self.n_shortlisted = self.session.n_shortlisted
        self._recipe = f"{self.session.evaluator.recipe.epochs:g}"
        self._folder = work / net
        self._folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, dict] = {}
        for file in sorted(self._folder.glob("evaluations*.jsonl")):
            for line in file.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):  # torn when a run was killed
                    record = json.loads(line)
                    self._known[record["key"]] = record

    def evaluate(self, plan: CompressionPlan, seed: int, fidelity: int = 1) -> Measurement:
        """Build, tune and measure; `seconds` are CPU seconds of the first time."""
        recipe = self._recipe if fidelity else "0"
        key = f"tuned:{recipe}:{seed}:{plan.effective.digest}"
        if key not in self._known:
            start = time.process_time()
            result = self.session.evaluator.evaluate(plan, seed=seed, fidelity=fidelity)
            spent = time.process_time() - start
            result = dataclasses.replace(result, seconds=spent)
            self._remember(key, result.to_json(), plan)
        return Measurement.from_json(self._known[key]["value"])

    def table(self) -> OptionTable:
        """The sensitivity table, with its CPU seconds; what is missing of it is measured."""

        spent = self._folder / "options_seconds.jsonl"

        def probe(plan: CompressionPlan) -> Figures:
            start = time.process_time()
            try:
                return self.session.evaluator.probe(plan, has_size=True)
            finally:
                with spent.open("a") as file:
                    file.write(json.dumps(time.process_time() - start) + "\n")

        cache = OptionCache(f"{self.session.prepared.task.name}", self._folder / "options.jsonl")
        table = measure_options(self.space, probe, cache)
        return dataclasses.replace(table, seconds=sum(map(json.loads, spent.open())))

    def probe(self, plan: CompressionPlan) -> tuple[Figures | None, float]:
        """Look at a plan without training; figures (None if it failed) and CPU seconds."""
        key = f"probe:{plan.effective.digest}"
        if key not in self._known:
            start = time.process_time()
            try:
                figures = self.session.evaluator.probe(plan, has_size=True).to_json()
            except TrialError:
                figures = None
            looked = {"figures": figures, "seconds": time.process_time() - start}
            self._remember(key, looked, plan)
        value = self._known[key]["value"]
        figures = value["figures"] and Figures.from_json(value["figures"])
        return figures, value["seconds"]

    def tuned(self) -> list[tuple[CompressionPlan, Measurement]]:
        """Every tuned evaluation with this lab's recipe, whatever its seed."""
        prefix = f"tuned:{self._recipe}:"
        return [
            (CompressionPlan.from_json(record["plan"]), Measurement.from_json(record["value"]))
            for key, record in self._known.items()
            if key.startswith(prefix) and record["value"]["untuned_divergence"] is not None
        ]

    def recorded(self) -> dict[str, dict]:
        """Everything measured so far, by key."""
        return {key: record["value"] for key, record in self._known.items()}

    def _remember(self, key: str, value: Mapping[str, object], plan: CompressionPlan) -> None:
        record = {"key": key, "value": value, "plan": plan.to_json()}
        self._known[key] = record
        with (self._folder / "evaluations.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
