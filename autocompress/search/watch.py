"""Who watches a search from its beginning to its end."""

from types import TracebackType
from typing import Protocol

from autocompress.run_record import RunRecord
from autocompress.search.listener import Listener


class Watch(Protocol):
    """Shows what a search does; a context manager around its trials."""

    listener: Listener
    """Told about trials."""

    def note(self, text: str) -> None:
        """Say something in passing."""
        ...

    def warn(self, text: str) -> None:
        """Say something that must be seen."""
        ...

    def begin(self, run: RunRecord) -> None:
        """Say what lies ahead."""
        ...

    def tell_option(self, n_known: int, n_plans: int, label: str) -> None:
        """Show how far the option table is."""
        ...

    def __enter__(self) -> object: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
