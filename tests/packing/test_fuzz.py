"""Thousands of damaged and hostile files: refused in one line, or what was packed; nothing else.

The mutants carry recomputed checksums, so that they reach the code behind them. Those of the last
kind carry recomputed digests of the content, too, as only an attacker would write them: then any
model may come out, but still no other exception.
"""

import dataclasses
import json
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from autocompress.cli.unpack import command
from autocompress.errors import InputError
from autocompress.packing.byte_stream import signed_varint, varint
from autocompress.packing.container import (
    DIGEST_BYTES,
    MAGIC,
    VERSION,
    Container,
    digest,
    read_container,
)
from autocompress.packing.ledger import read_ledger
from autocompress.packing.packed import PackedModel, decode_packed, read_packed, write_packed
from autocompress.packing.section import Section, payload_lengths, read_section, split_payload
from autocompress.packing.table import (
    CODEBOOK,
    GRID,
    HALF,
    HASHED,
    MAX_ROWS,
    NO_SCALES,
    PROTO,
    QUANTIZED,
    RAW,
    SAME,
    SHARED,
    SPARSE,
    SYMBOLS,
    TensorRow,
)
from autocompress.packing.tensor_reader import read_tensors

N_SOURCES = 4
N_MUTANTS = 150  # of each kind, of each source: 5 * 4 * 150 = 3000
MAX_CPU_SECONDS = 5.0  # a mutant takes milliseconds; this is where "bounded" ends
MAX_DECODED = 1 << 24  # what forged mutants may unpack to: large ones are tried one by one, below
MAX_EXTRA_MIB = 400  # of memory for a hostile file of some kB: 64 MiB of values, several times
N_HEAD = len(MAGIC) + 1

Mutate = Callable[[random.Random, bytes, bytes], bytes]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A good file, opened."""

    blob: bytes
    container: Container
    section: Section
    contents: Sequence[bytes]
    model: PackedModel


@pytest.fixture(scope="module")
def sources(
    make_example: Callable[[int], Any], tmp_path_factory: pytest.TempPathFactory
) -> list[Source]:
    """Files with tensors of every codec."""
    path, found = tmp_path_factory.mktemp("fuzz") / "model.acz", []
    for seed in range(N_SOURCES):
        example = make_example(seed)
        write_packed(path, example.model, example.quantized, example.metadata)
        container = read_container(path.read_bytes(), 1 << 20)
        section = read_section(container.section)
        found.append(
            Source(
                blob=path.read_bytes(),
                container=container,
                section=section,
                contents=read_tensors(section.rows, split_payload(container.payload, section)),
                model=read_packed(path),
            )
        )
    codecs = {row.codec for source in found for row in source.section.rows}
    assert codecs == set(range(11))
    return found


def seal(section: bytes, payload: bytes, content_digest: bytes) -> bytes:
    """A file around any section and payload, with lengths and a checksum that are right."""
    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = deflate.compress(section) + deflate.flush()
    lengths = b"".join(map(varint, (len(section), len(packed), len(payload))))
    return with_checksum(
        MAGIC + bytes([VERSION]) + bytes(8) + content_digest + b"\1" + lengths + packed + payload
    )


def with_checksum(blob: bytes) -> bytes:
    start, rest = blob[:N_HEAD], blob[N_HEAD + DIGEST_BYTES :]
    return start + digest(start, rest) + rest


def flip(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def cut(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def drop(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 8) :]


def repeat(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at : at + rng.randint(1, 30)] + data[at:]


def splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at, start, n_bytes = rng.randrange(len(data)), rng.randrange(len(other)), rng.randint(1, 40)
    return data[:at] + other[start : start + n_bytes] + data[at + rng.choice([0, n_bytes]) :]


def put_number(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A byte that means something, or a number: huge, of any size, or too long to be one."""
    at, any_number = rng.randrange(len(data)), varint(rng.getrandbits(rng.randint(1, 63)))
    huge = (b"\xff" * 9 + b"\1", b"\x80" * 10, varint((1 << 31) - 1))
    small = (b"\0", b"\1", b"\x7f", b"\xff", b"\x10")
    new = rng.choice([*huge, *small, any_number, rng.randbytes(rng.randint(1, 4))])
    return data[:at] + new + data[at + rng.randint(0, 2) :]


