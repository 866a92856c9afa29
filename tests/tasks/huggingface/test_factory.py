import pytest
import torch

from autocompress.errors import InputError
from autocompress.tasks.factory import load_task
from autocompress.tasks.prepare import prepare_task

KIND_OF = {
    **dict.fromkeys(("bert", "distilbert", "roberta", "deberta-v2", "electra"), "sentences"),
    **dict.fromkeys(("vit", "deit", "swin", "convnext", "resnet", "mobilenet_v2"), "pictures"),
    **dict.fromkeys(("gpt2", "llama", "opt", "gpt_neox"), "plays"),
}


@pytest.fixture
def load(saved_model, request):
    def of(name, **arguments):
        data = request.getfixturevalue(KIND_OF[name])
        return load_task("hf", {"model": str(saved_model(name)), "dataset": str(data), **arguments})

    return of


@pytest.mark.parametrize("name", KIND_OF)
def test_hf_makes_a_task_that_holds_its_contracts(load, name):
    arguments = {"length": "8"} if KIND_OF[name] == "plays" else {}
    task = load(name, **arguments)

    prepared = prepare_task(task)

    inputs, targets = prepared.train.batch(slice(0, 4))
    task.loss(task.model(*inputs), targets).backward()
    assert all(p.grad is not None for n, p in task.model.named_parameters() if "layers.0" in n)
    assert not task.model.training


def test_hf_computes_what_transformers_does(load, saved_model):
    import transformers

    task = load("gpt2", length="8")
    reference = transformers.AutoModelForCausalLM.from_pretrained(saved_model("gpt2")).eval()
    (tokens,), _ = task.train.batch(slice(0, 3))

    with torch.no_grad():
        ours, theirs = task.model(tokens), reference(tokens).logits

    torch.testing.assert_close(ours.transpose(1, 2), theirs, atol=1e-5, rtol=1e-5)


def test_hf_names_the_choices_when_the_kind_is_unknown(load):
    with pytest.raises(InputError, match=r"kind.*translation") as caught:
        load("bert", kind="translation")
    assert "causal-lm, image-classification, text-classification" in str(caught.value)


def test_hf_refuses_a_model_of_another_kind(edited_model, sentences):
    folder = edited_model("bert", architectures=["BertForMaskedLM"])
    with pytest.raises(InputError, match="says BertForMaskedLM"):
        load_task("hf", {"model": str(folder), "dataset": str(sentences)})


def test_hf_takes_the_kind_that_is_given(edited_model, sentences):
    folder = edited_model("bert", architectures=None)
    task = load_task(
        "hf", {"model": str(folder), "dataset": str(sentences), "kind": "text-classification"}
    )
    assert task.name == "bert"


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("bert", {"metric": "perplexity"}, "`metric` goes with causal-lm only, but got 'perp"),
        ("bert", {"documents": "nonsense"}, "`documents` goes with causal-lm only"),
        ("bert", {"image": "x"}, "`image` goes with image-classification only"),
        ("vit", {"text": "x"}, "`text` goes with text-classification, causal-lm only"),
        ("gpt2", {"label": "x"}, "but got 'x' for a task of causal-lm"),
        ("vit", {"max_val": "3"}, "`max_val` limits the val split, but got 3 for .* gives none"),
        ("bert", {"max_test": "3"}, "`max_test` limits the test split"),
        ("gpt2", {"max_train": "0"}, "`max_train` must be at least 1, but got 0"),
    ],
)
def test_hf_refuses_arguments_that_nothing_would_look_at(load, name, arguments, problem):
    with pytest.raises(InputError, match=problem):
        load(name, **arguments)


@pytest.mark.parametrize("field", ["learning_rate", "proxy_epochs"])
@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan"])
def test_hf_refuses_numbers_that_are_not_positive(load, field, value):
    with pytest.raises(InputError, match=f"`{field}` must be a positive number, but got {value}"):
        load("bert", **{field: value})


@pytest.mark.parametrize("field", ["length", "batch_size"])
def test_hf_refuses_numbers_below_one(load, field):
    with pytest.raises(InputError, match=f"`{field}` must be at least 1, but got 0"):
        load("bert", **{field: "0"})
