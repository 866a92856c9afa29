from pathlib import Path

import pytest

from autocompress.cli.search import print_result
from autocompress.run_record import TrialRecord
from tests.builders import make_measurement, make_run, make_trial


def trial(number: int, **changes: float) -> TrialRecord:
    return make_trial(number, make_measurement(**{"size_bytes": 2000, **changes}))


@pytest.mark.parametrize(
    ("trials", "hint"),
    [
        ((trial(0), trial(1, size_bytes=500, accuracy=0.895)), "'my runs/r' --max-drop 0.01"),
        ((trial(0), trial(1, size_bytes=500, accuracy=0.5)), "'my runs/r' --trial 1"),
        ((trial(0),), None),
    ],
)
def test_a_search_ends_with_a_command_that_works(
    trials: tuple[TrialRecord, ...], hint: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(*trials, folder=Path("my runs/r"))
    print_result(run, as_json=False)
    said = capsys.readouterr().err
    assert ("Export" in said) == (hint is not None)
    assert hint is None or f"autocompress export {hint}\n" in said