MUTATIONS: tuple[Mutate, ...] = (flip, flip, cut, drop, repeat, splice, put_number, put_number)


def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        data = rng.choice(MUTATIONS)(rng, data or b"\0", other)
    return data


def decode(blob: bytes) -> PackedModel | None:
    """The model, or None if it is refused; any other exception is a failure."""
    start = time.process_time()
    try:
        return decode_packed(blob, MAX_DECODED)
    except InputError:
        return None
    finally:
        assert time.process_time() - start < MAX_CPU_SECONDS


def other_of(rng: random.Random, sources: list[Source]) -> Source:
    return sources[rng.randrange(N_SOURCES)]


@pytest.mark.parametrize("index", range(N_SOURCES))
@pytest.mark.parametrize("has_checksum", [False, True], ids=["damaged", "checksum fixed"])
def test_read_packed_refuses_mutants_of_the_file(
    has_checksum: bool, index: int, sources: list[Source], tmp_path: Path
) -> None:
    rng, source, path = random.Random(index), sources[index], tmp_path / "model.acz"
    messages = []
    for _ in range(N_MUTANTS):
        mutant = mutate(rng, source.blob, other_of(rng, sources).blob)
        path.write_bytes(with_checksum(mutant) if has_checksum else mutant)
        try:
            assert read_packed(path) == source.model
        except InputError as error:
            messages.append(error.message)
    assert len(messages) > 0.9 * N_MUTANTS
    start = f"{str(path)!r} must be an undamaged packed model, but"
    assert all(text.startswith(start) and text.isprintable() for text in messages)


@pytest.mark.parametrize("index", range(N_SOURCES))
def test_decode_packed_refuses_mutants_inside_a_sound_container(
    index: int, sources: list[Source]
) -> None:
    rng, source = random.Random(index), sources[index]
    n_refused = 0
    for i in range(N_MUTANTS):
        section, payload = source.container.section, source.container.payload
        other = other_of(rng, sources).container
        if i % 3 != 1:
            section = mutate(rng, section, other.section)
        if i % 3 != 0:
            payload = mutate(rng, payload, other.payload)
        found = decode(seal(section, payload, source.container.content_digest))
        assert found in (None, source.model)
        n_refused += found is None
    assert n_refused > 0.9 * N_MUTANTS


def forged_row(rng: random.Random, row: TensorRow) -> TensorRow:
    """The row with one field changed, by a little or by a lot."""
    name = rng.choice([field.name for field in dataclasses.fields(row)])
    value = getattr(row, name)
    number = rng.choice([0, 1, 2, 3, 5, 255, 1 << 16, (1 << 31) - 1, (1 << 64) - 1])
    if name == "dims":
        dims = list(value)
        dims.insert(rng.randint(0, len(dims)), rng.choice([0, 1, 2, 7, 1 << 20, 1 << 31]))
        changed: Any = rng.choice([tuple(dims), value[::-1], value[1:], (*value[:1], number)])
    elif isinstance(value, bool):
        changed = not value
    elif name == "codec":
        changed = rng.randrange(11)
    else:
        limits = {"axis": 16, "bits": 9, "scales": 8}
        changed = rng.choice([number, value + 1, max(0, value - 1)])
        changed = max(changed % limits[name], name == "bits") if name in limits else changed
    return dataclasses.replace(row, **{name: changed})


