"""Why a layer cannot take a technique: the reasons that `analyze` prints."""

from typing import Final, Literal

from torch import nn

from autocompress.tasks.frozen import is_frozen

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


COMPRESSIBLE: Final[tuple[type[nn.Module], ...]] = (
    nn.Linear,
    *CONVS,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Embedding,
    nn.LSTM,
    nn.GRU,
    nn.RNN,
)
FROZEN: Final = "it is frozen by the task"
_IN_WORDS: Final[dict[LayerKind, str]] = {
    "transposed_conv": "transposed convolutions",
    "recurrent": "recurrent layers",
    "grouped_conv": "grouped and depthwise convolutions",
    "depthwise": "grouped and depthwise convolutions",
}


def refusals_of(
    module: nn.Module, n_calls: int, *, tied_to: str, is_tied: bool, is_tie_source: bool = False
) -> dict[str, str]:
    """Technique -> why this layer cannot take it; absent means it can.

    Args:
        module: A layer that owns parameters.
        n_calls: How often one forward pass calls it.
        tied_to: Earlier layer that owns the same weight; empty if none. What is chosen there
            holds for both.
        is_tied: Whether any of its parameters is tied in another way.
        is_tie_source: Whether a later layer is tied to this one's weight.
    """
    weight = FROZEN if is_frozen(module) else _why_not_weight(module, n_calls)
    if not weight and tied_to:
        weight = f"its weight is tied to '{tied_to}': choose there"
    elif not weight and is_tied:
        weight = "its parameters are tied to another layer's"
    alone = weight or ("its weight is tied to a later layer's" if is_tie_source else "")
    refusals = {
        "weight_bits": weight,
        "activation_bits": weight
        or why_no_input_grid(layer_kind(module), is_lstm=isinstance(module, nn.LSTM)),
        "rate_price": weight or why_no_price(layer_kind(module)),
        "rank_ratio": alone or why_no_factors(layer_kind(module)),
        "sparsity": weight,
        "shared_with": alone or _why_not_share(module),
    }
    return {technique: reason for technique, reason in refusals.items() if reason}


def why_no_input_grid(kind: LayerKind, *, is_lstm: bool = False) -> str:
    """Why layers of a kind cannot take an integer input; empty if they can.

    Of recurrent layers only LSTMs have an integer kernel, a dynamic one (`runtime.dynamic`).
    """
    if kind == "embedding":
        return "an embedding takes indices, not numbers"
    if kind == "transposed_conv" or (kind == "recurrent" and not is_lstm):
        return f"{_IN_WORDS[kind]} have no integer kernels here"
    return ""


def why_no_price(kind: LayerKind) -> str:
    """Why weights of a layer cannot be rounded by what their bits are worth; empty if they can."""
    if kind in ("linear", "conv", "pointwise", "depthwise", "grouped_conv"):
        return ""
    return f"{_IN_WORDS.get(kind, f'{kind} layers')} are rounded to the nearest here"


def why_no_factors(kind: LayerKind) -> str:
    """Why layers of a kind cannot be split into factors by any method; empty if they can."""
    if kind in ("linear", "embedding", "pointwise", "conv"):
        return ""
    return f"{_IN_WORDS.get(kind, f'{kind} layers')} have no low-rank form here"


def _why_not_weight(module: nn.Module, n_calls: int) -> str:
    """Why the layer cannot compute with another weight than its own."""
    kind = type(module).__name__
    if not isinstance(module, COMPRESSIBLE):
        return f"{kind} layers are not compressed"
    if nn.utils.parametrize.is_parametrized(module):
        return "its weight is parametrized (remove parametrizations first)"
    if type(module) not in COMPRESSIBLE:
        return f"{kind} is a subclass of its own, whose forward is unknown"
    if n_calls == 0:
        return "it is not called on the example input, or its weight is read past its forward"
    names = module._flat_weights_names if isinstance(module, nn.RNNBase) else ["weight"]
    if not all(isinstance(module._parameters.get(name), nn.Parameter) for name in names):
        return "its weight is computed from other parameters (remove weight or spectral norm first)"
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return f"its rows are rescaled as they are read (max_norm={module.max_norm:g})"
    return ""


def _why_not_share(module: nn.Module) -> str:
    if isinstance(module, (nn.Linear, *CONVS)):
        return ""
    return "only linear layers and convolutions share weights across layers"
