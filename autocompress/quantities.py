"""Sizes, times and drops as people type them: a number and its unit."""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from autocompress.errors import InputError

_QUANTITY: Final = re.compile(r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]{1,2})?)\s*([a-zµ%]*)", re.IGNORECASE)
# Unit in lower case -> its worth, exact: 1.005 kB are 1005 bytes. The empty unit is that of a plain
# number.
_BYTES: Final = {
    "": Fraction(1), "b": Fraction(1),
    "kb": Fraction(10**3), "mb": Fraction(10**6), "gb": Fraction(10**9),
    "kib": Fraction(2**10), "mib": Fraction(2**20), "gib": Fraction(2**30),
}  # fmt: skip
_MICRO: Final = Fraction(1, 1000)
_MILLISECONDS: Final = {
    "": Fraction(1), "ms": Fraction(1), "us": _MICRO, "µs": _MICRO, "s": Fraction(1000),
}  # fmt: skip
_SECONDS: Final = {
    "": Fraction(1), "s": Fraction(1), "m": Fraction(60), "min": Fraction(60), "h": Fraction(3600),
}  # fmt: skip
_SHARES: Final = {"": Fraction(1), "%": Fraction(1, 100), "pt": Fraction(1, 100)}


def parse_bytes(option: str, text: str) -> int:
    """Bytes, rounded down; a plain number is bytes.

    Args:
        option: Name of the option, for the error.
        text: What was typed.

    Raises:
        InputError: If it is no size.

    >>> parse_bytes("max_size", "100kB"), parse_bytes("max_size", "1.5 MiB")
    (100000, 1572864)
    """
    return int(_parse(option, text, _BYTES, "a size in B, kB, MB, KiB or MiB", "100kB"))


def parse_milliseconds(option: str, text: str) -> float:
    """Milliseconds; a plain number is milliseconds.

    Raises:
        InputError: If it is no time.

    >>> parse_milliseconds("max_latency", "250us"), parse_milliseconds("max_latency", "2")
    (0.25, 2.0)
    """
    return float(_parse(option, text, _MILLISECONDS, "a time in us, ms or s", "2ms"))


def parse_seconds(option: str, text: str) -> float:
    """Seconds; a plain number is seconds.

    Raises:
        InputError: If it is no time.

    >>> parse_seconds("timeout", "1.5h")
    5400.0
    """
    return float(_parse(option, text, _SECONDS, "a time in s, m or h", "2h"))


def parse_share(option: str, text: str) -> float:
    """A share of 1; `%` and `pt` are hundredths, and points of accuracy are what a drop is in.

    Raises:
        InputError: If it is no share in [0, 1].

    >>> parse_share("max_drop", "1%"), parse_share("max_drop", "0.01")
    (0.01, 0.01)
    """
    what = "a share in [0, 1], or points as 1% or 1pt"
    share = _parse(option, text, _SHARES, what, "0.01")
    if share > 1:
        raise _refusal(option, text, what, "0.01")
    return float(share)


def _parse(
    option: str, text: str, units: Mapping[str, Fraction], what: str, example: str
) -> Fraction:
    found = _QUANTITY.fullmatch(text.strip())
    unit = None if found is None else units.get(found[2].lower())
    if found is None or unit is None:
        raise _refusal(option, text, what, example)
    return Fraction(found[1]) * unit


def _refusal(option: str, text: str, what: str, example: str) -> InputError:
    return InputError(
        f"`{option}` must be {what}, but got {str(text)!r}.",
        f"For example: `{option}={example}`.",
    )