def forged_section(rng: random.Random, section: Section, other: Section) -> Section:
    """The section with changed rows, a changed graph, or other metadata and names."""
    kind = rng.randrange(6)
    if kind == 0:
        skeleton = mutate(rng, section.skeleton, other.skeleton)
        return dataclasses.replace(section, skeleton=skeleton)
    if kind == 1:
        return dataclasses.replace(section, metadata=mutate(rng, section.metadata, b'{"a":[]}'))
    if kind == 2:
        kept = ((rng.randrange(40), rng.choice(["../../x", "listed", "logits", "\0", "t1"])),)
        return dataclasses.replace(section, kept=rng.choice([kept, section.kept + kept]))
    rows = list(section.rows)
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(rows))
        if rng.random() < 0.2:
            rows[i] = rng.choice(rows + list(other.rows))
        else:
            rows[i] = forged_row(rng, rows[i])
    return dataclasses.replace(section, rows=tuple(rows))


def fitting(rng: random.Random, payload: bytes, section: Section) -> bytes:
    """The payload, cut or filled to the length that the table asks for, if that is in reach."""
    try:
        n_wanted = sum(dataclasses.astuple(payload_lengths(section)))
    except (IndexError, KeyError, ZeroDivisionError):  # of rows that no reader accepts
        return payload
    at = rng.randint(0, len(payload))
    n_more = n_wanted - len(payload)
    if not -at <= n_more <= 1 << 16:
        return payload
    return payload[: at + min(0, n_more)] + rng.randbytes(max(0, n_more)) + payload[at:]


@pytest.mark.parametrize("index", range(N_SOURCES))
@pytest.mark.parametrize("follows", [False, True], ids=["tensors kept", "tensors forged"])
def test_decode_packed_raises_nothing_else_when_all_digests_are_forged(
    follows: bool, index: int, sources: list[Source], tmp_path: Path
) -> None:
    rng, source, path = random.Random(index), sources[index], tmp_path / "model.acz"
    n_refused = 0
    for _ in range(N_MUTANTS):
        other = other_of(rng, sources).section
        section = forged_section(rng, source.section, other)
        payload = fitting(rng, source.container.payload, section)
        if follows and rng.random() < 0.5:
            payload = fitting(rng, mutate(rng, payload, source.container.payload), section)
        forged = section.to_bytes()
        contents = contents_of(forged, payload) if follows else source.contents
        blob = seal(forged, payload, digest(forged, *(contents or source.contents)))
        found = decode(blob)
        n_refused += found is None
        if found is not None and not follows:
            check_tensors(found, source)
        if found is not None:  # what can be read can be accounted for
            path.write_bytes(blob)
            assert read_ledger(path).size_bytes == len(blob)
    assert n_refused > 0.2 * N_MUTANTS


def contents_of(section: bytes, payload: bytes) -> list[bytes] | None:
    """What an attacker would compute the digest of; None where there is nothing to decode."""
    try:
        found = read_section(section)
        if sum(row.n_decoded_bytes for row in found.rows) > MAX_DECODED:
            return None
        return read_tensors(found.rows, split_payload(payload, found))
    except InputError:
        return None


def check_tensors(found: PackedModel, source: Source) -> None:
    """A digest that fits the tensors lets no others through."""
    tensors = found.graph.graph.initializer
    assert len(tensors) == len(source.contents)
    for tensor, content, row in zip(tensors, source.contents, source.section.rows, strict=True):
        if row.codec != PROTO:
            assert tensor.raw_data == content


@pytest.mark.parametrize("index", range(N_SOURCES))
def test_read_packed_names_every_other_version(
    index: int, sources: list[Source], tmp_path: Path
) -> None:
    path, blob = tmp_path / "model.acz", bytearray(sources[index].blob)
    for version in set(range(index, 256, N_SOURCES)) - {VERSION}:
        blob[len(MAGIC)] = version
        path.write_bytes(with_checksum(bytes(blob)))
        with pytest.raises(InputError, match=f"version must be {VERSION}, but is {version}"):
            read_packed(path)


# Hostile files, by construction


def field(tag: int, content: bytes) -> bytes:
    """A field of a protobuf message that holds bytes, text or a message."""
    return varint(tag << 3 | 2) + varint(len(content)) + content


