"""A model of transformers as the rest of this package wants it: tensors in, one tensor out."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from autocompress.tasks.huggingface.extra import transformers


class ImageClassifier(nn.Module):
    """Pixels (N, C, H, W) -> logits (N, classes).

    Args:
        model: Of transformers, for image classification.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = make_linear_(model)
        self.train(model.training)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.model(pixel_values=pixel_values).logits
        return logits


class TextClassifier(nn.Module):
    """Tokens and mask (N, T) -> logits (N, classes).

    Args:
        model: Of transformers, for sequence classification.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = make_linear_(model)
        self.train(model.training)
        parameters = inspect.signature(model.forward).parameters
        self._constants = {"use_cache": False} if "use_cache" in parameters else {}

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits of a batch; `token_type_ids` says which sentence of a pair a token belongs to."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask, **types, **self._constants
        ).logits
        return logits


class LanguageModel(nn.Module):
    """Tokens (N, T) -> logits of each next token (N, vocabulary, T): classes in dimension 1.

    Args:
        model: Of transformers, for causal language modelling.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = make_linear_(model)
        self.train(model.training)
        parameters = inspect.signature(model.forward).parameters
        self._has_mask = "attention_mask" in parameters
        self._constants = {"use_cache": False} if "use_cache" in parameters else {}

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits of a batch."""
        # Without a mask transformers looks for packed sequences, in operators that ONNX lacks.
        mask = {"attention_mask": torch.ones_like(input_ids)} if self._has_mask else {}
        logits: Tensor = self.model(input_ids=input_ids, **mask, **self._constants).logits
        return logits.transpose(1, 2)


def make_linear_(model: nn.Module) -> nn.Module:
    """Replace, in place, the transposed linear layers of GPT-2 and its kin by `nn.Linear`.

    They compute the same, and `nn.Linear` is what every technique knows.

    Returns:
        The same model.
    """
    conv1d = transformers().pytorch_utils.Conv1D
    for module in tuple(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is conv1d:
                setattr(module, name, _transposed(child))
    return model


def _transposed(layer: Any) -> nn.Linear:
    n_in, n_out = layer.weight.shape
    linear = nn.utils.skip_init(nn.Linear, n_in, n_out)
    with torch.no_grad():
        linear.weight.copy_(layer.weight.T)
        linear.bias.copy_(layer.bias)
    return linear.requires_grad_(layer.weight.requires_grad).train(layer.training)
