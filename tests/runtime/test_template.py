"""A derived graph is, byte for byte, what exporting anew gives."""

import copy

import pytest
import torch
from torch import Tensor, nn

from autocompress.runtime.dynamic import dynamic_layers, to_dynamic
from autocompress.runtime.onnx_export import export_onnx, make_templates
from autocompress.runtime.onnxruntime import executed_ops


def changed(module: nn.Module, width: int | None = None) -> nn.Module:
    """The same net with other weights, and another width of its first layers."""
    other = copy.deepcopy(module)
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return other.eval()


class Sliced(nn.Module):
    """Bakes its width into the graph, in a way that gives other numbers but no error."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, width), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(y[:, self.first.out_features // 2 :][:, :2])


def plain(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, groups=width),
        nn.Flatten(),
        nn.Linear(width * 16, 5),
    ).eval()


NAMES = ("plain", "residual", "depthwise_and_grouped", "shared", "attention", "mlp", "conv1d")


@pytest.mark.parametrize("name", NAMES)
def test_derived_graph_equals_one_exported_anew(name, build):
    module, x = build(name)
    templates = make_templates()
    export_onnx(module, (x,), {}, templates)
    other = changed(module)
    derived = export_onnx(other, (x,), {}, templates)
    assert (templates.n_exported, templates.n_derived) == (1, 1)
    anew = export_onnx(other, (x,), {}, make_templates())
    assert derived.model.SerializeToString() == anew.model.SerializeToString()
    assert derived.layer_nodes == anew.layer_nodes


def test_derived_graph_takes_other_widths_and_groups():
    x = torch.randn(2, 3, 8, 8)
    templates = make_templates()
    export_onnx(plain(16), (x,), {}, templates)
    narrow = changed(plain(8))
    derived = export_onnx(narrow, (x,), {}, templates)
    assert templates.n_derived == 1
    anew = export_onnx(narrow, (x,), {}, make_templates())
    assert derived.model.SerializeToString() == anew.model.SerializeToString()


class Heads(nn.Module):
    """Attention's way to split channels: the graph knows how many there are."""

    def __init__(self, width):
        super().__init__()
        self.mix, self.width = nn.Linear(4, width), width

    def forward(self, x):
        return self.mix(x).reshape(len(x), 2, self.width // 2)


def test_a_graph_that_cannot_run_is_exported_anew_without_a_word(capfd):
    x, templates = torch.randn(2, 4), make_templates()
    export_onnx(Heads(8).eval(), (x,), {}, templates)
    capfd.readouterr()
    export_onnx(Heads(12).eval(), (x,), {}, templates)
    assert (templates.n_exported, templates.n_derived) == (2, 0)
    assert "onnxruntime" not in capfd.readouterr().err


def test_graph_with_a_width_baked_in_is_exported_anew():
    x = torch.randn(2, 4)
    templates = make_templates()
    export_onnx(Sliced(8).eval(), (x,), {}, templates)
    export_onnx(changed(Sliced(12)), (x,), {}, templates)
    assert (templates.n_exported, templates.n_derived) == (2, 0)


def test_equal_weights_do_not_become_one():
    """Untrained norms are equal, and the exporter gives equal tensors one name."""
    module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4))
    x = torch.randn(2, 3, 4)
    templates = make_templates()
    export_onnx(module.eval(), (x,), {}, templates)
    other = changed(module)
    derived = export_onnx(other, (x,), {}, templates)
    assert templates.n_derived == 1
    anew = export_onnx(other, (x,), {}, make_templates())
    assert derived.model.SerializeToString() == anew.model.SerializeToString()


def test_large_transposed_weights_keep_their_names_and_codes(quantize):
    """Matrices above the size that is computed early are transposed later."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(96, 80), nn.ReLU(), nn.Linear(80, 96)).eval()
    x = torch.randn(2, 3, 96)
    templates = make_templates()
    export_onnx(module, (x,), {}, templates)
    weights = quantize(module)
    derived = export_onnx(module, (x,), weights, templates)
    assert templates.n_derived == 1
    assert set(derived.quantized) == {"0.weight", "2.weight"}
    names = {item.name for item in derived.model.graph.initializer}
    assert set(derived.quantized) <= names
    assert dynamic_layers(derived, weights) == ("0", "2")
    assert executed_ops(to_dynamic(derived, ("0", "2")).model)["DynamicQuantizeMatMul"] == 2
