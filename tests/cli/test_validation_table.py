import dataclasses
from typing import Any

import pytest
from rich.console import Console

from autocompress.cli.validation_table import agreement_table, sentences, trials_table
from autocompress.measurement import Measurement
from autocompress.runs.validate.validation import Retraining, Validation
from tests.builders import make_measurement, make_trial


def measurement(accuracy: float, seconds: float, **changes: Any) -> Measurement:
    return make_measurement(
        **{"size_bytes": 1, "divergence": 0.1, **changes}, accuracy=accuracy, seconds=seconds
    )


def retraining(
    number: int, proxy: float, full: float | None, label: str = "trial {}", **changes: Any
) -> Retraining:
    return Retraining(
        trial=make_trial(number, measurement(proxy, 2.0, **changes), label=label.format(number)),
        full=None if full is None else measurement(full, 50.0, fidelity=2),
        reason=None if full is not None else "nonfinite_loss: The loss is NaN.",
    )


def validation(*retrainings: Retraining, **changes: Any) -> Validation:
    settings = {"run": "demo", "n_candidates": 9, "proxy_epochs": 0.5, "epochs": 10.0, "seed": 3}
    return Validation(**{**settings, **changes}, retrainings=retrainings)


FOUR = (
    retraining(1, 0.90, 0.91),
    retraining(2, 0.91, 0.93, label="uniform 4 bit [red]\x1b[31m"),
    retraining(3, 0.92, 0.92),
    retraining(4, 0.93, 0.94),
)


def printed(table: Any) -> str:
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_trials_table_shows_both_accuracies_and_places_best_first() -> None:
    text = printed(trials_table(validation(*FOUR, retraining(5, 0.94, None))))
    assert max(map(len, text.splitlines())) <= 80
    rows = [" ".join(line.split()) for line in text.splitlines() if "%" in line]
    assert rows[0] == "4 trial 4 93.00 % 94.00 % +1.00 pt 1 1 2.0 / 50.0"
    assert rows[1].startswith("2 uniform 4")
    assert "93.00 % +2.00 pt 3 2" in rows[1]
    assert rows[-1] == "5 trial 5 94.00 % failed"
    assert "\x1b" not in text
    assert r"[red]\x1b" in text


def test_trials_table_gives_equal_candidates_equal_places() -> None:
    text = printed(trials_table(validation(retraining(1, 0.9, 0.9), retraining(2, 0.9, 0.9))))
    rows = [line.split() for line in text.splitlines() if "%" in line]
    assert [row[9:11] for row in rows] == [["1", "1"], ["1", "1"]]


def test_agreement_table_shows_each_statistic_with_its_uncertainty() -> None:
    text = printed(agreement_table(validation(*FOUR)))
    assert max(map(len, text.splitlines())) <= 80
    rows = [" ".join(line.split()) for line in text.splitlines()]
    (kendall,) = [row for row in rows if row.startswith("all 4 Kendall's tau-b")]
    assert kendall.startswith("all 4 Kendall's tau-b 0.67 ")
    assert kendall.endswith("0.333")  # 8 of the 24 orders are as far from chance
    assert "best third 2 Spearman's rho - - -" in rows


def test_sentences_say_what_was_compared_and_what_the_proxy_gets_wrong() -> None:
    text = "\n".join(sentences(validation(*FOUR)))
    assert "4 of 9 candidates of demo" in text
    assert "for 10 epochs (20 times the proxy's 0.5), seed 3" in text
    assert "The best third is that of full training" in text
    assert (
        "Worst misranking: the proxy puts trial 3 before uniform 4 bit [red]\\x1b[31m (trial 2) "
        "(92.00% and 91.00%), but after full training it is 1.00 pt behind (92.00% and 93.00%)."
    ) in text
    assert "The proxy's first, trial 4, is the best after full training, 0.00 pt below" in text
    assert "the proxy took 1/25 of the time of full training" in text
    assert "latency" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (validation(*FOUR[:1], FOUR[2], FOUR[3]), "No two trials that differ in accuracy"),
        (validation(*FOUR, retraining(5, 0.8, None)), "1 could not be trained in full"),
        (validation(*FOUR, retraining(5, 0.8, None)), "nonfinite_loss: The loss is NaN."),
        (validation(*FOUR, proxy_epochs=0.0), "10 epochs (the proxy trains nothing)"),
        (validation(*FOUR, retraining(5, 0.95, 0.92)), "is number 3 of 5 after full training"),
        (validation(*FOUR, retraining(5, 0.8, 0.8, divergence=None)), "share a rank"),
        (
            validation(*FOUR, retraining(5, 0.8, 0.8, latency_ms=1.0)),
            "only the proxy's holds the timing of latency",
        ),
        (
            validation(*FOUR[:3], dataclasses.replace(FOUR[3], is_same_machine=False)),
            "not compared",
        ),
        (validation(retraining(5, 0.8, None)), "Fewer than 3 trials"),
    ],
)
def test_sentences_tell_special_cases(found: Validation, said: str) -> None:
    assert said in "\n".join(sentences(found))