def skeleton_of(*nodes: onnx.NodeProto, domain: str = "") -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, ["n"])], [value("y", TensorProto.FLOAT, ["n"])]
    )
    opsets = [helper.make_opsetid("", 17)] + [helper.make_opsetid(domain, 1)] * bool(domain)
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


IDENTITY = skeleton_of(helper.make_node("Identity", ["0"], ["@y"]))


def hostile(
    rows: Sequence[TensorRow] = (),
    payload: bytes = b"",
    *,
    skeleton: onnx.ModelProto | bytes = IDENTITY,
    metadata: bytes = b"{}",
    kept: Sequence[tuple[int, str]] = (),
    contents: Sequence[bytes] = (),
) -> bytes:
    """A whole file with digests that fit its section and these contents."""
    section = Section(
        skeleton=skeleton if isinstance(skeleton, bytes) else skeleton.SerializeToString(),
        metadata=metadata,
        kept=tuple(kept),
        rows=tuple(rows),
        n_scale_stream=0,
        n_half_stream=0,
    ).to_bytes()
    return seal(section, payload, digest(section, *contents))


def floats(dims: tuple[int, ...], codec: int, **fields: Any) -> TensorRow:
    return TensorRow(data_type=TensorProto.FLOAT, dims=dims, codec=codec, **fields)


def external(location: str) -> bytes:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return bytes(tensor.SerializeToString())


def nested_ifs(depth: int) -> bytes:
    """Serialised by hand: no library writes a graph this deep."""
    graph = b""
    for _ in range(depth):
        graph = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + field(6, graph)))
    return field(7, graph)


def message(data_type: int, dims: list[int], raw: bytes) -> bytes:
    return bytes(TensorProto(data_type=data_type, dims=dims, raw_data=raw).SerializeToString())


def function_circle() -> onnx.ModelProto:
    model = skeleton_of(helper.make_node("A", ["0"], ["@y"], domain="f"), domain="f")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    for name, other in ("AB", "BA"):
        body = [helper.make_node(other, ["p"], ["q"], domain="f")]
        model.functions.append(helper.make_function("f", name, ["p"], ["q"], body, opsets))
    return model


ZEROS = b"\0" + signed_varint(0)  # a symbol stream of any length
NO_STREAM: dict[str, Any] = {"scales": NO_SCALES}
HUGE = 1 << 31
MANY = 1 << 29
PASSWORDS = external("../../../../etc/passwd")
LIED = message(TensorProto.FLOAT, [1 << 40, 1 << 20], b"")
SHORT = message(TensorProto.FLOAT, [2], b"1234")
CIRCLE = skeleton_of(
    helper.make_node("Neg", ["@b"], ["@a"]),
    helper.make_node("Neg", ["@a"], ["@b"]),
    helper.make_node("Neg", ["@a"], ["@y"]),
)
FAR = skeleton_of(helper.make_node("Neg", ["99999"], ["@y"]))
SECRET = skeleton_of(
    helper.make_node("Constant", [], ["@y"], value=TensorProto.FromString(PASSWORDS))
)
IF_LOOP = skeleton_of(helper.make_node("Loop", ["@y", "@y"], ["@y"], body=IDENTITY.graph))

