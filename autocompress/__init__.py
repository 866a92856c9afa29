"""autocompress: search over pruning, bit-widths and ranks, with a measured Pareto front.

    autocompress search my_task.py --budget 50

and from Python

    import autocompress as ac
    result = ac.search(task, budget=50)
    result.export("knee", "out/")

The names below are the public ones; each is imported when it is first used, so that importing this
package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocompress.api.bundle import Bundle
    from autocompress.api.result import Result
    from autocompress.api.search import open_run, search
    from autocompress.errors import AutocompressError
    from autocompress.export.load import load
    from autocompress.measurement import Measurement
    from autocompress.packing.packed import PackedModel, read_packed, write_packed
    from autocompress.plan import CompressionPlan, LayerPlan
    from autocompress.run_record import RunRecord, TrialRecord
    from autocompress.study.records import load_run
    from autocompress.tasks.base import Task, TensorData
    from autocompress.tasks.calling import adapt_call
    from autocompress.tasks.cifar10 import read_cifar10
    from autocompress.tasks.frozen import LayerChannels
    from autocompress.tasks.idx import read_idx, read_mnist
    from autocompress.tasks.images import crop_and_flip, normalize
    from autocompress.tasks.streamed import StreamedData

_HOMES = {
    "AutocompressError": "autocompress.errors",
    "Bundle": "autocompress.api.bundle",
    "CompressionPlan": "autocompress.plan",
    "LayerChannels": "autocompress.tasks.frozen",
    "LayerPlan": "autocompress.plan",
    "Measurement": "autocompress.measurement",
    "PackedModel": "autocompress.packing.packed",
    "Result": "autocompress.api.result",
    "RunRecord": "autocompress.run_record",
    "StreamedData": "autocompress.tasks.streamed",
    "Task": "autocompress.tasks.base",
    "TensorData": "autocompress.tasks.base",
    "TrialRecord": "autocompress.run_record",
    "adapt_call": "autocompress.tasks.calling",
    "crop_and_flip": "autocompress.tasks.images",
    "load": "autocompress.export.load",
    "load_run": "autocompress.study.records",
    "normalize": "autocompress.tasks.images",
    "open_run": "autocompress.api.search",
    "read_cifar10": "autocompress.tasks.cifar10",
    "read_idx": "autocompress.tasks.idx",
    "read_mnist": "autocompress.tasks.idx",
    "read_packed": "autocompress.packing.packed",
    "search": "autocompress.api.search",
    "write_packed": "autocompress.packing.packed",
}

__all__ = [
    "AutocompressError",
    "Bundle",
    "CompressionPlan",
    "LayerChannels",
    "LayerPlan",
    "Measurement",
    "PackedModel",
    "Result",
    "RunRecord",
    "StreamedData",
    "Task",
    "TensorData",
    "TrialRecord",
    "adapt_call",
    "crop_and_flip",
    "load",
    "load_run",
    "normalize",
    "open_run",
    "read_cifar10",
    "read_idx",
    "read_mnist",
    "read_packed",
    "search",
    "write_packed",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
