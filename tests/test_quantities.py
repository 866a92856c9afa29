import doctest
from collections.abc import Callable

import pytest

from autocompress import quantities
from autocompress.errors import InputError
from autocompress.quantities import (
    BYTES,
    MILLISECONDS,
    format_ms,
    format_size,
    parse_bytes,
    parse_drop,
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
        (parse_drop, "1%", 0.01),
        (parse_drop, "0.3", 0.3),
        (parse_drop, "100 pt", 1.0),
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
        (parse_drop, "1", "below 1 or have a unit"),
        (parse_drop, "1.0", "below 1 or have a unit"),
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


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.00 MB")],
)
def test_format_size_changes_unit_where_the_number_would_round_up(
    size_bytes: int, text: str
) -> None:
    assert format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0.0, "0"),
        (0.0009996, "0.00100"),
        (0.9996, "1.00"),
        (9.9994, "9.999"),
        (9.9996, "10.00"),
        (12345.6, "12346"),
    ],
)
def test_format_ms_keeps_its_figures_where_the_number_rounds_up(
    milliseconds: float, text: str
) -> None:
    assert format_ms(milliseconds) == text


def test_quantities_examples_are_right() -> None:
    results = doctest.testmod(quantities)
    assert results.attempted >= 6
    assert results.failed == 0


@pytest.mark.parametrize(
    ("largest", "unit"),
    [(0.0, (1.0, "bytes")), (9_999, (1.0, "bytes")), (10_000, (1e3, "kB")), (1e15, (1e9, "GB"))],
)
def test_axis_unit_leaves_at_most_five_digits(largest: float, unit: tuple[float, str]) -> None:
    assert BYTES.axis_unit(largest) == unit
    assert MILLISECONDS.axis_unit(largest) == (1.0, "ms")


def test_quantities_write_figures_with_and_without_their_unit() -> None:
    assert (BYTES.write(1234), BYTES.write_number(1234), BYTES.write_number(1234, 1e3)) == (
        *("1.2 kB", "1234", "1.2"),
    )
    assert (MILLISECONDS.write(0.25), MILLISECONDS.write_number(0.25)) == ("0.250 ms", "0.250")
    assert (BYTES.write_rounded(1234), MILLISECONDS.write_rounded(0.25)) == ("1.2 kB", "0.25 ms")