HOSTILE: dict[str, tuple[bytes, str]] = {
    "2 GiB of zeros": (hostile([floats((MANY,), QUANTIZED, n_stream=2)], ZEROS), "must unpack to"),
    "2 GiB of hashed values": (
        hostile([floats((MANY - 1,), HASHED, n_entries=1, **NO_STREAM)], bytes(4)),
        "must unpack to",
    ),
    "2 GiB of a sparse tensor": (hostile([floats((MANY,), SPARSE, n_stream=2)], ZEROS), "unpack"),
    "a shape beyond 64 bits": (hostile([floats((1 << 40, 1 << 40), HALF)]), "impossible"),
    "scales of an empty tensor": (
        hostile([floats((HUGE, 0), QUANTIZED, **NO_STREAM)], contents=[b""]),
        "must unpack to",
    ),
    "a scale of each weight": (
        hostile([floats((1 << 24, 1), GRID, n_stream=2, block_size=1, n_zero_stream=2, scales=4)],
                ZEROS * 2),
        "must unpack to",
    ),
    "signs of an empty tensor": (
        hostile([
            floats((0, HUGE), CODEBOOK, n_entries=1, **NO_STREAM),
            floats((0, HUGE), SHARED, axis=1, n_stream=2, **NO_STREAM),
        ], bytes(4) + ZEROS),
        "must unpack to",
    ),
    "one tensor 65,000 times": (
        hostile([
            TensorRow(data_type=TensorProto.INT8, dims=(128, 128), codec=SYMBOLS, n_stream=2),
            *[TensorRow(data_type=TensorProto.INT8, dims=(128, 128), codec=SAME)] * 65_000,
        ], ZEROS),
        "must unpack to",
    ),
    "64 MiB of letters": (
        hostile([TensorRow(data_type=TensorProto.INT8, dims=(1 << 26,), codec=SYMBOLS, n_stream=5)],
                b"\2" + signed_varint(-1) + varint(2) + b"\x28\x10"),
        "not those that were packed",
    ),
    "more rows than any model": (hostile([floats((0,), HALF)] * (MAX_ROWS + 1)), "at most 65536"),
    "a section of 200 MiB": (hostile(metadata=b" " * (200 << 20) + b"{}"), "section must have at"),
    "a million empty nodes": (
        hostile(skeleton=field(7, b"\x0a\x00" * 1_000_000)),
        "at most 524288 nodes",
    ),
    "a million empty attributes": (
        hostile(skeleton=field(7, field(1, b"\x2a\x00" * 1_000_000))),
        "at most 524288 nodes",
    ),
    "2,000 conditions deep": (hostile(skeleton=nested_ifs(2000)), "cannot be parsed"),
    "20 conditions deep": (hostile(skeleton=b"\x08\x09" + nested_ifs(20)), "valid ONNX"),
    "a loop that is its own input": (hostile(skeleton=IF_LOOP), "valid ONNX"),
    "a circle of nodes": (hostile(skeleton=CIRCLE), "topologically sorted"),
    "a circle of functions": (hostile(skeleton=function_circle()), "Cycle detected"),
    "a name that points nowhere": (hostile(skeleton=FAR), "points nowhere"),
    "weights in /etc/passwd": (
        hostile([floats((2,), PROTO, n_stream=len(PASSWORDS))], PASSWORDS, contents=[PASSWORDS]),
        "lies in another file",
    ),
    "a constant in /etc/passwd": (hostile(skeleton=SECRET), "lies in another file"),
    "a message of another shape": (
        hostile([floats((2,), PROTO, n_stream=len(LIED))], LIED, contents=[LIED]),
        "the table says",
    ),
    "a message without its values": (
        hostile([floats((2,), PROTO, n_stream=len(SHORT))], SHORT, contents=[SHORT]),
        "valid ONNX",
    ),
    "a kept name of no output": (
        hostile([floats((0,), HALF)], kept=[(0, "../../x")], contents=[b""]),
        "kept names must be those of",
    ),
    "a kept name of no tensor": (hostile(kept=[(7, "y")]), "kept names must be those of"),
    "a name kept a million times": (hostile(kept=[(0, "")] * 1_000_000), "kept names must be"),
    "lists 200,000 deep": (hostile(metadata=b"[" * 200_000), "metadata must be JSON"),
    "objects 200,000 deep": (hostile(metadata=b'{"a":' * 200_000), "metadata must be JSON"),
    "a number of 100,000 digits": (hostile(metadata=b'{"a":' + b"9" * 100_000 + b"}"), "be JSON"),
    "a number that is none": (hostile(metadata=b'{"a":NaN}'), "be JSON, but: NaN"),
    "metadata that is a list": (hostile(metadata=b"[]"), "must be an object"),
}  # fmt: skip

