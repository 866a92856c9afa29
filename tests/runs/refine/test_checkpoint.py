from pathlib import Path

import pytest
import torch

from autocompress.errors import InputError
from autocompress.runs.refine.checkpoint import read_checkpoint, write_checkpoint


def test_checkpoint_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.checkpoint"
    groups = {
        "model": {"conv.weight": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)},
        "training": {"a/b": torch.arange(5), "half": torch.randn(3).bfloat16()},
    }
    facts = {"level": 2, "epochs": [{"loss": 0.1 + 0.2, "bits": None}]}
    write_checkpoint(path, groups, facts)
    read, told = read_checkpoint(path)
    assert told == facts
    assert read.keys() == groups.keys()
    for group, tensors in groups.items():
        assert read[group].keys() == tensors.keys()
        assert all(torch.equal(read[group][name], tensor) for name, tensor in tensors.items())
        assert all(read[group][name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert [file.name for file in path.parent.iterdir()] == ["a.checkpoint"]


def test_checkpoint_takes_tensors_that_are_one(tmp_path: Path) -> None:
    weight = torch.randn(3, 3)
    write_checkpoint(tmp_path / "c", {"model": {"a": weight, "b": weight.T}}, {})
    assert torch.equal(read_checkpoint(tmp_path / "c")[0]["model"]["b"], weight.T)


@pytest.mark.parametrize("damage", ["truncated", "flipped header", "empty", "text", "no facts"])
def test_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.checkpoint"
    write_checkpoint(path, {"model": {"w": torch.zeros(100)}}, {"level": 0})
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncated": whole[:-7],
            "flipped header": whole[:12] + b"\xff" + whole[13:],
            "empty": b"",
            "text": b"not a checkpoint",
            "no facts": whole.replace(b'"facts"', b'"stcaf"'),
        }[damage]
    )
    with pytest.raises(
        InputError, match=r"The checkpoint .*a\.checkpoint cannot be read"
    ) as caught:
        read_checkpoint(path)
    assert "\n" not in caught.value.message
    assert caught.value.hint == "Delete it to start this training anew."


def test_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file" / "a.checkpoint"
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="must be writable"):
        write_checkpoint(path, {}, {})
    assert (tmp_path / "file").read_text() == "in the way"
