import numpy as np
import pytest

from autocompress.analysis.channel_probe import agree, decode, halves

KEY = ("in", "next")


def _coded(reach):
    """What codes see of a matrix (n, C) that says which channel reaches which."""
    index = np.arange(len(reach))
    return {KEY: np.array([reach[half].any(axis=0) for half in halves(index)])}


def _blocks(n, width):
    return np.kron(np.eye(n // width, dtype=bool), np.ones((width, width), dtype=bool))


@pytest.mark.parametrize("n", [2, 33, 64, 100])
def test_a_permutation_is_read_exactly(n):
    reach = np.eye(n, dtype=bool)[np.random.default_rng(0).permutation(n)]
    decoded = decode(_coded(reach), n)
    assert np.array_equal(decoded.hits[KEY], reach)
    assert decoded.doubtful == ()


def test_channels_that_are_not_reached_stay_so():
    reach = np.concatenate([np.zeros((40, 5), bool), np.eye(40, dtype=bool)[:, :30]], axis=1)
    decoded = decode(_coded(reach), 40)
    assert np.array_equal(decoded.hits[KEY], reach)


def test_heads_are_read_as_blocks_with_three_channels_to_look_at():
    reach = _blocks(96, 32)
    decoded = decode(_coded(reach), 96)
    assert np.array_equal(decoded.hits[KEY], reach)
    assert decoded.doubtful == (0, 16, 31, 32, 48, 63, 64, 80, 95)
    own = {KEY: reach[list(decoded.doubtful)]}
    assert agree(decoded, own)


@pytest.mark.parametrize(
    "reach", [_blocks(96, 24), np.eye(64, dtype=bool) | np.eye(64, k=3, dtype=bool)]
)
def test_what_is_no_block_of_bits_is_found_out(reach):
    decoded = decode(_coded(reach), len(reach))
    assert decoded is not None
    assert not agree(decoded, {KEY: reach[list(decoded.doubtful)]})


def test_codes_that_contradict_each_other_are_not_read():
    coded = _coded(np.eye(64, dtype=bool))
    coded[KEY][2:4, 7] = False  # a gate was shut just then
    assert decode(coded, 64) is None
