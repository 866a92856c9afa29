"""What the README and the pages say: their commands and their Python."""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(autocompress [a-z][^`]*)`", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A command, or a block of Python.

    Attributes:
        page: Where it stands, from the root of the repository.
        text: What stands there.
    """

    page: str
    text: str


def blocks(page: Path, language: str) -> Iterator[Snippet]:
    """Fenced blocks of a language; commands have none."""
    for found, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        if found == language:
            yield Snippet(page=str(page.relative_to(ROOT)), text=text)


def commands() -> list[Snippet]:
    """Every `autocompress …` of the pages, in blocks and in the text, once per page."""
    found: dict[tuple[str, str], Snippet] = {}
    for page in PAGES:
        lines = [line for block in blocks(page, "") for line in block.text.splitlines()]
        texts = [line.removeprefix("$ ") for line in lines]
        prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
        texts += [" ".join(text.split()) for text in _INLINE.findall(prose)]
        for text in texts:
            if re.match(r"(make |autocompress )", text) and "…" not in text and "..." not in text:
                key = (str(page.relative_to(ROOT)), text)
                found[key] = Snippet(page=key[0], text=text)
    return list(found.values())


def words_of(command: str) -> list[str]:
    """The arguments of a command, without comments and without what is optional."""
    text = re.sub(r"\[([^\]]*)\]", r"\1", command)  # `doctor my_run [--repair]`: with it
    return shlex.split(text, comments=True)[1:]
