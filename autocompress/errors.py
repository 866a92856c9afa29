"""What can go wrong, as a small tree. Every error says what must hold, what came, and what to do.

AutocompressError            exit 1
├── InputError               exit 2   a file, option, task, space or plan that cannot be used
├── StudyMismatchError       exit 3   the run folder was made for another model or space
├── NoPointError             exit 4   no measured point satisfies what was asked
├── AllTrialsFailedError     exit 5   trial after trial failed for the same reason
├── BrokenPromiseError       exit 10+ a bundle is not what its manifest says; see `cli/verify.py`
├── TrialError               exit 1   one candidate cannot be built, trained or measured
└── RunLockedError           exit 75  another process drives this run
"""

import difflib
import re
from collections.abc import Iterable


class AutocompressError(Exception):
    """Base of all errors this package raises on purpose.

    Args:
        message: What must hold and what came, in one line.
        hint: What the user can do about it, in one line; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InputError(AutocompressError):
    """Something the user gave cannot be used: an option, a file, a task, a space or a plan."""

    exit_code = 2


class StudyMismatchError(AutocompressError):
    """A run folder exists, but for another model, data set, search space, seed or format."""

    exit_code = 3


class NoPointError(AutocompressError):
    """No measured point satisfies what was asked."""

    exit_code = 4


class AllTrialsFailedError(AutocompressError):
    """Several trials in a row failed for the same reason, so the search stopped."""

    exit_code = 5


class TrialError(AutocompressError):
    """One candidate failed; the search goes on without it.

    Args:
        reason: A short stable word for grouping, such as `nonfinite_loss`, `timeout` or `export`.
        message: What happened, in one line.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.args = (reason, message)
        self.reason = reason


class BrokenPromiseError(AutocompressError):
    """A bundle is not what its manifest says.

    Args:
        message: What is broken, in one line.
        exit_code: Which promise it was; see `cli/verify.py`.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.args = (message, exit_code)
        self.exit_code = exit_code


class RunLockedError(AutocompressError):
    """Another process drives this run at the moment."""

    exit_code = 75


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """Build the error for a name that is not in a table: lists the choices, the closest first."""
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return InputError(f"Unknown {kind} {name!r}.", f"{guess}Choose from: {', '.join(known)}.")


# Control characters but tab and line feed; marks and line ends that turn or break what is read.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def printable(text: str) -> str:
    """A text that steers no terminal: escape sequences and the like are shown as what they are.

    Names come from models, run folders and files of others.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """A printable text without line breaks: a name that has some could forge a line of ours."""
    return printable(re.sub(r"[\r\n]+", " ", text))


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, for a message of one line.

    Its type's name where there is no word in it: a database driver whose connection has ended may
    say no more than brackets.

    >>> first_line(ValueError("no such file.")), first_line(ConnectionError(()))
    ('no such file', 'ConnectionError')
    """
    lines = str(error).strip().splitlines()
    if not lines or not any(letter.isalnum() for letter in lines[0]):
        return type(error).__name__
    return lines[0].rstrip(".")
