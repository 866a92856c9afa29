"""What a layer is, in the words of search-space files."""

from typing import Literal

from torch import nn

LayerKind = Literal[
    "conv",
    "pointwise",
    "depthwise",
    "grouped_conv",
    "linear",
    "transposed_conv",
    "embedding",
    "recurrent",
    "attention",
    "norm",
    "other",
]
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def layer_kind(module: nn.Module) -> LayerKind:
    """Name the kind of a layer, as search-space files use it."""
    if isinstance(module, CONVS):
        if module.groups > 1:
            return "depthwise" if module.groups == module.in_channels else "grouped_conv"
        return "pointwise" if set(module.kernel_size) == {1} else "conv"
    table: tuple[tuple[tuple[type, ...], LayerKind], ...] = (
        ((nn.Linear,), "linear"),
        (_TRANSPOSED, "transposed_conv"),
        ((nn.Embedding, nn.EmbeddingBag), "embedding"),
        ((nn.RNNBase, nn.RNNCellBase), "recurrent"),
        ((nn.MultiheadAttention,), "attention"),
        (_NORMS, "norm"),
    )
    for types, kind in table:
        if isinstance(module, types):
            return kind
    return "other"
