"""The notebook of the examples runs, and is stored with outputs that stay small."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.needs import need_extra

_NOTEBOOK = Path(__file__).parents[2] / "examples" / "09_notebook.ipynb"
_MOST_BYTES = 300_000


@pytest.fixture(scope="module")
def stored() -> Any:
    return json.loads(_NOTEBOOK.read_text(encoding="utf-8"))


def test_notebook_is_stored_with_a_table_and_a_picture(stored: Any) -> None:
    kinds = [
        kind
        for cell in stored["cells"]
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    ]

    assert "image/png" in kinds
    assert kinds.count("text/html") >= 3
    assert _NOTEBOOK.stat().st_size < _MOST_BYTES
    # nothing of the machine it ran on
    assert not re.search(r"/(home|root|work|tmp|Users)/", _NOTEBOOK.read_text(encoding="utf-8"))


def test_notebook_runs(stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_extra("notebook")
    import nbclient
    import nbformat

    root = str(_NOTEBOOK.parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")  # no browser needed
    text = json.dumps(stored).replace("budget=12", "budget=4")
    assert "budget=4" in text
    notebook = nbformat.reads(text, as_version=4)

    client = nbclient.NotebookClient(
        notebook,
        timeout=280,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()

    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert "application/vnd.plotly.v1+json" in {k for o in outputs for k in o.get("data", {})}
    assert (tmp_path / "results" / "digits-smallest" / "model.acz").is_file()
