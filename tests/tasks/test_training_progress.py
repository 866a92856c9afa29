import io
import logging

import pytest

from autocompress.tasks import digits as module


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_training_progress_says_how_far_it_is_where_there_is_no_terminal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_LINES", 0.0)

    with (
        caplog.at_level(logging.INFO, "autocompress"),
        module.training_progress("a net", 4) as advance,
    ):
        for _ in range(4):
            advance()

    begun, *lines, ended = caplog.messages
    assert begun == "Training a net, once: 4 steps."
    assert ended == "Trained a net."
    assert [line.split(", about")[0] for line in lines] == [
        f"Training a net: {share} %" for share in (25, 50, 75)
    ]


def test_training_progress_is_quiet_between_lines(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "autocompress"),
        module.training_progress("a net", 400, "epochs") as advance,
    ):
        for _ in range(400):
            advance()

    assert caplog.messages == ["Training a net, once: 400 epochs.", "Trained a net."]


def test_training_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)

    with module.training_progress("a net", 2) as advance:
        advance()
        advance()

    assert "Training a net, once" in terminal.getvalue()
    assert "100%" in terminal.getvalue()
