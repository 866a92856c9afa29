import numpy as np
import pytest

from autocompress.analysis.channel_groups import cut_channels_
from autocompress.compress.model_copy import copy_model
from autocompress.export.loading.rebuild import marked_graph
from autocompress.export.loading.widths import packed_sizes, plan_of_sizes
from autocompress.plan import CompressionPlan
from autocompress.runtime.onnx_export import export_onnx

NETS = ["residual", "inverted_bottleneck", "dense_concat", "bert_like", "vit_like", "lstm", "unet"]


@pytest.mark.parametrize("name", NETS)
def test_plan_of_sizes_finds_how_many_channels_went(name, zoo):
    net = zoo(name)
    lost = {g.name: 1 + i % (g.n_channels - 1) for i, g in enumerate(net.profile.groups)}
    cut = copy_model(net.model)
    cut_channels_(cut, [(g, np.arange(lost[g.name])) for g in net.profile.groups])
    packed = export_onnx(cut.eval(), net.inputs, {}).model
    fresh, marks = marked_graph(net.model, net.inputs)
    plan = CompressionPlan(pruning_ratios=dict.fromkeys(lost, 0.5))
    sizes = packed_sizes(fresh, packed, marks)
    found = plan_of_sizes(plan, net.model, net.profile.groups, sizes).pruning_ratios
    wanted = {g.name: lost[g.name] / g.n_channels for g in net.profile.groups}
    assert found == pytest.approx(wanted)


def test_packed_sizes_says_nothing_of_other_networks(zoo):
    fresh, marks = marked_graph(zoo("mlp").model, zoo("mlp").inputs)
    packed = export_onnx(zoo("plain").model, zoo("plain").inputs, {}).model
    assert packed_sizes(fresh, packed, marks) == {}
    plan = CompressionPlan(pruning_ratios={"fc1": 0.5})
    assert plan_of_sizes(plan, zoo("mlp").model, zoo("mlp").profile.groups, {}) == plan
