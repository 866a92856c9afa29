"""Why a layer cannot take a technique: the reasons that `analyze` prints."""

from torch import nn

from autocompress.analysis.layer_kind import CONVS


def refusals_of(module: nn.Module, n_calls: int, *, tied_to: str, is_tied: bool) -> dict[str, str]:
    """Technique -> why this layer cannot take it; absent means it can.

    Args:
        module: A layer that owns parameters.
        n_calls: How often one forward pass calls it.
        tied_to: Earlier layer that owns the same weight; empty if none.
        is_tied: Whether any of its parameters is tied in another way.
    """
    is_tied = is_tied or bool(tied_to)
    quantize = _why_not_quantize(module, n_calls, is_tied)
    factorize = quantize or _why_not_factorize(module)
    refusals = {"weight_bits": quantize, "activation_bits": quantize, "rank_ratio": factorize}
    return {technique: reason for technique, reason in refusals.items() if reason}


def _why_not_quantize(module: nn.Module, n_calls: int, is_tied: bool) -> str:
    supported = (*CONVS, nn.Linear)
    if not isinstance(module, supported):
        return f"{type(module).__name__} layers are not quantized or factorized yet"
    if nn.utils.parametrize.is_parametrized(module):
        return "its weight is parametrized (remove parametrizations first)"
    if type(module) not in supported:
        return f"{type(module).__name__} is a subclass of its own, whose forward is unknown"
    if n_calls == 0:
        return "it is not called on the example input, or its weight is read past its forward"
    if is_tied:
        return "its parameters are tied to another layer's"
    if not isinstance(module._parameters.get("weight"), nn.Parameter):
        return "its weight is computed from other parameters (remove weight or spectral norm first)"
    return ""


def _why_not_factorize(module: nn.Module) -> str:
    if isinstance(module, CONVS):
        if module.groups > 1:
            return "grouped and depthwise convolutions have no low-rank form here"
        if module.padding_mode != "zeros":
            return f"padding_mode={module.padding_mode!r} is not supported by the factors"
        if isinstance(module, nn.Conv3d) and set(module.kernel_size) != {1}:
            return "Tucker-2 is implemented for 1-D and 2-D kernels"
    return ""
