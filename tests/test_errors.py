import pickle

import pytest

from autocompress.errors import (
    AllTrialsFailedError,
    AutocompressError,
    InputError,
    NoPointError,
    RunLockedError,
    StudyMismatchError,
    TrialError,
    first_line,
    unknown_name,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (AutocompressError, 1),
        (InputError, 2),
        (StudyMismatchError, 3),
        (NoPointError, 4),
        (AllTrialsFailedError, 5),
        (RunLockedError, 75),
    ],
)
def test_error_has_its_documented_exit_code(kind, code):
    assert kind("message").exit_code == code
    assert TrialError("timeout", "message").exit_code == 1


def test_error_text_joins_message_and_hint():
    error = InputError("`x` must be 1, but got 2.", "Set it to 1.")
    assert str(error) == "`x` must be 1, but got 2. Set it to 1."
    assert str(InputError("Only a message.")) == "Only a message."


@pytest.mark.parametrize(
    "error", [InputError("message", "hint"), TrialError("nonfinite_loss", "message")]
)
def test_error_survives_the_way_back_from_a_worker_process(error):
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error)
    assert vars(copied) == vars(error)


def test_unknown_name_guesses_the_closest_and_lists_all():
    error = unknown_name("sampler", "tbe", ["tpe", "nsga2"])
    assert error.message == "Unknown sampler 'tbe'."
    assert error.hint == "Did you mean 'tpe'? Choose from: nsga2, tpe."


def test_unknown_name_does_not_guess_when_nothing_is_close():
    assert unknown_name("sampler", "xyz", ["tpe"]).hint == "Choose from: tpe."


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first.\nsecond"), "first"),
        (ValueError(""), "ValueError"),
        (ValueError("\n\n  spaced"), "spaced"),
    ],
)
def test_first_line_is_one_line(error, line):
    assert first_line(error) == line
