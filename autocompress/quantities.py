"""Sizes, times, counts and shares: how people read them and how they type them."""

import dataclasses
import re
from collections.abc import Callable, Mapping
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
_COUNTS: Final = {
    "": Fraction(1), "k": Fraction(10**3), "m": Fraction(10**6), "g": Fraction(10**9),
}  # fmt: skip


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


def parse_drop(option: str, text: str) -> float:
    """A loss of accuracy, as a share of 1: points as 1% or 1pt, or a number below 1.

    A bare 1 could be one point or all of them.

    Raises:
        InputError: If it is no loss, or could be either.

    >>> parse_drop("max_drop", "1pt"), parse_drop("max_drop", "0.01")
    (0.01, 0.01)
    """
    drop = parse_share(option, text)
    if drop == 1.0 and text.strip()[-1].isdigit():  # no unit
        raise InputError(
            f"`{option}` must be below 1 or have a unit, but got {text!r}: is it one point, or all "
            "the accuracy?",
            f"For example: `{option}=1%` or `{option}=0.01`, which are one point.",
        )
    return drop


def parse_count(option: str, text: str) -> int:
    """A count, rounded down; k, M and G are thousands, millions and billions.

    Raises:
        InputError: If it is no count.

    >>> parse_count("max_macs", "40.5M"), parse_count("max_macs", "812")
    (40500000, 812)
    """
    return int(_parse(option, text, _COUNTS, "a count, with k, M or G if it is large", "40M"))


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


def format_size(size_bytes: float) -> str:
    """Bytes with a decimal unit (1 kB = 1000 bytes) and three or four figures.

    >>> format_size(812), format_size(109_240), format_size(1_079_000)
    ('812 B', '109.2 kB', '1.08 MB')
    """
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    if size_bytes < 999_950:
        return f"{size_bytes / 1e3:.1f} kB"
    if size_bytes < 999_995_000:
        return f"{size_bytes / 1e6:.2f} MB"
    return f"{size_bytes / 1e9:.2f} GB"


def format_ms(milliseconds: float) -> str:
    """Milliseconds without their unit, with three figures below one and four above.

    >>> format_ms(0.00042), format_ms(0.7541), format_ms(9.84), format_ms(750_000.0)
    ('0.000420', '0.754', '9.840', '750000')
    """
    if milliseconds == 0:
        return "0"
    n_figures = 3 if milliseconds < 1 else 4
    exponent = int(f"{milliseconds:.{n_figures - 1}e}".split("e")[1])
    return f"{milliseconds:.{max(0, n_figures - 1 - exponent)}f}"


def format_latency(milliseconds: float) -> str:
    """Milliseconds as `format_ms` writes them, with their unit.

    >>> format_latency(0.7541)
    '0.754 ms'
    """
    return f"{format_ms(milliseconds)} ms"


def format_count(count: float) -> str:
    """A large count in short.

    >>> format_count(640), format_count(270_896), format_count(40_813_184)
    ('640', '270.9 k', '40.81 M')
    """
    if count < 1000:
        return f"{count:.0f}"
    if count < 999_950:
        return f"{count / 1e3:.1f} k"
    if count < 999_995_000:
        return f"{count / 1e6:.2f} M"
    return f"{count / 1e9:.2f} G"


def format_share(share: float, digits: int = 2) -> str:
    """A share in [0, 1] in percent.

    >>> format_share(0.9173)
    '91.73 %'
    """
    return f"{100 * share:.{digits}f} %"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """How the figures of one kind are written, drawn and typed.

    Attributes:
        unit: Unit in which they are stored; empty for a plain count.
        is_whole: Whether they are whole numbers, such as bytes.
        write: One of them with its unit, for people.
        parse: One of them from the name of an option and what was typed for it.
        least: What a limit on them must be, in words.
        axis_units: What an axis may count in: how many `unit` it is, and its name, smallest first.
    """

    unit: str
    is_whole: bool
    write: Callable[[float], str]
    parse: Callable[[str, str], float]
    least: str
    axis_units: tuple[tuple[float, str], ...]

    def axis_unit(self, largest: float) -> tuple[float, str]:
        """The unit in which the largest figure has at most five digits: how many `unit`, name."""
        for factor, unit in self.axis_units:
            if largest < 1e4 * factor:
                return factor, unit
        return self.axis_units[-1]

    def write_number(self, figure: float, factor: float = 1.0) -> str:
        """A figure without its unit, counted in an axis unit of `factor`."""
        if self.is_whole:
            return f"{figure / factor:.{int(factor > 1)}f}"
        return format_ms(figure / factor)

    def write_rounded(self, figure: float, digits: str = "g") -> str:
        """A figure with its unit and no more digits than a format such as `.3g` leaves."""
        return self.write(figure) if self.is_whole else f"{figure:{digits}} {self.unit}"


BYTES: Final = Quantity(
    unit="bytes",
    is_whole=True,
    write=format_size,
    parse=parse_bytes,
    least="at least 1 byte",
    axis_units=((1.0, "bytes"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB")),
)
MILLISECONDS: Final = Quantity(
    unit="ms",
    is_whole=False,
    write=format_latency,
    parse=parse_milliseconds,
    least="> 0 ms",
    axis_units=((1.0, "ms"),),
)
COUNT: Final = Quantity(
    unit="",
    is_whole=True,
    write=format_count,
    parse=parse_count,
    least="at least 1",
    axis_units=((1.0, ""), (1e3, "thousand"), (1e6, "million"), (1e9, "billion")),
)
SHARE: Final = Quantity(
    unit="share",
    is_whole=False,
    write=format_share,
    parse=parse_drop,
    least="in [0, 1]",
    axis_units=((1.0, "share"),),
)