# Reads files in a process of its own, so that memory can be measured and a hole ends in an error
# and not in a machine without memory.
READER = """
import json, resource, sys, time
from pathlib import Path
from autocompress.errors import InputError
from autocompress.packing.packed import read_packed

def mib(field):  # ru_maxrss will not do: it starts with the peak of the parent process
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

def memory_before():
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        return mib("VmRSS:")
    except OSError:
        return mib("VmHWM:")

good, *paths = map(Path, sys.argv[1:])
read_packed(good)  # whatever is imported or built once is so now
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (100, 100))
for path in paths:
    before, start = memory_before(), time.process_time()
    try:
        read_packed(path)
        outcome = "accepted"
    except InputError as error:
        outcome = error.message
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"[:200]
    seconds = time.process_time() - start
    print(json.dumps([outcome, seconds, mib("VmHWM:") - before]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(
    sources: list[Source], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, float, float]]:
    """Case -> message, CPU seconds, MiB by which the peak of memory rose."""
    folder = tmp_path_factory.mktemp("hostile")
    good = folder / "good.acz"
    good.write_bytes(sources[0].blob)
    paths = []
    for i, (blob, _) in enumerate(HOSTILE.values()):
        paths.append(folder / f"{i}.acz")
        paths[-1].write_bytes(blob)
    return dict(zip(HOSTILE, outcomes_of(good, *paths), strict=True))


def outcomes_of(good: Path, *paths: Path) -> list[tuple[str, float, float]]:
    """What `READER` finds; shorter than `paths` if it had to be ended."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is measured as Linux tells it")
    done = subprocess.run(
        [sys.executable, "-c", READER, good, *paths], capture_output=True, text=True, check=False
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("case", HOSTILE)
def test_read_packed_refuses_hostile_files_in_bounded_time_and_memory(
    case: str, outcomes: dict[str, tuple[str, float, float]]
) -> None:
    blob, reason = HOSTILE[case]
    assert len(blob) < 1 << 20
    outcome, seconds, extra_mib = outcomes[case]
    assert "must be an undamaged packed model, but" in outcome
    assert reason in outcome
    assert outcome.isprintable()
    assert len(outcome) < 600
    assert seconds < MAX_CPU_SECONDS
    assert extra_mib < MAX_EXTRA_MIB


def test_read_packed_takes_several_times_the_memory_of_a_model_that_unpacks_far(
    sources: list[Source], tmp_path: Path
) -> None:
    n_values = 12 << 20  # 48 MiB out of 100 bytes: allowed, and what it says
    row = floats((1, n_values), QUANTIZED, n_stream=2, **NO_STREAM)
    path = tmp_path / "model.acz"
    path.write_bytes(hostile([row], ZEROS, contents=[bytes(4 * n_values)]))
    good = tmp_path / "good.acz"
    good.write_bytes(sources[0].blob)
    ((outcome, _, extra_mib),) = outcomes_of(good, path)
    assert outcome == "accepted"
    assert 48 < extra_mib < 7 * 48


def test_names_that_look_like_paths_stay_names(tmp_path: Path) -> None:
    skeleton = skeleton_of(helper.make_node("Neg", ["0"], ["@y"]))
    skeleton.graph.output.append(helper.make_tensor_value_info("../w", TensorProto.FLOAT, [2]))
    value = b"\0\0\0\0\0\0\x80\x3f"
    blob = hostile(
        [floats((2,), RAW)], value, skeleton=skeleton, kept=[(0, "../w")], contents=[value]
    )
    path = tmp_path / "folder" / "model.acz"
    path.parent.mkdir()
    path.write_bytes(blob)
    CliRunner().invoke(command, [str(path)], catch_exceptions=False)

    (tensor,) = onnx.load(path.with_suffix(".onnx")).graph.initializer
    assert (tensor.name, tensor.raw_data) == ("../w", value)
    found = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert found == {str(Path("folder") / name) for name in ("model.acz", "model.onnx")}
