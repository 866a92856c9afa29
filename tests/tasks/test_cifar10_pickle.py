import io
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.errors import InputError
from autocompress.tasks import cifar10_pickle
from autocompress.tasks.cifar10_pickle import read_pickled_batch


def _good_batch(n=2):
    images = np.arange(n * 3072, dtype=np.uint32).astype(np.uint8).reshape(n, 3072)
    return {b"data": images, b"labels": list(range(n)), b"filenames": [b"a.png"] * n}


def _python2_pickle(images, labels):
    """Protocol 2 as Python 2 and numpy 1 wrote the official batches: byte strings everywhere."""

    def short(text):
        return b"U" + bytes([len(text)]) + text

    shape = b"(" + b"".join(b"M" + struct.pack("<H", size) for size in images.shape) + b"t"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R"
        b"(K\x01" + shape + b"cnumpy\ndtype\n" + short(b"u1") + b"K\x00K\x01\x87R"
        b"(K\x03" + short(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + b"T" + struct.pack("<I", images.size) + images.tobytes() + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + short(b"data") + array + short(b"labels") + numbers + b"u."


@pytest.fixture
def refused(tmp_path):
    """A function that expects a pickle to be refused, and returns the message."""

    def refuse(content):
        path = tmp_path / "data_batch_1"
        path.write_bytes(content)
        with pytest.raises(InputError, match="data_batch_1") as caught:
            read_pickled_batch(path)
        return caught.value.message

    return refuse


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_read_pickled_batch_inverts_pickling(tmp_path, protocol, order):
    batch = _good_batch()
    expected = batch[b"data"].copy()
    batch[b"data"] = np.asarray(batch[b"data"], order=order)
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps(batch, protocol=protocol))

    images, labels = read_pickled_batch(path)

    np.testing.assert_array_equal(images, expected)
    assert labels.tolist() == [0, 1]


def test_read_pickled_batch_reads_what_python_2_wrote(tmp_path):
    images = _good_batch(3)[b"data"]
    content = _python2_pickle(images, [9, 0, 4])
    # The hand-written pickle is a right one: numpy itself reads it.
    np.testing.assert_array_equal(pickle.loads(content, encoding="bytes")[b"data"], images)
    path = tmp_path / "batch"
    path.write_bytes(content)

    read_images, labels = read_pickled_batch(path)

    np.testing.assert_array_equal(read_images, images)
    assert labels.tolist() == [9, 0, 4]


class _Call:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_read_pickled_batch_calls_nothing_of_a_hostile_pickle(tmp_path, refused, protocol):
    victim = tmp_path / "victim"
    hostile = {**_good_batch(), b"x": _Call(open, str(victim), "w")}

    refused(pickle.dumps(hostile, protocol=protocol))

    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x80\x02cos\nsystem\n.", "names os.system"),
        (b"\x80\x02cnumpy\nload\n.", "names numpy.load"),
        (b"\x80\x02cnumpy\nndarray.tofile\n.", "names numpy"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "names os.system"),
        (b"(S'true'\nios\nsystem\n.", "STRING at byte 1 is not admitted"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02Ptricky\n.", "PERSID"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.", "codec 'zip'"),
        (b"\x80\x02c_codecs\nencode\n}b.", "_Latin1"),
        (b"\x80\x02cnumpy\nndarray\n}b.", "_Array"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "memo index 2147483647"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x00.", "expected 72057594037927935 bytes"),
        (b"", "pickle exhausted"),
        (b"\x80\x02N", "pickle exhausted"),
        (b"\x80\x02N.", "holds a NoneType, not a dict"),
        (b"\x80\x02}.", "no 'data' and no 'labels'"),
        (b"not a pickle", "at position 0, opcode"),
    ],
)
def test_read_pickled_batch_refuses(refused, content, reason):
    assert reason in refused(content)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({b"data": np.zeros((2, 3072), np.float32)}, "another dtype than uint8"),
        ({b"data": np.array([{}], dtype=object)}, "another dtype than uint8"),
        ({b"data": [1, 2]}, "'data' is not a uint8 array"),
        ({b"labels": ["cat"]}, "'labels' are not a list of whole numbers"),
        ({b"labels": np.zeros(2, np.uint8)}, "'labels' are not a list of whole numbers"),
    ],
)
def test_read_pickled_batch_refuses_other_contents(refused, change, reason):
    assert reason in refused(pickle.dumps({**_good_batch(), **change}, protocol=4))


def test_read_pickled_batch_refuses_an_array_with_other_bytes_than_its_shape(refused):
    content = pickle.dumps(_good_batch(), protocol=4)
    wrong = content.replace(struct.pack("<H", 3072), struct.pack("<H", 3071))
    assert wrong != content

    assert "other than that many bytes" in refused(wrong)


def test_read_pickled_batch_refuses_a_file_too_large(refused, monkeypatch):
    monkeypatch.setattr(cifar10_pickle, "_MAX_FILE_BYTES", 10)

    assert "at most 10 bytes" in refused(pickle.dumps(_good_batch(), protocol=4))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_read_pickled_batch_survives_any_damage(tmp_path_factory, data):
    buffer = io.BytesIO(pickle.dumps(_good_batch(1), protocol=data.draw(st.sampled_from([2, 4]))))
    content = bytearray(buffer.getvalue())
    header = [i for i in range(len(content)) if i < 200 or i > len(content) - 60]
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.sampled_from(header))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("pickle") / "batch"
    path.write_bytes(bytes(content))

    try:
        images, labels = read_pickled_batch(path)
    except InputError:
        return
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
