"""Commands about a run, as a shell takes them."""

import shlex

from autocompress.run_record import RunRecord


def run_argument(run: RunRecord) -> str:
    """What names a run on the command line, quoted: its name, or its folder if that lies elsewhere.

    A name is looked up in `results`, which is where runs are unless somebody said otherwise.
    """
    is_usual = run.folder.parent.name == "results"
    return shlex.quote(run.name if is_usual else str(run.folder))
