"""nn.MultiheadAttention spelled out, so that its layers can be seen and compressed.

torch's module keeps queries, keys and values in one parameter that no layer owns, and its kernels
read the output layer's weight past that layer. Neither can be pruned by heads, factorized or
quantized. Here each projection is an `nn.Linear`; the numbers are the same.

The names in the state dict change: `in_proj_weight` and `in_proj_bias` become `q_proj.weight`,
`k_proj.weight`, `v_proj.weight` and their biases; `out_proj` keeps its name. Load a checkpoint into
the model before it becomes a task, not after.
"""

import copy
import math
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ExplicitAttention(nn.Module):
    """Multi-head attention of four linear layers (Vaswani et al. 2017), called like torch's.

    Heads can be cut from outside: what falls are rows of the three projections, columns of
    `out_proj`, and `num_heads`.

    Args:
        source: What to take numbers and options from; not modified. See `is_supported`.
    """

    # What encoder and decoder layers look at to decide on kernels that read weights directly:
    # this says that there is nothing to read.
    _qkv_same_embed_dim = False
    in_proj_weight = None
    in_proj_bias = None
    bias_k = None
    bias_v = None
    add_zero_attn = False

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.kdim, self.vdim = source.embed_dim, source.kdim, source.vdim
        self.num_heads, self.head_dim = source.num_heads, source.head_dim
        self.dropout, self.batch_first = source.dropout, source.batch_first
        weights = (
            source.in_proj_weight.chunk(3)
            if source._qkv_same_embed_dim
            else (source.q_proj_weight, source.k_proj_weight, source.v_proj_weight)
        )
        biases = (None,) * 3 if source.in_proj_bias is None else source.in_proj_bias.chunk(3)
        self.q_proj = _linear(weights[0], biases[0])
        self.k_proj = _linear(weights[1], biases[1])
        self.v_proj = _linear(weights[2], biases[2])
        self.out_proj = _linear(source.out_proj.weight, source.out_proj.bias)
        self.train(source.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend. Shapes, masks and results are those of `nn.MultiheadAttention.forward`.

        Raises:
            RuntimeError: If `is_causal` is given without the mask that it describes.
        """
        if is_causal and attn_mask is None:
            msg = "Need attn_mask if specifying the is_causal hint."
            raise RuntimeError(msg)
        is_batched = query.ndim == 3
        if not is_batched:
            query, key, value = (tensor.unsqueeze(0) for tensor in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
        q, k = self._heads(self.q_proj(query)), self._heads(self.k_proj(key))
        v = self._heads(self.v_proj(value))
        mask = _joint_mask(attn_mask, key_padding_mask, q)
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            weights = F.dropout(weights, self.dropout, self.training)
            mixed = weights @ v
        else:
            dropout = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not is_batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights

    def _heads(self, projected: Tensor) -> Tensor:
        """(N, L, heads · head_dim) -> (N, heads, L, head_dim)."""
        return projected.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)


def make_attention_explicit(model: nn.Module) -> nn.Module:
    """Replace each plain nn.MultiheadAttention of a model by layers that compute the same.

    Args:
        model: Not modified.

    Returns:
        The model itself if it holds none that can be replaced, else a copy.
    """
    if not any(is_supported(module) for module in model.modules()):
        return model
    if is_supported(model):
        return ExplicitAttention(model)
    explicit = copy.deepcopy(model)
    replaced: dict[nn.Module, ExplicitAttention] = {}
    for module in list(explicit.modules()):
        for name, child in module._modules.items():  # a shared child under each of its names
            if child is not None and is_supported(child):
                if child not in replaced:
                    replaced[child] = ExplicitAttention(child)
                module._modules[name] = replaced[child]
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # only the fused kernels read nested tensors
    return explicit


def is_supported(module: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
    """Whether `ExplicitAttention` computes what a module does: no subclass, no extra keys."""
    return (
        type(module) is nn.MultiheadAttention
        and module.bias_k is None
        and module.bias_v is None
        and not module.add_zero_attn
        and type(module.out_proj) is nn.modules.linear.NonDynamicallyQuantizableLinear
        and not nn.utils.parametrize.is_parametrized(module)
    )


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer that holds copies."""
    n_out, n_in = weight.shape
    linear = nn.utils.skip_init(
        nn.Linear, n_in, n_out, bias=bias is not None, device=weight.device, dtype=weight.dtype
    )
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    return linear.requires_grad_(weight.requires_grad)


def _joint_mask(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, queries: Tensor
) -> Tensor | None:
    """Both masks as one that is added to the scores, or None.

    Args:
        attn_mask: Shape (L, S) or (N · heads, L, S); True or -inf where nothing is to be attended.
        key_padding_mask: Shape (N, S); True or -inf where a key is padding.
        queries: Shape (N, heads, L, head_dim), for its dtype and its number of examples.
    """
    joint = None
    if attn_mask is not None:
        joint = _additive(attn_mask, queries.dtype)
        if joint.ndim == 3:
            joint = joint.unflatten(0, (queries.shape[0], -1))
    if key_padding_mask is not None:
        padding = _additive(key_padding_mask, queries.dtype)[:, None, None, :]
        joint = padding if joint is None else joint + padding
    return joint


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf)
