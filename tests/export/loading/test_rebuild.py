import torch
from torch import nn

from autocompress.compress.compressed_layers import is_compressed
from autocompress.export.loading.counterparts import NORM_MARK
from autocompress.export.loading.rebuild import marked_graph, structure_of
from autocompress.plan import CompressionPlan, LayerPlan


def test_structure_of_builds_factors_and_widths_but_quantizes_nothing(zoo, model_hash):
    net = zoo("residual")
    layer = LayerPlan(rank_ratio=0.25, sparsity=0.5, weight_bits=4, activation_bits=8)
    plan = CompressionPlan(
        pruning_ratios={net.profile.groups[0].name: 0.5}, layers={"conv1": layer, "conv3": layer}
    )
    before = model_hash(net.model)
    built = structure_of(net.model, plan, net.profile.groups, net.inputs, round_to=1)
    assert model_hash(net.model) == before
    assert isinstance(built.conv1, nn.Sequential)
    assert not any(is_compressed(module) for module in built.modules())
    assert sum(p.numel() for p in built.parameters()) < net.profile.n_params


def test_marked_graph_keeps_norms_and_leaves_the_model_alone(model_hash):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    before = model_hash(model)
    graph, marks = marked_graph(model, (torch.randn(2, 3, 6, 6),))
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds == ["Conv", NORM_MARK, "BatchNormalization"]
    assert marks.n_elements == 3 * 4 * 9 + 4 + 4 * 4
    assert model_hash(model) == before
    assert not model[1]._forward_pre_hooks
