"""The search: the study, proposals, and the loop that drives them; the only room with Optuna.

From Python it is called by the room's own name, as in
`result = autocompress.search("my_task.py", budget=50)`; `autocompress.api.search` says what it
takes.
"""

import importlib
import sys
import types
from typing import Any


class _CallableRoom(types.ModuleType):
    """A package and a function of one name: importing the first must not hide the second.

    Python sets `autocompress.search` to this package as soon as anything in it is imported.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Search; see `autocompress.api.search.search`."""
        return self._function()(*arguments, **options)

    @property
    def __signature__(self) -> Any:
        """What editors and `help` show."""
        return importlib.import_module("inspect").signature(self._function())

    @staticmethod
    def _function() -> Any:
        return importlib.import_module("autocompress.api.search").search


sys.modules[__name__].__class__ = _CallableRoom
