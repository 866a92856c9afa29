"""The messages that the troubleshooting page quotes are those of the code."""

import ast
import re

import pytest

from autocompress.errors import AutocompressError
from tests.docs.conftest import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^\*\*(.+?)\*\*", PAGE, re.MULTILINE | re.DOTALL)
# Parts that are filled in: what stands in quotes, numbers, dtypes and class names.
FILLED = re.compile(r"(?<=Unknown )\w+|…%?|'[^']*'|torch\.\w+|NoneType|\b(?:train|results)\b")


@pytest.fixture(scope="module")
def constants() -> str:
    """Every literal piece of text in the package, one per line."""
    pieces: list[str] = []
    for path in (ROOT / "autocompress").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                pieces.append(node.value)
    return "\n".join(pieces)


def test_messages_are_quoted() -> None:
    assert len(QUOTED) > 20


@pytest.mark.parametrize("message", QUOTED)
def test_quoted_message_is_one_of_the_code(message: str, constants: str) -> None:
    pieces = [piece.strip(" .:") for piece in FILLED.split(" ".join(message.split()))]
    told = [piece for piece in pieces if len(piece) > 4]
    assert told, f"{message!r} says too little to be found"
    for piece in told:
        assert piece in constants


def test_exit_codes_of_the_page_are_those_of_the_errors() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE)
    documented = {int(code) for row in rows for code in row.split(",")}
    raised = {error.exit_code for error in AutocompressError.__subclasses__()}
    assert raised <= documented
    assert {0, 130} <= documented
