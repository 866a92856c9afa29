"""What every quantizer must do: all bits and granularities, along both axes, masked."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compress.codes import CodebookTensor, GridTensor, HashedTensor, QuantizedTensor
from autocompress.compress.quantizers.codebook import n_entries
from autocompress.compress.quantizers.registry import (
    QUANTIZERS,
    parse_granularity,
    why_not_quantize,
)
from tests.needs import need_extra

GRANULARITY = {"channel": "channel", "tensor": "tensor", "group": "group:8"}
WEIGHTS = {"matrix": (6, 20), "kernel": (4, 3, 3, 3), "recurrent": (12, 9)}


def _cases(n_of_each):
    """All bits with all granularities; pairs of an axis and a mask take turns."""
    turns = itertools.cycle([(0, False), (1, True), (1, False), (0, True)])
    for name, spec in QUANTIZERS.items():
        for kind, bits in itertools.product(spec.granularities, spec.bits):
            for axis, has_mask in itertools.islice(turns, n_of_each):
                is_masked = has_mask and spec.takes_masks
                case_id = f"{name}-{bits}-{kind}-{axis}-{'masked' if is_masked else 'dense'}"
                yield pytest.param(name, bits, GRANULARITY[kind], axis, is_masked, id=case_id)


def _weight(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _make(name, bits, granularity, axis, is_masked, shape):
    if name == "nni_qat":
        need_extra("nni")
    weight = _weight(shape)
    mask = _weight(shape, seed=1) > 0 if is_masked else None
    spec = QUANTIZERS[name]
    return spec.make(weight, bits, parse_granularity(granularity), axis, mask), weight, mask


def _shape(axis):
    return (20, 6) if axis else (6, 20)


@pytest.mark.parametrize(("name", "bits", "granularity", "axis", "is_masked"), [*_cases(2)])
def test_quantizer_keeps_its_contract(name, bits, granularity, axis, is_masked):
    """Frozen equals forward bit for bit; masks hold; few values; gradients reach what learns."""
    quantizer, weight, mask = _make(name, bits, granularity, axis, is_masked, _shape(axis))
    weight = weight + 0.05 * _weight(weight.shape, seed=2)  # it moved since the quantizer was made
    weight.requires_grad_()
    values = quantizer(weight, mask)
    assert values.shape == weight.shape
    assert torch.isfinite(values).all()
    frozen = quantizer.freeze(weight, mask)
    dequantized = frozen.dequantize()
    assert dequantized.dtype == np.float32
    assert np.array_equal(dequantized, values.detach().numpy())
    _check_stored(frozen, bits, granularity, axis, is_masked, weight.shape)
    if mask is not None:
        assert (values[~mask] == 0).all()
    _check_levels(quantizer, values, mask)
    values.backward(_weight(weight.shape, seed=3))
    for parameter in quantizer.parameters():
        assert parameter.ndim == 1  # or weight decay would pull it
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad != 0).any()
    if name != "hashed":  # there the weight only says where the values start
        assert (weight.grad != 0).any()
        assert mask is None or (weight.grad[~mask] == 0).all()


def _check_stored(frozen, bits, granularity, axis, is_masked, shape):
    assert frozen.axis == axis
    top = 2**frozen.bits
    assert frozen.bits in {int(np.ceil(bits)), int(np.ceil(bits)) + 1 if bits < 2 else -1}
    if isinstance(frozen, HashedTensor):
        assert len(frozen.values) == max(1, round(np.prod(shape) * bits / 16))
        assert frozen.shape == tuple(shape)
        return
    assert frozen.codes.shape == tuple(shape)
    if isinstance(frozen, QuantizedTensor):
        assert frozen.codes.dtype == np.int8
        assert -top // 2 <= frozen.codes.min() <= frozen.codes.max() < top // 2
        assert frozen.scale.shape == (shape[axis],)
        assert (frozen.scale > 0).all()
        if bits < 2:
            assert set(np.unique(frozen.codes)) <= ({-1, 1} | ({0} if is_masked else set())) | (
                {0} if bits > 1 else set()
            )
    if isinstance(frozen, GridTensor):
        n_blocks = -(-(np.prod(shape) // shape[axis]) // frozen.block_size)
        assert frozen.codes.dtype == frozen.zero_point.dtype == np.uint8
        assert frozen.codes.max() < top
        assert frozen.zero_point.max() < top
        assert frozen.scale.shape == frozen.zero_point.shape == (shape[axis], n_blocks)
        assert (frozen.scale > 0).all()
        assert frozen.block_size == 8 or not granularity.startswith("group")
    if isinstance(frozen, CodebookTensor):
        assert frozen.codes.dtype == np.uint8
        assert frozen.codes.max() < len(frozen.codebook) <= top
        assert len(frozen.codebook) <= n_entries(bits, is_masked)
        assert (np.diff(frozen.codebook) >= 0).all()
        assert frozen.codebook.dtype == frozen.scale.dtype == np.float32
        assert (frozen.scale > 0).all()


def _check_levels(quantizer, values, mask):
    """Every value is one of its block's levels, or a masked 0."""
    levels = quantizer.levels()
    if levels is None:
        return
    assert (levels.diff(dim=1) >= 0).all()
    rows = quantizer.blocks.rows(values.detach())
    members = quantizer.blocks.members(mask)
    assert len(levels) == len(rows) or len(levels) == 1
    for i, row in enumerate(rows):
        known = set(levels[min(i, len(levels) - 1)].tolist())
        assert set(row[members[i]].tolist()) <= known


