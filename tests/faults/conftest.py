"""The command line as a process, as in tests/cli."""

from tests.cli.conftest import (  # noqa: F401
    cache_folder,
    environment,
    finished_untimed_run,
    run_cli,
    start_cli,
    task_file,
    untimed,
)
