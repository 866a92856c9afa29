import math

import pytest
import torch

from autocompress.errors import InputError
from autocompress.tasks.factory import load_task
from autocompress.tasks.huggingface import causal_lm
from autocompress.tasks.huggingface.causal_lm import (
    inverse_perplexity,
    token_accuracy,
    token_loss,
)


@pytest.fixture
def load(saved_model, plays):
    def of(name="llama", **arguments):
        given = {"model": str(saved_model(name)), "dataset": str(plays), "length": "8"}
        return load_task("hf", given | arguments)

    return of


def test_metrics_leave_out_what_has_no_target():
    logits = torch.zeros(1, 4, 3)  # (N, V, T)
    logits[0, 2, 0] = 5.0
    targets = torch.tensor([[2, 1, -100]])

    p = math.exp(5) / (math.exp(5) + 3)
    assert float(token_loss(logits, targets)) == pytest.approx(-(math.log(p) + math.log(0.25)) / 2)
    assert inverse_perplexity(logits, targets) == pytest.approx(math.sqrt(p * 0.25))
    assert token_accuracy(logits, targets) == 0.5


@pytest.mark.parametrize(
    ("metric", "name"),
    [("accuracy", "next-token accuracy"), ("perplexity", "1 / perplexity per token")],
)
def test_metric_says_what_it_is(load, metric, name):
    assert load(metric=metric).metric_name == name


def test_joined_text_is_one_stream_of_blocks(load):
    train = load().train

    tokens, targets = train.inputs[0], train.targets
    assert tokens.shape == targets.shape == (len(train), 8)
    assert torch.equal(tokens.flatten()[1:], targets.flatten()[:-1])


def test_line_breaks_and_separators_stay_in_a_text_that_is_not_split(load, saved_model, plays):
    from transformers import AutoTokenizer

    text = (plays / "train.txt").read_text()
    ids = AutoTokenizer.from_pretrained(saved_model("llama"))(text)["input_ids"]

    stream = load().train.inputs[0].flatten()

    assert stream.tolist() == ids[: len(stream)]
    assert len(ids) - len(stream) <= 8


def test_separate_documents_begin_a_block_each(load):
    train = load(documents="separate", separator="<end>", length="32").train

    assert len(train) == 2
    assert train.inputs[0][:, 0].tolist() == [2, 2]  # [CLS]


def test_short_documents_are_padded_where_nothing_is_asked(load, tmp_path):
    (tmp_path / "train.txt").write_text("the film<end>the plot was very good")
    task = load(dataset=str(tmp_path), documents="separate", separator="<end>")

    tokens, targets = task.train.inputs[0], task.train.targets
    assert (targets != -100).sum(dim=1).tolist() == [3, 6]
    assert torch.equal(tokens[0, 1:3], targets[0, :2])
    with torch.no_grad():
        loss = task.loss(task.model(tokens), targets)
        alone = task.loss(task.model(tokens[:1, :3]), targets[:1, :3])
        other = task.loss(task.model(tokens[1:, :6]), targets[1:, :6])
    assert float(loss) == pytest.approx((3 * float(alone) + 6 * float(other)) / 9, rel=1e-4)


def test_column_of_tokens_needs_no_tokenizer(saved_model, tmp_path):
    import datasets

    rows = datasets.Dataset.from_dict({"input_ids": [list(range(16)), list(range(3, 12))]})
    rows.to_parquet(tmp_path / "train.parquet")
    task = load_task(
        "hf", {"model": str(saved_model("gpt2")), "dataset": str(tmp_path), "length": "5"}
    )
    assert task.train.inputs[0][0].tolist() == [0, 1, 2, 3, 4]


def test_tied_embeddings_stay_tied(load):
    model = load("llama").model.model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_most_blocks_are_the_same_random_ones(load):
    first, again = (load(max_train="4").train for _ in range(2))
    assert len(first) == 4
    assert torch.equal(first.targets, again.targets)


def test_judged_blocks_are_as_many_as_fit_into_memory(load, monkeypatch, caplog):
    monkeypatch.setattr(causal_lm, "_MOST_LOGIT_BYTES", 3 * 4 * 8 * 16)

    assert len(load().val) == 3
    assert "val split is judged on 3 of its" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"length": "33"}, "at most the model's 32 tokens, but got 33"),
        ({"documents": "apart"}, "Unknown way to treat `documents`"),
        ({"metric": "bleu"}, "Unknown metric"),
        ({"text": "story"}, "Unknown column"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(load, arguments, problem):
    with pytest.raises(InputError, match=problem):
        load(**arguments)


def test_text_shorter_than_a_block_is_refused(load, tmp_path):
    (tmp_path / "train.txt").write_text("the film")
    with pytest.raises(InputError, match=r"at least one block of 8 tokens .* has 4 tokens"):
        load(dataset=str(tmp_path))


def test_tokens_beyond_the_vocabulary_are_refused(edited_model, saved_model, plays):
    import transformers

    folder = edited_model("gpt2")
    config = transformers.GPT2Config(vocab_size=9, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    with pytest.raises(InputError, match=r"below the model's vocabulary of 9, but .* gives 1"):
        load_task("hf", {"model": str(folder), "dataset": str(plays), "length": "8"})