@pytest.mark.parametrize(("name", "bits", "granularity", "axis", "is_masked"), [*_cases(1)])
def test_quantizer_leaves_its_own_values_alone(name, bits, granularity, axis, is_masked):
    quantizer, weight, mask = _make(name, bits, granularity, axis, is_masked, _shape(axis))
    with torch.no_grad():
        once = quantizer(weight, mask)
        assert torch.equal(quantizer(once, mask), once)


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("shape", WEIGHTS.values(), ids=WEIGHTS)
def test_quantizer_is_deterministic_and_leaves_the_weight_alone(name, shape):
    spec = QUANTIZERS[name]
    case = (name, spec.bits[-1], GRANULARITY[spec.granularities[0]], 0, False, shape)
    first, weight, _ = _make(*case)
    second, _, _ = _make(*case)
    assert torch.equal(weight, _weight(shape))
    assert torch.equal(first(weight), second(weight))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_quantizer_survives_copies_and_its_state(name):
    spec = QUANTIZERS[name]
    case = (name, spec.bits[0], GRANULARITY[spec.granularities[0]], 0, spec.takes_masks)
    quantizer, weight, mask = _make(*case, (6, 20))
    other, _, _ = _make(*case, (6, 20))
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.mul_(1.25)
    expected = quantizer(weight, mask)
    assert torch.equal(copy.deepcopy(quantizer)(weight, mask), expected)
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other(weight, mask), expected)


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("is_masked", [False, True])
def test_quantizer_survives_weights_of_zero(name, is_masked):
    spec = QUANTIZERS[name]
    if is_masked and not spec.takes_masks:
        pytest.skip("it takes no masks, and the table says so")
    if name == "nni_qat":
        need_extra("nni")
    for bits in spec.bits:
        for kind in spec.granularities:
            weight = torch.zeros(4, 16)
            mask = torch.zeros(4, 16, dtype=torch.bool) if is_masked else None
            quantizer = spec.make(weight, bits, parse_granularity(GRANULARITY[kind]), 0, mask)
            values = quantizer(weight, mask)
            assert values.abs().max() < 1e-6
            assert torch.isfinite(values).all()


@pytest.mark.parametrize("name", QUANTIZERS)
def test_quantizer_learns(name):
    """A few steps of gradient descent bring the values closer to a target."""
    spec = QUANTIZERS[name]
    bits = 3 if 3 in spec.bits else spec.bits[-1]
    quantizer, weight, _ = _make(name, bits, GRANULARITY[spec.granularities[0]], 0, False, (6, 20))
    weight, target = nn.Parameter(weight), _weight((6, 20), seed=5)
    optimizer = torch.optim.SGD([weight, *quantizer.parameters()], lr=0.5)
    losses = []
    for _ in range(60):
        loss = (quantizer(weight) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", QUANTIZERS)
def test_table_accepts_what_it_lists(name):
    spec = QUANTIZERS[name]
    for bits in spec.bits:
        for kind in spec.granularities:
            assert why_not_quantize(name, GRANULARITY[kind], bits, "linear", (6, 20)) == ""
