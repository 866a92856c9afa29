"""Architectures of `transformers`, built small from their configurations; nothing is downloaded.

The list was fixed before any of them was run, and what fails stays in it. Depths, widths and
vocabularies are small so that each takes seconds; every mechanism of an architecture stays.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

N_EXAMPLES: Final = 12
_VOCABULARY, _LENGTH, _END = 60, 12, 59
_LABELS = {"num_labels": 5}
_STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 40]}
_IMAGE = {"image_size": 32}
_VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_VIT = {**_VIT, "intermediate_size": 48, "patch_size": 8, **_IMAGE}
_BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_BERT = {**_BERT, "intermediate_size": 48, "vocab_size": _VOCABULARY, "pad_token_id": 0}
_BERT = {**_BERT, "max_position_embeddings": 32, "type_vocab_size": 2}
_DECODER = {"vocab_size": _VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
_DECODER = {**_DECODER, "num_attention_heads": 4, "intermediate_size": 48, "use_cache": False}
_DECODER = {**_DECODER, "max_position_embeddings": 32, "pad_token_id": 0}
_DECODER = {**_DECODER, "bos_token_id": 1, "eos_token_id": 2}
_GROUPED = {**_DECODER, "num_key_value_heads": 2, "head_dim": 8}  # grouped-query attention
_WAVE = {"conv_dim": [16, 16, 16], "conv_stride": [5, 2, 2], "conv_kernel": [10, 3, 3]}
_WAVE = {**_WAVE, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_WAVE = {**_WAVE, "intermediate_size": 48, "num_conv_pos_embeddings": 8, "vocab_size": 32}
_WAVE = {**_WAVE, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 24}
_WAVE = {**_WAVE, "num_feat_extract_layers": 3}


class Logits(nn.Module):
    """A model that takes keywords and returns a record, as a function of tensors.

    Args:
        model: What is called.
        keywords: Names of its inputs, in order.
        **fixed: Further keywords, the same in every call.
    """

    def __init__(self, model: nn.Module, *keywords: str, **fixed: Any) -> None:
        super().__init__()
        self.model = model
        self._keywords, self._fixed = keywords, fixed

    def forward(self, *tensors: Tensor) -> Tensor:
        """Inputs in the order of the keywords -> logits."""
        named = dict(zip(self._keywords, tensors, strict=True))
        output = self.model(**named, **self._fixed)
        return next(output[key] for key in _OUTPUTS if key in output)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Architectures that are asked in the same way.

    Attributes:
        kind: Vision, text, ... for the table.
        auto: Class of `transformers` that picks the class by the configuration.
        keywords: Names of the inputs.
        draw: Draws them.
        common: Settings that all share.
        settings: Type of model -> its own settings.
    """

    kind: str
    auto: str
    keywords: tuple[str, ...]
    draw: Callable[[], tuple[Tensor, ...]]
    common: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, Any]]


def _images() -> tuple[Tensor, ...]:
    return (torch.randn(N_EXAMPLES, 3, 32, 32),)


def _tokens() -> tuple[Tensor, ...]:
    return (torch.randint(3, _VOCABULARY, (N_EXAMPLES, _LENGTH)),)


