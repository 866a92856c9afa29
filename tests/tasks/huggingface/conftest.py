import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.needs import need_extra

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any import of its client
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

WORDS = ["a", "bad", "dull", "film", "fine", "good", "great", "story", "the", "very", "was", "plot"]


@pytest.fixture(scope="session", autouse=True)
def _needs_hf() -> None:
    """First of all: other fixtures import what the extra brings."""
    need_extra("hf")


@pytest.fixture(autouse=True)
def _away_from_home(tmp_path_factory, monkeypatch):
    """No network, and no cache in the user's home."""
    import datasets

    folder = tmp_path_factory.mktemp("hf_home")
    monkeypatch.setenv("HF_HOME", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(folder / "autocompress"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def _tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    import transformers

    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    ).save_pretrained(folder)


_TEXT = {
    "vocab_size": 16,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 34,
    "pad_token_id": 0,
}
_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 8,
    "patch_size": 4,
}
_CLASSES = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
_CONVS = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
_DIM = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24, "vocab_size": 16}
_GPT2 = {"vocab_size": 16, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
_ENDS = {"bos_token_id": 2, "eos_token_id": 3}
_PAIRWISE = {"pos_att_type": ["p2c", "c2p"], "relative_attention": True, "position_buckets": 8}
_CONVNEXT = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "image_size": 32}
_SWIN = {"image_size": 8, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2]}

# Name -> class of transformers, its configuration, and the fields of that.
MODELS = {
    "bert": ("BertForSequenceClassification", "BertConfig", {**_TEXT, **_CLASSES}),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {**_DIM, **_CLASSES, "max_position_embeddings": 34},
    ),
    "roberta": ("RobertaForSequenceClassification", "RobertaConfig", {**_TEXT, **_CLASSES}),
    "deberta-v2": (
        "DebertaV2ForSequenceClassification",
        "DebertaV2Config",
        {**_TEXT, **_CLASSES, **_PAIRWISE},
    ),
    "electra": (
        "ElectraForSequenceClassification",
        "ElectraConfig",
        {**_TEXT, **_CLASSES, "embedding_size": 16},
    ),
    "vit": ("ViTForImageClassification", "ViTConfig", {**_VIT, **_CLASSES}),
    "deit": ("DeiTForImageClassification", "DeiTConfig", {**_VIT, **_CLASSES}),
    "swin": (
        "SwinForImageClassification",
        "SwinConfig",
        {**_SWIN, **_CLASSES, "window_size": 2},
    ),
    "convnext": ("ConvNextForImageClassification", "ConvNextConfig", {**_CONVNEXT, **_CLASSES}),
    "resnet": ("ResNetForImageClassification", "ResNetConfig", {**_CONVS, **_CLASSES}),
    "mobilenet_v2": (
        "MobileNetV2ForImageClassification",
        "MobileNetV2Config",
        {"image_size": 32, "depth_multiplier": 0.25, **_CLASSES},
    ),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {**_GPT2, **_ENDS}),
    "llama": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {**_TEXT, **_ENDS, "num_key_value_heads": 1, "tie_word_embeddings": True},
    ),
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        {**_TEXT, **_ENDS, "ffn_dim": 24, "word_embed_proj_dim": 16},
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**_TEXT, **_ENDS}),
}


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory) -> Callable[[str], Path]:
    """A `save_pretrained` folder of a tiny model, by name; do not change it."""
    made: dict[str, Path] = {}

    def save(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            class_name, config_name, fields = MODELS[name]
            torch.manual_seed(0)
            import transformers

            config = getattr(transformers, config_name)(**fields)
            getattr(transformers, class_name)(config).save_pretrained(folder)
            if class_name.endswith("ImageClassification"):
                size = getattr(config, "image_size", 8)
                transformers.ViTImageProcessorPil(
                    size={"height": size, "width": size}
                ).save_pretrained(folder)
            else:
                _tokenizer(folder)
            made[name] = folder
        return made[name]

    return save


@pytest.fixture(scope="session")
def sentences(tmp_path_factory) -> Path:
    """Tab-separated sentences, 48 to train on and 12 dev ones, with the oddities of SST-2."""
    folder = tmp_path_factory.mktemp("sentences")
    for name, column, n_rows in (("train", "sentence", 48), ("dev", "content", 12)):
        rows = [
            f"{i % 2}\tthe film was very {WORDS[1 + i % 4]} {WORDS[i % 12]}" for i in range(n_rows)
        ]
        rows[0] = '0\tthe "film was bad'
        (folder / "README.md").write_text("Sentences.")
        (folder / f"{name}.tsv").write_text(f"label\t{column}\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder of images by class: train with 40 and test with 8, of several sizes and modes."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for split, n_images in (("train", 20), ("test", 4)):
        for label, name in enumerate(("negative", "positive")):
            (folder / split / name).mkdir(parents=True)
            for i in range(n_images):
                pixels = generator.integers(0, 128, (9, 12 + i % 2, 3), dtype=np.uint8)
                image = Image.fromarray(pixels + np.uint8(120 * label))
                image = image.convert("L") if i == 3 else image
                image.save(folder / split / name / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def plays(tmp_path_factory) -> Path:
    """A folder of text: train.txt and validation.txt, two documents each."""
    folder = tmp_path_factory.mktemp("plays")
    for name, n_lines in (("train", 60), ("validation", 20)):
        lines = [f"the {WORDS[i % 5]} story was {WORDS[i % 7]}" for i in range(n_lines)]
        half = n_lines // 2
        text = "\n".join(lines[:half]) + "\n<end>\n" + "\n".join(lines[half:])
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture
def edited_model(saved_model, tmp_path) -> Callable[..., Path]:
    """A copy of a saved model whose config.json differs in some fields; None removes one."""

    def edit(name: str, **fields: object) -> Path:
        import shutil

        folder = tmp_path / name
        shutil.copytree(saved_model(name), folder)
        config = json.loads((folder / "config.json").read_text())
        config.update(fields)
        config = {key: value for key, value in config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return edit
