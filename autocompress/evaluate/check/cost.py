"""The contract of time: what a trial costs, estimated from a short slice of one."""

import copy
import dataclasses
import itertools
import statistics
import time
from typing import Final

from autocompress.evaluate.check.finding import Finding, passed, warned
from autocompress.evaluate.check.subject import Subject
from autocompress.train.loop import finetune_, steps_of
from autocompress.train.precision import to_fast_layout_
from autocompress.train.teachers import make_teacher

_BATCHES: Final = 4
_LONG_S: Final = 8 * 3600.0


def takes(subject: Subject) -> Finding:
    """How long a trial and the whole search will take, from a few measured steps."""
    subject.needs("loss", "val")
    outputs, shipment = subject.val_outputs, subject.shipment
    assert len(outputs)
    meter, has_latency = subject.evaluator.meter, subject.settings.has_latency
    if has_latency:  # anew: a search times every new structure
        subject.timed("latency", lambda: meter.latency(shipment, fresh=True))
    n_steps = steps_of(subject.evaluator.recipe, subject.prepared)
    step_s = _step_seconds(subject)
    others_s = sum(subject.seconds.get(name, 0.0) for name in ("val", "export", "pack", "latency"))
    trial_s = n_steps * step_s + others_s
    search_s = trial_s * subject.n_trials
    facts = {"est_trial_s": trial_s, "est_search_s": search_s, "n_steps": n_steps, "step_s": step_s}
    steps = "1 step" if n_steps == 1 else f"{n_steps:,} steps"
    said = (
        f"about {_words(trial_s)} a trial ({steps} of {1000 * step_s:.1f} ms, and "
        f"{others_s:.1f} s to score, export and time); about {_words(search_s)} for "
        f"{subject.n_trials} trials, the option table not counted"
    )
    if search_s > _LONG_S:
        return warned(
            f"{said}.",
            "--proxy quick, fewer Task.proxy_epochs, a smaller --budget or more --jobs shorten it.",
            subject.place("proxy_epochs"),
            **facts,
        )
    return passed(said, **facts)


def _step_seconds(subject: Subject) -> float:
    """Seconds of one training step: the median of a few, the first left out."""
    evaluator, prepared = subject.evaluator, subject.prepared
    recipe = dataclasses.replace(evaluator.recipe, epochs=1.0)
    few = slice(0, _BATCHES * recipe.batch_size)
    prepared = dataclasses.replace(prepared, train=prepared.train.subset(few), unlabelled=None)
    device, precision = evaluator.device, evaluator.precision
    teacher = make_teacher(prepared, evaluator.model, recipe, device=device, precision=precision)
    model = to_fast_layout_(copy.deepcopy(evaluator.model), device)
    ends = [time.perf_counter()]
    finetune_(
        model,
        prepared,
        teacher,
        recipe,
        seed=0,
        device=device,
        precision=precision,
        on_step=lambda step, n_steps: ends.append(time.perf_counter()),
    )
    steps = [end - start for start, end in itertools.pairwise(ends)]
    return statistics.median(steps[1:] or steps)


def _words(seconds: float) -> str:
    if seconds >= 5400.0:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90.0 else f"{seconds:.1f} s"
