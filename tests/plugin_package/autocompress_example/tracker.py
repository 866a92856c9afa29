import json
from pathlib import Path

from autocompress.runs.tracking.registry import TrackerKind


class JsonLines:
    """A line per finished trial in a file: `--track jsonl:FILE`."""

    def __init__(self, where, run_folder):
        self.path = Path(where) if where else run_folder / "tracked.jsonl"

    def open(self, run):
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return {json.loads(line)["trial"] for line in lines}

    def log(self, trial, progress, step):
        with self.path.open("a") as file:
            print(json.dumps({"trial": trial.number, **trial.metrics}), file=file)

    def close(self):
        pass


JSON_LINES = TrackerKind(package="json", extra="", make=JsonLines)
