import pytest

from autocompress.runs.refine.training import Epoch
from autocompress.search_options import SearchOptions
from autocompress.terminal import refine_progress
from autocompress.terminal.refine_progress import RefineProgress, n_affordable, refine_as_asked
from tests.builders import make_measurement, make_run, make_trial

TRIAL = make_trial(7, make_measurement(size_bytes=2000), label="trial [7]")


def epoch(number: int, seconds: float, bits: float | None = 1.875) -> Epoch:
    return Epoch(
        number=number,
        n_epochs=10,
        accuracy=0.91,
        loss=0.1,
        est_code_bits=bits,
        is_final=True,
        seconds=seconds,
    )


@pytest.fixture
def progress(capsys: pytest.CaptureFixture[str]) -> RefineProgress:
    progress = RefineProgress(quiet=False)
    progress.listener.on_start(TRIAL)
    assert capsys.readouterr().err == "trial [7]: 90.00% by the proxy, 2,000 bytes\n"
    return progress


def said(progress: RefineProgress, capsys: pytest.CaptureFixture[str], of: Epoch) -> str:
    progress.listener.on_epoch(of)
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("trial [7]: ")


def test_refine_progress_tells_epochs_bits_and_the_time_left(
    progress: RefineProgress, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.listener.on_stage("refine", 0.5)
    line = said(progress, capsys, epoch(1, 10.0))
    assert line == "epoch 1 of 10: 91.00%, about 1.88 bit/weight, about 2 min left"
    # the first epoch comes with building; those after it say how long one takes
    assert said(progress, capsys, epoch(2, 12.0)).endswith(", about 16 s left")
    assert said(progress, capsys, epoch(4, 18.0)).endswith(", about 16 s left")
    assert said(progress, capsys, epoch(10, 30.0, bits=None)) == "epoch 10 of 10: 91.00%"


def test_refine_progress_of_a_training_taken_up_again_counts_its_own_epochs(
    progress: RefineProgress, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(progress, capsys, epoch(5, 50.0)).endswith(", about 50 s left")
    assert said(progress, capsys, epoch(6, 52.0)).endswith(", about 8 s left")


def test_refine_progress_tells_the_outcome(
    progress: RefineProgress, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.listener.on_finish(
        TRIAL, make_measurement(accuracy=0.925, size_bytes=1500, seconds=120.0), None
    )
    progress.listener.on_finish(TRIAL, None, "nonfinite_loss: it became nan")
    assert capsys.readouterr().err.splitlines() == [
        "trial [7], refined: 92.50%, 1,500 bytes, 2 min",
        "trial [7], refined: failed (nonfinite_loss: it became nan)",
    ]


def test_refine_progress_says_what_is_done_already(capsys: pytest.CaptureFixture[str]) -> None:
    progress = RefineProgress(quiet=False)
    progress.listener.on_begin((TRIAL,), (TRIAL,))
    assert capsys.readouterr().err == ""
    progress.listener.on_begin((), (TRIAL,))
    progress.listener.on_begin((TRIAL,), (TRIAL,) * 3)
    assert capsys.readouterr().err.splitlines() == [
        "1 of 1 trials is refined in this way already.",
        "2 of 3 trials are refined in this way already.",
    ]


def test_refine_progress_that_is_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = RefineProgress(quiet=True)
    with progress:
        progress.listener.on_start(TRIAL)
        progress.listener.on_epoch(epoch(1, 1.0))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("images_per_s", "seconds", "points"),
    [(None, 10.0, 3), (100.0, 14.0, 1), (100.0, 45.0, 3), (100.0, 1e6, 6)],
)
def test_as_many_points_are_refined_as_get_an_epoch_each(
    images_per_s: float | None, seconds: float, points: int
) -> None:
    """1,000 images at 100 a second, which refining makes half as slow again: 15 s an epoch."""
    trained = make_measurement(train_images_per_s=images_per_s)
    run = make_run(make_trial(1, trained), info={"splits": {"train": 1000}})
    assert n_affordable(run, seconds) == points


def test_time_that_the_search_left_is_shared_by_the_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(refine_progress, "refine_points", lambda run, **how: asked.append(how))
    monkeypatch.setattr("autocompress.study.records.load_run", lambda folder: "refined")
    run = make_run(make_trial(1, make_measurement(seconds=40.0)))
    options = SearchOptions.read({"time": 100.0, "refine": 2})
    assert refine_as_asked(run, options, quiet=True) == "refined"
    assert (asked[0]["top"], asked[0]["minutes"]) == (2, 0.5)
    over = make_run(make_trial(1, make_measurement(seconds=400.0)))
    assert refine_as_asked(over, options, quiet=True) is over
    assert refine_as_asked(run, SearchOptions(), quiet=True) is run
    assert len(asked) == 1
