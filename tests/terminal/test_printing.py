"""Names of models, runs and files of others steer no terminal."""

import io

import pytest
from rich.table import Table
from rich.text import Text

from autocompress.errors import one_line, printable
from autocompress.terminal.printing import echo, make_console

EVIL = "a\x1b[2J\x1b]0;title\x07b\u202ec\x9b31m"
SHOWN = r"a\x1b[2J\x1b]0;title\x07b\u202ec\x9b31m"


def test_escape_sequences_and_marks_of_direction_are_shown_as_what_they_are() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("tab\tand\nlines, é, 10 µs, 4×") == "tab\tand\nlines, é, 10 µs, 4×"
    assert one_line("one\r\ntwo\nthree") == "one two three"


def test_echo_sends_no_escape_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    echo(EVIL)
    echo(EVIL, err=True)
    assert capsys.readouterr() == (f"{SHOWN}\n", f"{SHOWN}\n")


def test_tables_and_styles_work_and_names_in_them_do_not() -> None:
    file = io.StringIO()
    console = make_console(file=file, width=200, force_terminal=True, color_system="standard")
    table = Table()
    table.add_column("name")
    table.add_row(Text(EVIL, style="red"))
    console.print(table)
    written = file.getvalue()
    assert "\x1b[31m" in written, "our own colours"
    assert "\x1b[2J" not in written
    assert r"a\x1b[2J" in written  # cut to the width that the column was given
