from pathlib import Path

import pytest

from autocompress.errors import StudyMismatchError
from autocompress.study.identity import check_identity


def test_check_identity_takes_what_json_makes_of_it() -> None:
    check_identity(Path("s"), {"a": {"b": [1, 2]}, "c": None}, {"a": {"b": (1, 2)}, "c": None})


def test_check_identity_names_every_difference_then_and_now() -> None:
    with pytest.raises(StudyMismatchError) as caught:
        check_identity(
            Path("s"),
            {"limits": {"max_drop": 0.01}, "seed": 0, "without": []},
            {"limits": {"max_size_bytes": 5}, "seed": 0, "without": ["early_stopping"]},
        )
    for part in (
        "limits.max_drop: 0.01 then, null now",
        "limits.max_size_bytes: null then, 5 now",
        'without: [] then, ["early_stopping"] now',
    ):
        assert part in caught.value.message
    assert "seed" not in caught.value.message


def test_words_of_version_0_1_are_those_of_today() -> None:
    check_identity(
        "old",
        {"without": ["ladder", "table"]},
        {"without": ["early_stopping", "sensitivity_table"]},
    )
    with pytest.raises(StudyMismatchError):
        check_identity("old", {"without": ["ladder"]}, {"without": ["surrogate"]})


def test_settings_that_came_after_a_study_was_made_do_not_matter() -> None:
    stored = {"settings": {"threads": 1}, "recipe": {"epochs": 1.0}, "seed": 0}
    newer = {"settings": {"threads": 1, "seed": 4}, "recipe": {"epochs": 1.0, "new": 2}, "seed": 0}
    check_identity("old", stored, newer)
    with pytest.raises(StudyMismatchError, match="model: null then"):
        check_identity("old", stored, {**newer, "model": "m"})
    with pytest.raises(StudyMismatchError, match=r"settings.threads: 1 then, null now"):
        check_identity("old", stored, {**newer, "settings": {"seed": 4}})
