"""How well brief fine-tuning ranks candidates: 24 plans in full, and with each proxy."""

import dataclasses
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from autocompress.evaluate.evaluator import Evaluator
from autocompress.space.search_space import SearchSpace
from quality.nets import Lab, open_net

N_PLANS = 24
FULL_EPOCHS = 2.0
PROXY_EPOCHS = (0.025, 0.05, 0.1)


def spread_levels(space: SearchSpace, n_plans: int, seed: int) -> list[dict[str, int]]:
    """Plans from nearly the original to nearly the smallest, each drawn around its share.

    Bits are drawn around the share of their range, pruning and ranks are touched the more often
    the farther the plan goes. A search concentrates on better plans, so ranks over all of these
    are easier to get right than those it needs: see the best third.
    """
    chance = random.Random(seed)
    plans = []
    for i in range(n_plans):
        share = (i + 0.5) / n_plans
        levels = {}
        for knob in space.knobs:
            last = len(knob.levels) - 1
            if knob.kind == "weight_bits":
                drawn = round(share * last + chance.gauss(0.0, 0.8))
            elif knob.kind == "activation_bits":
                drawn = chance.randint(0, last)
            else:
                drawn = chance.randint(1, last) if chance.random() < 0.4 * share else 0
            levels[knob.name] = min(max(drawn, 0), last)
        plans.append(levels)
    return plans


def measure_full(data: Path, work: Path) -> None:
    """Train every plan of the spread sample in full; several processes may share the work."""
    session = open_net("cifar", data, FULL_EPOCHS)
    plans = spread_levels(session.built.space, N_PLANS, seed=0)
    order = random.Random(1).sample(range(N_PLANS), N_PLANS)  # a part of it is a spread, too
    for name in _unclaimed(work / "full", [f"plan{i:02d}" for i in order]):
        levels = plans[int(name[4:])]
        record = _evaluate(session.evaluator, session.built.space, levels, seed=1)
        (work / "full" / f"{name}.json").write_text(json.dumps(record))
        print(name, record["accuracy"], record["size_bytes"], round(record["cpu_s"]), flush=True)


def measure_proxies(data: Path, work: Path) -> None:
    """Measure the plans that are trained in full with every proxy."""
    for epochs in PROXY_EPOCHS:
        lab = Lab("cifar", data, work, epochs)
        plans = spread_levels(lab.space, N_PLANS, seed=0)
        for i, levels in enumerate(plans):
            plan = lab.space.decode(levels)
            if epochs == PROXY_EPOCHS[0]:
                lab.evaluate(plan, 0, fidelity=0)
            result = lab.evaluate(plan, 0)
            print(epochs, i, result.accuracy, round(result.seconds), flush=True)


def _unclaimed(folder: Path, names: list[str]) -> Iterator[str]:
    """Names that are not measured and not being measured, claimed one by one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        claim = folder / f"{name}.claim"
        if (folder / f"{name}.json").exists():
            continue
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        try:
            yield name
        finally:
            claim.unlink()


def _evaluate(evaluator: Evaluator, space: SearchSpace, levels: dict[str, int], seed: int) -> dict:
    start = time.process_time()
    result = evaluator.evaluate(space.decode(levels), seed=seed)
    spent = time.process_time() - start
    return {"levels": levels, "cpu_s": spent, **dataclasses.asdict(result)}
