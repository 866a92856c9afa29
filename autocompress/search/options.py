"""The option table of a session: what its figures depend on, and who measures them."""

import dataclasses
from typing import Any

import torch

from autocompress.analysis.fingerprint import model_fingerprint
from autocompress.evaluate.option_cache import OptionCache, ProbePlan
from autocompress.evaluate.sensitivity import options_key
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.runtime.table import find_runtime, versions_of
from autocompress.search.environment import processor_name
from autocompress.search.executors.job import Executor, ProbeJob
from autocompress.search.session import Session, data_fingerprints


def option_cache(session: Session, *, has_latency: bool) -> OptionCache:
    """The cache of the figures that `probe_with` measures for a session.

    Args:
        session: Task, evaluator and space.
        has_latency: Whether plans are timed.
    """
    evaluator, task = session.evaluator, session.prepared.task
    settings, recipe, device = evaluator.settings, evaluator.recipe, evaluator.device
    is_cuda = device.type == "cuda"
    accelerator = {"accelerator": torch.cuda.get_device_name(device)} if is_cuda else {}
    key = options_key(
        model=model_fingerprint(evaluator.model),
        data={
            **data_fingerprints(session.prepared),
            "probe": evaluator.probe_fingerprint(),
        },
        policy=dataclasses.asdict(settings.policy),
        recipe={
            "rounding": recipe.rounding,
            "rewind": recipe.rewind,
            "distill": task.distill,
            "integer": settings.integer,
        },
        has_size=True,
        has_latency=has_latency,
        threads=settings.threads,
        runtime=_runtime(settings),
        machine={"processor": processor_name(), "device": device.type, **accelerator},
    )
    return OptionCache(key)


def _runtime(settings: EvaluationSettings) -> dict[str, Any]:
    """What the latency of a plan depends on, besides the plan and the machine."""
    return {
        "versions": versions_of(find_runtime(settings.runtime)),
        "name": settings.runtime,
        "threads": settings.runtime_threads,
        "batch": settings.runtime_batch,
        "shapes": settings.input_shapes,
    }


def probe_with(executor: Executor, *, has_latency: bool) -> ProbePlan:
    """Measures plans for the option table: divergence and size, and latency if wanted."""
    return lambda plan: executor.probe(ProbeJob(plan=plan, has_size=True, has_latency=has_latency))
