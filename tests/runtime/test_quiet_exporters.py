"""What PyTorch's exporters refuse is raised, in one line, and not printed as well."""

import logging
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from autocompress.errors import TrialError
from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.quiet_exporters import quiet_exporters
from autocompress.runtime.registry import RUNTIMES
from tests.needs import need_extra


class Undecided(nn.Module):
    """Takes a branch that depends on its input, which no exporter can follow."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        y = self.layer(x)
        return y if y.sum() > 0 else -y


@pytest.mark.parametrize("name", ["executorch", "torch_export"])
def test_a_runtime_that_refuses_a_model_prints_nothing(tmp_path, capfd, caplog, name):
    runtime = next(runtime for runtime in RUNTIMES if runtime.name == name)
    if runtime.extra:
        need_extra(runtime.extra)
    deployable = SimpleNamespace(model=Undecided().eval(), activations={})
    shipment = SimpleNamespace(deployable=deployable, example_inputs=(torch.zeros(2, 5),))
    with pytest.raises(TrialError, match=r"refuses the model: .*data-dependent") as caught:
        runtime.write(shipment, tmp_path / f"model{runtime.suffix}", 1)
    assert "\n" not in caught.value.message
    printed = capfd.readouterr()
    assert "def forward" not in printed.out + printed.err
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_export_onnx_of_inputs_that_do_not_fit_prints_nothing(capfd, caplog):
    with pytest.raises(TrialError, match="cannot be written as ONNX") as caught:
        export_onnx(nn.Linear(5, 3).eval(), (torch.zeros(2, 6),), {})
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def refuse():
    print("out")
    print("err", file=sys.stderr)
    logging.getLogger("torch").error("traceback")
    raise ValueError("why")


def test_quiet_exporters_puts_everything_back(capsys, caplog):
    with pytest.raises(ValueError, match="why"), quiet_exporters():
        refuse()
    print("after")
    logging.getLogger("torch").error("after")
    assert capsys.readouterr().out == "after\n"
    assert caplog.messages == ["after"]
