"""Every command that the README and the pages name exists, with its options."""

import click
import pytest

from autocompress.cli.main import cli
from tests.docs.conftest import ROOT, Snippet, commands, words_of

# Commands and options that are written on another branch; empty once they are here.
BUILT_ELSEWHERE = ("autocompress watch", "--track", "autocompress init", "autocompress check")

FOUND = commands()
COMMANDS = [c for c in FOUND if c.text.startswith("autocompress ")]


def test_commands_are_found_in_the_readme_and_the_guides() -> None:
    pages = {command.page for command in COMMANDS}
    assert {"README.md", "docs/tutorial.md", "docs/refine.md", "docs/long-runs.md"} <= pages
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c.page}: {c.text}")
def test_command_of_a_page_parses(command: Snippet, monkeypatch: pytest.MonkeyPatch) -> None:
    if any(words in command.text for words in BUILT_ELSEWHERE):
        pytest.skip("built on another branch")
    name, *arguments = words_of(command.text)
    context = click.Context(cli)
    subcommand = cli.get_command(context, name)
    assert subcommand is not None, f"there is no command {name!r}"
    # Reads the arguments and runs nothing; files that a page only imagines need not exist.
    for parameter in subcommand.params:
        if isinstance(parameter.type, click.Path):
            monkeypatch.setattr(parameter, "type", click.Path(path_type=parameter.type.type))
    arguments = [word for word in arguments if word != "--help"]  # which would end it here
    subcommand.make_context(name, arguments, parent=context)


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {c.text.split()[1] for c in FOUND if c.text.startswith("make ")}
    assert targets >= {"search", "test"}
    for target in targets:
        assert f"\n{target}:" in makefile
