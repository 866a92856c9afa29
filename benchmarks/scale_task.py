"""Models of realistic size with random weights, for `benchmarks/scale.py`."""

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
)

from autocompress import Task, TensorData

N_TRAIN, N_VAL = 16, 8


def resnet50() -> Task:
    """ResNet-50: 25.6 M parameters, images of 224 by 224."""
    torch.manual_seed(0)
    config = ResNetConfig(num_labels=10)
    images, labels = torch.randn(N_TRAIN + N_VAL, 3, 224, 224), torch.arange(N_TRAIN + N_VAL) % 10
    data = [TensorData({"pixel_values": images[s]}, labels[s]) for s in _splits()]
    return Task(
        model=ResNetForImageClassification(config).eval(),
        train=data[0],
        val=data[1],
        output="logits",
        name="resnet50",
        batch_size=8,
    )


def bert_base() -> Task:
    """BERT-base: 109 M parameters, sentences of 64 tokens."""
    torch.manual_seed(0)
    config = BertConfig(num_labels=2, attn_implementation="eager")
    tokens = torch.randint(1000, config.vocab_size, (N_TRAIN + N_VAL, 64))
    labels, mask = torch.arange(N_TRAIN + N_VAL) % 2, torch.ones_like(tokens)
    inputs = {"input_ids": tokens, "attention_mask": mask}
    data = [TensorData({k: t[s] for k, t in inputs.items()}, labels[s]) for s in _splits()]
    return Task(
        model=BertForSequenceClassification(config).eval(),
        train=data[0],
        val=data[1],
        output="logits",
        name="bert-base",
        batch_size=8,
        learning_rate=0.001,
    )


def _splits() -> tuple[slice, slice]:
    return slice(0, N_TRAIN), slice(N_TRAIN, N_TRAIN + N_VAL)
