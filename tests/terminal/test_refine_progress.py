import pytest

from autocompress.runs.refine.training import Epoch
from autocompress.terminal.refine_progress import RefineProgress
from tests.builders import make_measurement, make_trial

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
