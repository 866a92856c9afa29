"""Depth pruning: a residual block is left out, and its input goes on as its output.

Dropping whole blocks shortens the path an input takes, which channels never do (Huang et al. 2016
trained networks to bear it; Men et al. 2024 drop layers of trained transformers).
"""

from torch import nn

from autocompress.analysis.pass_through import PassThrough, pass_through_for, replace_module_
from autocompress.errors import InputError


def drop_block_(model: nn.Module, name: str) -> None:
    """Replace a block by `PassThrough`, in place, under every name it is registered by.

    A block inside of one that was dropped before is gone already: nothing happens.

    Args:
        model: A copy of the model the block was found in; changed.
        name: Qualified name of the block, one of `ModelProfile.blocks`.

    Raises:
        InputError: If the model has no such module.
    """
    modules = dict(model.named_modules())
    parts = name.split(".")
    if any(isinstance(modules.get(".".join(parts[:n])), PassThrough) for n in range(len(parts))):
        return
    if not name or name not in modules:
        raise InputError(
            f"The block to drop must be a module of the model, but it has no {name!r}.",
            "`autocompress analyze` lists the blocks that can be dropped.",
        )
    replace_module_(model, modules[name], pass_through_for(modules[name]))
