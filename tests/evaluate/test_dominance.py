"""The dominance stop speaks only where evidence does."""

import pytest

from autocompress.evaluate.dominance import HopelessError, Rival, Rivals
from autocompress.space.sensitivity_table import Figures

SMALL = Rival(label="trial 3", accuracy=0.9, size_bytes=1000, latency_ratio=0.5)
# what started as far away or farther came out at 0.8 at best
HISTORY = tuple((1.0 + i / 10, 0.8 - i / 100) for i in range(6))


def _rivals(**changes) -> Rivals:
    return Rivals(**{"front": (SMALL,), "history": HISTORY, "has_latency": False, **changes})


def _candidate(divergence: float = 1.0, size_bytes: int = 2000, **changes) -> Figures:
    return Figures(divergence=divergence, size_bytes=size_bytes, **changes)


def test_hopeless_candidate_is_stopped_with_the_evidence():
    with pytest.raises(HopelessError) as caught:
        _rivals().check(_candidate())
    assert caught.value.figures == _candidate()
    assert caught.value.message == (
        "Not tuned: 2,000 bytes, divergence 1 untuned; the best of 6 trials that started no better "
        "reached 80.00 %, and trial 3 has 90.00 % at 1,000 bytes."
    )


@pytest.mark.parametrize(
    ("what", "rivals", "candidate"),
    [
        ("smaller than every rival", _rivals(), _candidate(size_bytes=999)),
        ("one witness short", _rivals(history=HISTORY[:5]), _candidate()),
        ("starts better than a witness", _rivals(), _candidate(divergence=1.05)),
        ("a witness came out well", _rivals(history=(*HISTORY, (2.0, 0.95))), _candidate()),
        ("as good as the rival", _rivals(history=(*HISTORY, (2.0, 0.9))), _candidate()),
        ("no rival at all", _rivals(front=()), _candidate()),
        (
            "faster than the rival",
            _rivals(has_latency=True),
            _candidate(latency_ratio=0.4),
        ),
        (
            "rival without latency",
            _rivals(
                front=(Rival(label="r", accuracy=0.9, size_bytes=1, latency_ratio=None),),
                has_latency=True,
            ),
            _candidate(latency_ratio=0.4),
        ),
    ],
)
def test_candidate_with_a_chance_goes_on(what: str, rivals: Rivals, candidate: Figures):
    rivals.check(candidate)


def test_slower_and_larger_is_stopped_where_latency_counts():
    with pytest.raises(HopelessError):
        _rivals(has_latency=True).check(_candidate(latency_ratio=0.6))


@pytest.mark.parametrize(
    ("changes", "size_bytes", "depends"),
    [
        ({"has_latency": True}, 2000, True),
        ({"has_latency": True}, 500, False),  # nothing is smaller, however fast it is
        ({"has_latency": True, "history": HISTORY[:5]}, 2000, False),
        ({"has_latency": False}, 2000, False),
    ],
)
def test_only_what_could_be_hopeless_has_to_be_timed(changes, size_bytes: int, depends: bool):
    assert _rivals(**changes).depends_on_latency(_candidate(size_bytes=size_bytes)) == depends


def test_a_file_that_tuning_may_shrink_below_the_rival_goes_on():
    _rivals().check(_candidate(size_bytes=1015))
    with pytest.raises(HopelessError):
        _rivals().check(_candidate(size_bytes=1025))
