"""Turn the trained 260,000-parameter Llama of TinyStories into what transformers reads.

    python benchmarks/llama_to_hf.py --data FOLDER --out llama_hf

FOLDER holds `models/tinystories_llama_260k.safetensors` and `.tok512.bin` (karpathy's stories260K
for llama2.c) and `text/tinystories/`. Written are `llama_hf/model` (a `save_pretrained` folder with
its tokenizer) and `llama_hf/data` (`train.txt`; `validation.txt`, each tenth story of it; and
`test.txt`, the stories that TinyStories keeps for validation). Then:

    autocompress search hf --model llama_hf/model --dataset llama_hf/data \
        --task-arg documents=separate --task-arg "separator=<|endoftext|>" --task-arg length=256 ...

It ends by measuring the loss on `test.txt`, each story by itself: 1.266 nats a token.
"""

import argparse
import json
import math
import struct
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

N_HEADS, N_KEY_VALUE_HEADS = 8, 4
SEPARATOR = "<|endoftext|>"
EVERY = 10  # story of the training text that is kept aside
NAMES = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def halved(weight: Tensor, n_heads: int) -> Tensor:
    """Rows (heads · pairs · 2, I) of rotated pairs -> each head's first halves, then its second.

    Llama rotates neighbours, transformers the two halves of a head: the same rows in another order.
    """
    n_out, n_in = weight.shape
    pairs = weight.view(n_heads, n_out // n_heads // 2, 2, n_in)
    return pairs.transpose(1, 2).reshape(n_out, n_in).contiguous()


def convert(state: dict[str, Tensor]) -> LlamaForCausalLM:
    n_tokens, width = state["tok_embeddings.weight"].shape
    n_layers = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("layers."))
    config = LlamaConfig(
        vocab_size=n_tokens,
        hidden_size=width,
        intermediate_size=state["layers.0.feed_forward.w1.weight"].shape[0],
        num_hidden_layers=n_layers,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_KEY_VALUE_HEADS,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config).eval()
    renamed = {
        "model.embed_tokens.weight": state["tok_embeddings.weight"],
        "lm_head.weight": state["tok_embeddings.weight"],
        "model.norm.weight": state["norm.weight"],
    }
    for i in range(n_layers):
        for ours, theirs in NAMES.items():
            weight = state[f"layers.{i}.{ours}.weight"]
            if ours in ("attention.wq", "attention.wk"):
                weight = halved(weight, N_HEADS if ours.endswith("q") else N_KEY_VALUE_HEADS)
            renamed[f"model.layers.{i}.{theirs}.weight"] = weight
    model.load_state_dict(renamed)
    return model


def read_pieces(path: Path) -> list[tuple[str, float]]:
    """Pieces and their scores, in llama2.c's format."""
    content = path.read_bytes()
    pieces, at = [], 4  # after the longest piece's length
    while at < len(content):
        score, length = struct.unpack_from("<fi", content, at)
        at += 8
        pieces.append((content[at : at + length].decode("utf-8"), score))
        at += length
    return pieces


def make_tokenizer(pieces: list[tuple[str, float]]) -> PreTrainedTokenizerFast:
    """The pair of the best score is merged first: a BPE whose merges are sorted by score."""
    numbers = {"<unk>": 0, "<s>": 1, "</s>": 2}
    numbers |= {piece: i for i, (piece, _) in enumerate(pieces) if i > 2}
    merges = []
    for piece, score in pieces[259:]:  # the special ones and the 256 bytes are no merges
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in numbers and right in numbers:
                merges.append((-score, (left, right)))
    merges.sort(key=lambda item: item[0])
    tokenizer = Tokenizer(
        models.BPE(
            vocab=numbers,
            merges=[pair for _, pair in merges],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )


def write_data(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = (source / "train_head_2MB.txt").read_text(encoding="utf-8", errors="ignore")
    stories = [story.strip() for story in text.split(SEPARATOR) if story.strip()]
    stories.pop()  # cut off in the middle
    kept = stories[EVERY - 1 :: EVERY]
    rest = [story for i, story in enumerate(stories) if i % EVERY != EVERY - 1]
    test = (source / "valid_5_stories.txt").read_text(encoding="utf-8")
    for name, part in (("train", rest), ("validation", kept)):
        (folder / f"{name}.txt").write_text(f"\n{SEPARATOR}\n".join(part), encoding="utf-8")
    (folder / "test.txt").write_text(test, encoding="utf-8")


@torch.no_grad()
def loss_of(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, text: str) -> dict:
    """Loss of each story by itself, mean over tokens."""
    total, n_tokens = 0.0, 0
    for story in filter(None, map(str.strip, text.split(SEPARATOR))):
        ids = torch.tensor([tokenizer(story)["input_ids"][:513]])
        logits = model(ids[:, :-1]).logits
        total += float(F.cross_entropy(logits[0], ids[0, 1:], reduction="sum"))
        n_tokens += ids.shape[1] - 1
    return {
        "loss_nats": round(total / n_tokens, 4),
        "perplexity": round(math.exp(total / n_tokens), 4),
        "n_tokens": n_tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    weights = options.data / "models" / "tinystories_llama_260k"
    model = convert(load_file(weights.with_suffix(".safetensors")))
    tokenizer = make_tokenizer(read_pieces(weights.with_suffix(".tok512.bin")))
    model.save_pretrained(options.out / "model")
    tokenizer.save_pretrained(options.out / "model")
    write_data(options.data / "text" / "tinystories", options.out / "data")
    size = (options.out / "model" / "model.safetensors").stat().st_size
    test = (options.out / "data" / "test.txt").read_text(encoding="utf-8")
    print(json.dumps({"fp32_bytes": size, **loss_of(model, tokenizer, test)}))


if __name__ == "__main__":
    main()
