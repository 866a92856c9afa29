from collections.abc import Callable

import pytest

from autocompress.errors import InputError
from autocompress.quantities import (
    parse_bytes,
    parse_milliseconds,
    parse_seconds,
    parse_share,
)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_bytes, "812", 812),
        (parse_bytes, "812B", 812),
        (parse_bytes, "100kB", 100_000),
        (parse_bytes, " 100 KB ", 100_000),
        (parse_bytes, "1.005kB", 1005),
        (parse_bytes, "64KiB", 65_536),
        (parse_bytes, "1.5 MB", 1_500_000),
        (parse_bytes, "0.5MiB", 524_288),
        (parse_bytes, "1e3kB", 1_000_000),
        (parse_bytes, "0.9", 0),
        (parse_milliseconds, "2", 2.0),
        (parse_milliseconds, "2ms", 2.0),
        (parse_milliseconds, "250us", 0.25),
        (parse_milliseconds, "250 µs", 0.25),
        (parse_milliseconds, ".5s", 500.0),
        (parse_seconds, "90", 90.0),
        (parse_seconds, "90s", 90.0),
        (parse_seconds, "1.5m", 90.0),
        (parse_seconds, "2h", 7200.0),
        (parse_share, "0.01", 0.01),
        (parse_share, "1", 1.0),
        (parse_share, "7%", 0.07),
        (parse_share, "0.5 pt", 0.005),
        (parse_share, "100%", 1.0),
    ],
)
def test_parse_reads_a_number_and_its_unit(
    parse: Callable[[str, str], float], text: str, value: float
) -> None:
    assert parse("option", text) == value


@pytest.mark.parametrize(
    ("parse", "text", "what"),
    [
        (parse_bytes, "ten", "a size in B, kB, MB, KiB or MiB"),
        (parse_bytes, "-5kB", "a size in"),
        (parse_bytes, "10kg", "a size in"),
        (parse_bytes, "1kB 2kB", "a size in"),
        (parse_bytes, "", "a size in"),
        (parse_bytes, "1e400", "a size in"),
        (parse_bytes, "nan", "a size in"),
        (parse_milliseconds, "2m", "a time in us, ms or s"),
        (parse_seconds, "1h30m", "a time in s, m or h"),
        (parse_seconds, "inf", "a time in s, m or h"),
        (parse_share, "2", "a share in [0, 1], or points as 1% or 1pt"),
        (parse_share, "101%", "a share in"),
        (parse_share, "-1%", "a share in"),
    ],
)
def test_parse_refuses_what_is_no_quantity(
    parse: Callable[[str, str], float], text: str, what: str
) -> None:
    with pytest.raises(InputError) as caught:
        parse("option", text)
    assert f"`option` must be {what}" in caught.value.message
    assert f"but got {text!r}" in caught.value.message
    assert caught.value.hint.startswith("For example: `option=")