def _padded_tokens() -> tuple[Tensor, ...]:
    tokens = torch.randint(3, _END, (N_EXAMPLES, _LENGTH))
    lengths = torch.randint(_LENGTH // 2, _LENGTH + 1, (N_EXAMPLES, 1))
    mask = (torch.arange(_LENGTH)[None] < lengths).long()
    return tokens.scatter(1, lengths - 1, _END) * mask, mask


def _waves() -> tuple[Tensor, ...]:
    return (torch.randn(N_EXAMPLES, 800),)


def _spectra() -> tuple[Tensor, ...]:
    return (torch.randn(N_EXAMPLES, 32, 16),)


_VISION: Mapping[str, Mapping[str, Any]] = {
    "vit": _VIT,
    "deit": _VIT,
    "beit": {**_VIT, "use_relative_position_bias": True},
    "data2vec-vision": _VIT,
    "dinov2": {**_VIT, "mlp_ratio": 2},
    "dinov2_with_registers": {**_VIT, "mlp_ratio": 2, "use_swiglu_ffn": True},
    "ijepa": _VIT,
    "vit_msn": _VIT,
    "siglip": {"vision_config": _VIT},
    "clip": {"vision_config": _VIT},
    "resnet": {**_STAGES, "embedding_size": 16},
    "bit": {**_STAGES, "embedding_size": 16, "num_groups": 8},
    "regnet": {**_STAGES, "embedding_size": 16, "groups_width": 8},
    "convnext": _STAGES,
    "convnextv2": _STAGES,
    "cvt": {
        "embed_dim": [16, 24, 32],
        "num_heads": [1, 3, 4],
        "depth": [1, 2, 3],  # it indexes one stage by another
        "cls_token": [False, False, True],
    },
    "efficientnet": {
        "width_coefficient": 0.25,
        "depth_coefficient": 0.3,
        "hidden_dim": 320,
        **_IMAGE,
    },
    "focalnet": {"embed_dim": 16, "depths": [1, 1], "focal_levels": [2, 2], **_IMAGE}
    | {"focal_windows": [3, 3], "hidden_sizes": [16, 32], "use_layerscale": True},
    "hgnet_v2": {
        "embedding_size": 16,
        "depths": [1, 1],
        "hidden_sizes": [32, 48],
        "stem_channels": [3, 8, 16],
        "stage_in_channels": [16, 32],
        "stage_mid_channels": [8, 16],
        "stage_out_channels": [32, 48],
        "stage_num_blocks": [1, 2],
        "stage_downsample": [False, True],
        "stage_downsample_strides": [2, 2],
        "stage_light_block": [False, True],
        "stage_kernel_size": [3, 5],
        "stage_numb_of_layers": [2, 2],
    },
    "hiera": {"embed_dim": 16, "image_size": [32, 32], "depths": [1, 1, 1], "num_heads": [1, 2, 4]}
    | {
        "num_query_pool": 2,
        "masked_unit_size": [4, 4],
        "masked_unit_attention": [True, True, False],
    },
    "levit": {
        "hidden_sizes": [32, 48, 64],
        "num_attention_heads": [2, 3, 4],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
        "image_size": 32,
        "down_ops": [["Subsample", 8, 4, 4, 2, 2], ["Subsample", 8, 6, 4, 2, 2]],
    },
    "mobilenet_v1": {"depth_multiplier": 0.125, **_IMAGE},
    "mobilenet_v2": {"depth_multiplier": 0.125, **_IMAGE},
    "mobilevit": {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 12, 16, 20, 24, 32]}
    | {"expand_ratio": 2.0, **_IMAGE},
    "mobilevitv2": {"width_multiplier": 0.125, "n_attn_blocks": [1, 1, 1], "output_stride": 8},
    "poolformer": _STAGES,
    "pp_lcnet": {"scale": 0.25, "class_expand": 64},
    "pvt": {**_STAGES, "num_attention_heads": [1, 2, 2, 4], "mlp_ratios": [2, 2, 2, 2], **_IMAGE},
    "pvt_v2": {**_STAGES, "num_attention_heads": [1, 2, 2, 4], "mlp_ratios": [2, 2, 2, 2]}
    | {"image_size": 32},
    "segformer": {**_STAGES, "num_attention_heads": [1, 2, 2, 4], "mlp_ratios": [2, 2, 2, 2]},
    "swiftformer": {"depths": [1, 1, 1, 1], "embed_dims": [16, 24, 32, 40], **_IMAGE},
    "swin": {"embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4], "window_size": 4, **_IMAGE},
    "swinv2": {"embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4], "window_size": 4, **_IMAGE},
    "textnet": {"stem_out_channels": 8, "hidden_sizes": [8, 8, 16, 16, 16]}
    | {
        "conv_layer_kernel_sizes": [[[3, 3]], [[3, 1], [1, 3]], [[3, 3]], [[3, 3]]],
        "conv_layer_strides": [[1], [2, 1], [2], [2]],
    },
}
_TEXT: Mapping[str, Mapping[str, Any]] = {
    "bert": _BERT,
    "albert": {**_BERT, "embedding_size": 16},
    "roberta": _BERT,
    "distilbert": {**_BERT, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
    "electra": {**_BERT, "embedding_size": 16},
    "deberta": {**_BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
    | {"pooler_hidden_size": 32},
    "deberta-v2": {**_BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
    | {"pooler_hidden_size": 32, "position_buckets": 8, "share_att_key": True},
    "convbert": {**_BERT, "embedding_size": 16, "conv_kernel_size": 3},
    "ernie": _BERT,
    "esm": {**_BERT, "position_embedding_type": "rotary"},
    "fnet": {**_BERT, "tpu_short_seq_length": _LENGTH},
    "funnel": {
        "vocab_size": _VOCABULARY,
        "block_sizes": [1, 1],
        "d_model": 32,
        "n_head": 4,
        "d_head": 8,
    }
    | {"d_inner": 48, "num_decoder_layers": 1, "block_repeats": None},
    "megatron-bert": _BERT,
    "mobilebert": {**_BERT, "embedding_size": 16, "intra_bottleneck_size": 16}
    | {"num_feedforward_networks": 2},
    "modernbert": {**_BERT, "global_attn_every_n_layers": 2, "local_attention": 4}
    | {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    "mpnet": _BERT,
    "nystromformer": {**_BERT, "num_landmarks": _LENGTH, "segment_means_seq_len": _LENGTH}
    | {"conv_kernel_size": 3},
    "rembert": {**_BERT, "input_embedding_size": 16, "output_embedding_size": 16},
    "roformer": {**_BERT, "embedding_size": 16},
    "roberta-prelayernorm": _BERT,
    "squeezebert": {**_BERT, "embedding_size": 32, "q_groups": 2, "k_groups": 2, "v_groups": 2}
    | {"intermediate_groups": 2, "output_groups": 2},
    "xlm": {**_BERT, "emb_dim": 32, "n_layers": 2, "n_heads": 4, "n_langs": 1},
    "xlnet": {
        "vocab_size": _VOCABULARY,
        "pad_token_id": 0,
        "d_model": 32,
        "n_layer": 2,
        "n_head": 4,
        "d_inner": 48,
        "d_head": 8,
    },
    "bart": {**_BERT, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "use_cache": False}
    | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48}
    | {"decoder_ffn_dim": 48, "eos_token_id": _END, "bos_token_id": 1, "decoder_start_token_id": 2},
    "t5": {**_BERT, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}
    | {"num_decoder_layers": 1, "use_cache": False, "eos_token_id": _END}
    | {"decoder_start_token_id": 0, "bos_token_id": 1},
}
_CAUSAL: Mapping[str, Mapping[str, Any]] = {
    "gpt2": {**_DECODER, "n_inner": 48},
    "gpt_neo": {**_DECODER, "num_layers": 2, "attention_types": [[["global", "local"], 1]]}
    | {"num_heads": 4, "window_size": 4},
    "gpt_neox": _DECODER,
    "gptj": {**_DECODER, "n_inner": 48, "rotary_dim": 4},
    "codegen": {**_DECODER, "n_inner": 48, "rotary_dim": 4},
    "opt": {**_DECODER, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {**_DECODER, "n_layer": 2, "n_head": 4},
    "mpt": {**_DECODER, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 32},
    "falcon": {**_DECODER, "ffn_hidden_size": 48},
    "llama": _GROUPED,
    "mistral": {**_GROUPED, "sliding_window": 4},
    "qwen2": _GROUPED,
    "qwen3": _GROUPED,
    "gemma": _GROUPED,
    "gemma2": {**_GROUPED, "sliding_window": 4},
    "gemma3_text": {**_GROUPED, "sliding_window": 4},
    "phi": _DECODER,
    "phi3": {**_DECODER, "num_key_value_heads": 2},
    "olmo": _DECODER,
    "olmo2": _DECODER,
    "stablelm": {**_DECODER, "num_key_value_heads": 4},
    "starcoder2": {**_DECODER, "num_key_value_heads": 2},
    "granite": _DECODER,
    "cohere": _DECODER,
    "mixtral": {**_GROUPED, "num_local_experts": 2, "num_experts_per_tok": 1},
    "mamba": {**_DECODER, "state_size": 4, "time_step_rank": 4, "use_mambapy": False},
}
_AUDIO: Mapping[str, Mapping[str, Any]] = {
    "wav2vec2": _WAVE,
    "hubert": _WAVE,
    "wavlm": _WAVE,
    "sew": {**_WAVE, "squeeze_factor": 2},
    "unispeech": _WAVE,
    "unispeech-sat": _WAVE,
    "data2vec-audio": {**_WAVE, "conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 2},
    "wav2vec2-conformer": {**_WAVE, "conv_depthwise_kernel_size": 5},
}

FAMILIES: Final = (
    Family(
        kind="vision",
        auto="AutoModelForImageClassification",
        keywords=("pixel_values",),
        draw=_images,
        common=_LABELS,
        settings=_VISION,
    ),
    Family(
        kind="text",
        auto="AutoModelForSequenceClassification",
        keywords=("input_ids", "attention_mask"),
        draw=_padded_tokens,
        common=_LABELS,
        settings=_TEXT,
    ),
    Family(
        kind="causal language",
        auto="AutoModelForCausalLM",
        keywords=("input_ids",),
        draw=_tokens,
        common={},
        settings=_CAUSAL,
    ),
    Family(
        kind="audio",
        auto="AutoModelForAudioClassification",
        keywords=("input_values",),
        draw=_waves,
        common=_LABELS,
        settings=_AUDIO,
    ),
    Family(
        kind="audio",
        auto="AutoModelForAudioClassification",
        keywords=("input_values",),
        draw=_spectra,
        common=_LABELS,
        settings={
            "audio-spectrogram-transformer": {**_VIT, "max_length": 32, "num_mel_bins": 16}
            | {"time_stride": 8, "frequency_stride": 8}
        },
    ),
    Family(
        kind="audio",
        auto="AutoModelForAudioClassification",
        keywords=("input_features",),
        draw=lambda: (torch.randn(N_EXAMPLES, 16, 32),),
        common=_LABELS,
        settings={
            "whisper": {
                "num_mel_bins": 16,
                "d_model": 32,
                "encoder_layers": 2,
                "encoder_ffn_dim": 48,
            }
            | {"encoder_attention_heads": 4, "max_source_positions": 16, "vocab_size": _VOCABULARY}
            | {"decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
            | {"classifier_proj_size": 24, "pad_token_id": 0, "decoder_start_token_id": 1}
        },
    ),
    Family(
        kind="audio",
        auto="AutoModelForAudioClassification",
        keywords=("input_features",),
        draw=_spectra,
        common=_LABELS,
        settings={
            "wav2vec2-bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
            | {"intermediate_size": 48, "feature_projection_input_dim": 16, "vocab_size": 32}
            | {"conv_depthwise_kernel_size": 5, "classifier_proj_size": 24}
        },
    ),
    Family(
        kind="series",
        auto="PatchTSTForClassification",
        keywords=("past_values",),
        draw=lambda: (torch.randn(N_EXAMPLES, 32, 3),),
        common={"num_targets": 5, "context_length": 32, "num_input_channels": 3},
        settings={
            "patchtst": {"patch_length": 8, "patch_stride": 8, "num_hidden_layers": 2}
            | {"d_model": 32, "ffn_dim": 48}
        },
    ),
    Family(
        kind="series",
        auto="PatchTSMixerForTimeSeriesClassification",
        keywords=("past_values",),
        draw=lambda: (torch.randn(N_EXAMPLES, 32, 3),),
        common={"num_targets": 5, "context_length": 32, "num_input_channels": 3},
        settings={"patchtsmixer": {"d_model": 16, "num_layers": 2, "mode": "mix_channel"}},
    ),
)
_OUTPUTS: Final = ("logits", "prediction_logits", "prediction_outputs", "last_hidden_state")
_CLASSES: Final = {
    "deit": "DeiTForImageClassification",
    "levit": "LevitForImageClassification",
    "pp_lcnet": "PPLCNetForImageClassification",
}


def names() -> dict[str, str]:
    """Name of each architecture -> its kind."""
    return {name: family.kind for family in FAMILIES for name in family.settings}


def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """An architecture with random weights in eval mode, and inputs for it."""
    import transformers

    family = next(family for family in FAMILIES if name in family.settings)
    settings = {**family.common, **family.settings[name]}
    config = transformers.AutoConfig.for_model(name, **settings)
    auto = getattr(transformers, _CLASSES.get(name, family.auto))
    make = auto.from_config if hasattr(auto, "from_config") else auto._from_config
    model, inputs = Logits(with_linear_layers(make(config)).eval(), *family.keywords), family.draw()
    enliven_(model, inputs)
    return model, inputs


def with_linear_layers(model: nn.Module) -> nn.Module:
    """The model with `nn.Linear` for GPT-2's layers of transposed weights; numbers are the same."""
    from transformers.pytorch_utils import Conv1D

    for name, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            linear = nn.Linear(module.nx, module.nf)
            linear.weight, linear.bias = nn.Parameter(module.weight.data.T.clone()), module.bias
            model.set_submodule(name, linear)
    return model


def enliven_(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Weights and statistics that keep signals at the size they have in a trained model, in place.

    With some of the initial ones nothing of the input is left at the output, and every cut would be
    as good as any other.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            weight = module._parameters.get("weight")
            if weight is not None:
                nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # one pass sets the statistics
            module.train()
        for name in ("weight", "bias"):
            parameter = module._parameters.get(name)
            if parameter is not None and parameter.ndim == 1:
                parameter.data += torch.randn_like(parameter) * 0.1
    with torch.no_grad():
        model(*inputs)
    model.eval()
