"""What looking at one contract found."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from autocompress.tasks.user_code import Place

Status = Literal["pass", "warn", "fail", "skip"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How one contract stands.

    Attributes:
        status: `fail` must be fixed before a search; `skip` could not be checked.
        message: What holds, or what does not, in one line; names the user's file and line where
            their code is at fault.
        fix: What to do about it; empty if nothing.
        facts: What was measured, as JSON; estimates are named `est_...`.
    """

    status: Status
    message: str
    fix: str = ""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Blocked(Exception):  # noqa: N818 - it is no error: somebody else has told it already
    """A contract needs something that an earlier one found missing."""


def passed(message: str, **facts: Any) -> Finding:
    """It holds."""
    return Finding(status="pass", message=message, facts=facts)


def warned(message: str, fix: str, place: Place | None = None, **facts: Any) -> Finding:
    """It holds as far as it must, and the user should know."""
    return Finding(status="warn", message=_at(message, place), fix=fix, facts=facts)


def failed(message: str, fix: str, place: Place | None = None, **facts: Any) -> Finding:
    """It does not hold."""
    return Finding(status="fail", message=_at(message, place), fix=fix, facts=facts)


def skipped(message: str) -> Finding:
    """It cannot be told."""
    return Finding(status="skip", message=message)


def _at(message: str, place: Place | None) -> str:
    if place is None or str(place) in message:
        return message
    return f"{message.rstrip('.')} ({place})."
