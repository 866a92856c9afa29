"""What an executor is asked for by name, and what it cannot grant."""

from typing import Any

import pytest

from autocompress.errors import InputError
from autocompress.executors.registry import Resources, make_executor


@pytest.mark.parametrize(
    ("name", "wanted", "said"),
    [
        ("inline", {"jobs": 2}, "one trial at a time"),
        ("inline", {"memory_bytes": 10**9}, "one trial at a time"),
        ("local", {"ray_address": "127.0.0.1:6379"}, "goes with the executor 'ray'"),
        ("ray", {"ray_address": "10.0.0.5:6379"}, "must have token authentication"),
        ("cloud", {}, "Unknown executor 'cloud'."),
    ],
)
def test_what_an_executor_cannot_grant_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, wanted: dict[str, Any], said: str
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    nobody: Any = None  # nothing is evaluated
    with pytest.raises(InputError) as caught:
        make_executor(name, nobody, nobody, Resources(**wanted))
    assert said in caught.value.message
    assert "\n" not in caught.value.message
