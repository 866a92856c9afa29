"""Refined trials as part of a run that is read again."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from autocompress.errors import InputError
from autocompress.executors.job import EvaluationJob
from autocompress.measurement import Measurement
from autocompress.study.records import load_run
from autocompress.study.result_files import refined_weights_path, refinements_file
from autocompress.study.study import Study


def entry(number: int, digest: str, measured: Measurement | None) -> dict[str, object]:
    return {
        "key": f"{number:064x}",
        "trial": number,
        "plan_digest": digest,
        "recipe": {},
        "seed": 0,
        "epochs": [],
        "measurement": None if measured is None else measured.to_json(),
        "reason": None if measured else "nonfinite_loss: it became nan",
    }


@pytest.fixture
def study(
    open_study: Callable[..., Study], measure: Callable[[EvaluationJob], Measurement]
) -> Study:
    with open_study() as study:
        for number, bits in enumerate((0, 3, 4)):
            levels = {knob.name: 0 for knob in study.space.knobs} | {"weight_bits:body": bits}
            role = "search" if number else "baseline"
            job = study.add(levels, role, f"trial {number}", 1)
            plan = study.space.decode(levels)
            study.complete(
                job, measure(EvaluationJob(plan=plan, seed=1, fidelity=1, keep=Path("none")))
            )
    return study


def test_load_run_reads_refined_trials_beside_the_front(study: Study) -> None:
    before = load_run(study.folder)
    assert before.refined == ()
    trial = before.trials[2]
    assert trial.measurement is not None
    measured = dataclasses.replace(trial.measurement, fidelity=2, accuracy=0.999, size_bytes=1)
    entries = [entry(1, before.trials[1].plan.digest, None), entry(2, trial.plan.digest, measured)]
    refinements_file(study.folder).write({str(e["key"]): e for e in entries})

    run = load_run(study.folder)
    assert run.refined == (
        dataclasses.replace(trial, label="trial 2, refined", measurement=measured),
    )
    assert run.front() == before.front()  # of one fidelity
    assert run.hypervolume(run.front()) == before.hypervolume(before.front())


def test_load_run_refuses_damaged_refinements(study: Study) -> None:
    refinements_file(study.folder).path.write_text("{")
    with pytest.raises(InputError, match=r"refinements\.json cannot be read"):
        load_run(study.folder)


def test_refined_weights_are_those_of_the_refinement_that_was_measured(study: Study) -> None:
    assert refined_weights_path(study.folder, 2) is None
    trial = load_run(study.folder).trials[2]
    entries = [entry(2, trial.plan.digest, None), entry(2, trial.plan.digest, trial.measurement)]
    keys = ("f" * 64, "0123456789abcdef")
    refinements_file(study.folder).write(
        {key: {**e, "key": key} for key, e in zip(keys, entries, strict=True)}
    )
    expected = study.folder / "refined" / "trial_00002-01234567.safetensors"
    assert refined_weights_path(study.folder, 2) == expected
