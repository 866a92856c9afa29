import click
import pytest
from click.testing import CliRunner

from autocompress.cli.options import task_arguments, task_options
from autocompress.errors import InputError


@click.command()
@task_options
def show(task, data, task_args):
    click.echo(f"{task} {task_arguments(data, task_args)}")


def _shown(*arguments):
    result = CliRunner().invoke(show, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output.strip()


def test_task_is_digits_when_none_is_given():
    assert _shown() == "digits {}"


@pytest.mark.parametrize("form", [("hf",), ("--task", "hf")])
def test_task_is_an_argument_or_an_option(form):
    assert _shown(
        *form, "--model", "owner/name", "--dataset", "glue", "--task-arg", "subset=a"
    ) == ("hf {'model': 'owner/name', 'dataset': 'glue', 'subset': 'a'}")


def test_task_given_twice_is_refused():
    with pytest.raises(InputError, match=r"once, but came as 'digits' and as --task hf"):
        _shown("digits", "--task", "hf")


def test_model_that_is_a_folder_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert").mkdir()
    assert _shown("hf", "--model", "bert") == f"hf {{'model': '{tmp_path / 'bert'}'}}"


def test_model_given_twice_is_refused():
    with pytest.raises(InputError, match="'model' must be given once"):
        _shown("hf", "--model", "a", "--task-arg", "model=b")
