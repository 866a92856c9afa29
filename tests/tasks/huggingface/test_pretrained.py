import importlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from autocompress.errors import InputError
from autocompress.tasks.factory import load_task
from autocompress.tasks.huggingface.pretrained import read_config, read_model, read_tokenizer


def _load(model, data, **arguments):
    return load_task("hf", {"model": str(model), "dataset": str(data), **arguments})


def test_folder_without_a_configuration_is_refused(tmp_path, sentences):
    with pytest.raises(InputError, match=r"must hold config\.json, but does not"):
        _load(tmp_path, sentences)


def test_folder_that_is_not_there_is_refused(tmp_path, sentences):
    with pytest.raises(InputError, match=r"folder must exist, but .*nowhere does not"):
        _load(tmp_path / "nowhere", sentences)


def test_file_instead_of_a_folder_is_refused(saved_model, sentences):
    with pytest.raises(InputError, match=r"must be a folder or a hub name, but .* is a file"):
        _load(saved_model("bert") / "config.json", sentences)


def test_configuration_that_is_no_json_is_refused(edited_model, sentences):
    folder = edited_model("bert")
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"configuration of .* could not be read"):
        _load(folder, sentences)


def test_weights_as_pickle_only_are_refused(edited_model, sentences):
    folder = edited_model("bert")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()

    with pytest.raises(InputError, match=r"must hold safetensors, but has pytorch_model\.bin") as e:
        _load(folder, sentences)
    assert "save_pretrained" in e.value.hint


def test_unknown_architecture_is_refused(edited_model, sentences):
    folder = edited_model("bert", model_type="nothing_like_it")
    with pytest.raises(InputError, match=r"architecture that transformers .* does not know") as e:
        _load(folder, sentences)
    assert "\n" not in e.value.message


def test_code_beside_a_model_is_not_run(edited_model, sentences, tmp_path):
    folder = edited_model(
        "bert", model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    )
    trace = tmp_path / "was_run"
    (folder / "mine.py").write_text(f"open({str(trace)!r}, 'w').close()\n")

    with pytest.raises(InputError):
        _load(folder, sentences)
    assert not trace.exists()


def test_weights_that_lack_the_head_are_refused(edited_model, sentences):
    folder = edited_model("bert")
    state = load_file(folder / "model.safetensors")
    del state["classifier.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})

    with pytest.raises(InputError, match=r"BertForSequenceClassification, but lack classifier\.w"):
        _load(folder, sentences)


def test_damaged_weights_are_refused(edited_model, sentences):
    folder = edited_model("bert")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])

    with pytest.raises(InputError, match=r"weights of .* could not be read"):
        _load(folder, sentences)


def test_folder_without_a_tokenizer_is_refused(edited_model, sentences):
    folder = edited_model("bert")
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(InputError, match=r"tokenizer of .* could not be read") as e:
        _load(folder, sentences)
    assert "tokenizer.save_pretrained(folder)" in e.value.hint


def test_folder_without_an_image_processor_is_refused(edited_model, pictures):
    folder = edited_model("vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"image processor of .* could not be read"):
        _load(folder, pictures)


def test_hub_name_while_offline_is_one_clear_line(sentences):
    with pytest.raises(InputError, match="configuration of 'owner/name' could not be read") as e:
        _load("owner/name", sentences)
    assert "HF_HUB_OFFLINE is set" in e.value.hint
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("package", ["transformers", "datasets"])
def test_missing_extra_is_named(saved_model, sentences, monkeypatch, package):
    def import_module(name, *rest):
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found(name, *rest)

    found = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", import_module)

    with pytest.raises(InputError, match=f"need the package {package!r}") as e:
        _load(saved_model("bert"), sentences)
    assert "pip install 'autocompress[hf]'" in e.value.hint


def test_weights_are_read_as_float32(saved_model, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(saved_model("bert"), folder)
    state = {
        name: t.to(torch.bfloat16) for name, t in load_file(folder / "model.safetensors").items()
    }
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))

    model = read_model("AutoModelForSequenceClassification", str(folder), read_config(str(folder)))

    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training


def test_tokenizer_without_padding_pads_with_its_end(saved_model, tmp_path):
    folder = tmp_path / "tokenizer"
    tokenizer = read_tokenizer(str(saved_model("bert")))
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(folder)

    assert read_tokenizer(str(folder)).pad_token == "[SEP]"
