import onnx
import pytest
import torch
from onnx import TensorProto, helper

from autocompress.errors import InputError
from autocompress.export.loading.agreement import inputs_for


def graph(*inputs: tuple[int, list[int | str]]) -> onnx.ModelProto:
    values = [
        helper.make_tensor_value_info(f"input_{i}", kind, dims)
        for i, (kind, dims) in enumerate(inputs)
    ]
    return helper.make_model(helper.make_graph([], "g", values, []))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_inputs_are_made_up_from_the_shapes_of_a_graph():
    wanted = graph((TensorProto.FLOAT, ["batch", 3, 8]), (TensorProto.INT64, ["batch", 6]))
    image, tokens = inputs_for(wanted, None, generator())
    assert (image.dtype, tuple(image.shape)) == (torch.float32, (2, 3, 8))
    assert (tokens.dtype, tuple(tokens.shape)) == (torch.int64, (2, 6))
    assert set(tokens.flatten().tolist()) <= {0, 1}
    assert torch.equal(image, inputs_for(wanted, None, generator())[0])


def test_inputs_of_free_shapes_must_be_given():
    wanted = graph((TensorProto.FLOAT, ["batch", "length", 4]))
    with pytest.raises(InputError, match=r"must have known shapes, but .* \(N, \?, 4\)") as caught:
        inputs_for(wanted, None, generator())
    assert caught.value.hint == "Give `example_inputs`."
    assert inputs_for(wanted, torch.zeros(3, 9, 4), generator())[0].shape == (3, 9, 4)


def test_one_example_becomes_two():
    wanted = graph((TensorProto.FLOAT, ["batch", 4]))
    (doubled,) = inputs_for(wanted, (torch.arange(4.0)[None],), generator())
    assert doubled.tolist() == [[0.0, 1.0, 2.0, 3.0]] * 2


@pytest.mark.parametrize("size", [2**45, 2**62])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT64])
def test_sizes_that_no_memory_holds_are_refused(size: int, kind: int) -> None:
    with pytest.raises(InputError, match="must fit in memory"):
        inputs_for(graph((kind, ["N", size])), None, generator())
