"""The table of quantizers: what the names in a plan mean, and what each cannot do."""

import math
from typing import Final

from autocompress.analysis.refusals import LayerKind
from autocompress.compress.quantizers.base import QuantizerSpec
from autocompress.compress.quantizers.blocks import Granularity
from autocompress.compress.quantizers.equal_frequency import EQUAL_FREQUENCY
from autocompress.compress.quantizers.fixed_point import FIXED_POINT
from autocompress.compress.quantizers.hashed import HASHED
from autocompress.compress.quantizers.kmeans import KMEANS
from autocompress.compress.quantizers.nni_qat import NNI_QAT
from autocompress.compress.quantizers.power_of_two import ADDITIVE_POWER_OF_TWO, POWER_OF_TWO
from autocompress.compress.quantizers.uniform import UNIFORM
from autocompress.compress.quantizers.uniform_asymmetric import UNIFORM_ASYMMETRIC
from autocompress.entry_points import Registry
from autocompress.errors import InputError, unknown_name
from autocompress.technique import FULL_BITS

MIN_GROUP_SIZE: Final = 8  # below that, scales take as many bytes as the codes

QUANTIZERS: Final[dict[str, QuantizerSpec]] = {
    "uniform": UNIFORM,
    "uniform_asymmetric": UNIFORM_ASYMMETRIC,
    "fixed_point": FIXED_POINT,
    "kmeans": KMEANS,
    "equal_frequency": EQUAL_FREQUENCY,
    "power_of_two": POWER_OF_TWO,
    "additive_power_of_two": ADDITIVE_POWER_OF_TWO,
    "hashed": HASHED,
    "nni_qat": NNI_QAT,
}
QUANTIZER_REGISTRY: Final = Registry(
    kind="quantizer",
    group="autocompress.quantizers",
    built_in=QUANTIZERS,
    is_row=lambda row: isinstance(row, QuantizerSpec),
)


def find_quantizer(name: str) -> QuantizerSpec:
    """Look a quantizer up by its name.

    Raises:
        InputError: If there is none of that name; lists the choices.
    """
    return QUANTIZER_REGISTRY.find(name)


def parse_granularity(text: str) -> Granularity:
    """Read `channel`, `tensor` or `group:N`.

    >>> parse_granularity("group:32")
    Granularity(kind='group', group_size=32)

    Raises:
        InputError: If `text` is none of those, or N is not a whole number of 8 or more.
    """
    if text == "channel":
        return Granularity(kind="channel")
    if text == "tensor":
        return Granularity(kind="tensor")
    kind, _, size = text.partition(":")
    if kind != "group":
        raise unknown_name("granularity", text, ("channel", "tensor", "group:N"))
    if not (size.isascii() and size.isdigit() and int(size) >= MIN_GROUP_SIZE):
        raise InputError(
            f"`granularity` must be group:N with a whole number N >= {MIN_GROUP_SIZE}, "
            f"but got {text!r}.",
            "Write group:32, for instance.",
        )
    return Granularity(kind="group", group_size=int(size))


def has_integer_form(quantizer: str, granularity: str, bits: float) -> bool:
    """Say whether a weight stored in a way is int8 codes times a scale per channel.

    Only then can a layer take 8-bit activations: integer kernels compute with nothing else.

    Args:
        quantizer: Name of one.
        granularity: `channel`, `tensor` or `group:N`.
        bits: 1, 1.58, 2-8 or 32.

    Raises:
        InputError: If the quantizer or the granularity is unknown.

    >>> has_integer_form("uniform", "channel", 4), has_integer_form("kmeans", "channel", 4)
    (True, False)
    """
    return find_quantizer(quantizer).has_integer_form(parse_granularity(granularity), bits)


def why_not_quantize(
    quantizer: str, granularity: str, bits: float, kind: LayerKind, shape: tuple[int, ...]
) -> str:
    """Say why a weight cannot be stored in a way.

    Args:
        quantizer: Name of one.
        granularity: `channel`, `tensor` or `group:N`.
        bits: 1, 1.58 or 2-8; 32 always applies.
        kind: Of the layer.
        shape: Of the weight; empty if its channels are not known (a recurrent layer has several).

    Returns:
        One clause, or "" if it can.

    Raises:
        InputError: If the quantizer or the granularity is unknown.
    """
    spec, shared = find_quantizer(quantizer), parse_granularity(granularity)
    if bits >= FULL_BITS:
        return ""
    if bits not in spec.bits:
        return f"{quantizer} stores weights in {_listed(spec.bits)} bits, not in {bits:g}"
    if shared.kind not in spec.granularities:
        return f"{quantizer} takes granularity {_listed(spec.granularities)}, not {granularity}"
    if shared.group_size is not None and shape:
        channel_size = math.prod(shape) // shape[1 if kind == "transposed_conv" else 0]
        if channel_size <= shared.group_size:
            return f"{granularity} needs channels of more weights than {channel_size}"
    return spec.why_not(kind, shape)


def _listed(choices: tuple[object, ...]) -> str:
    """The choices as `a, b or c`.

    >>> _listed(("channel", "tensor", "group"))
    'channel, tensor or group'
    """
    *first, last = map(str, choices)
    return f"{', '.join(first)} or {last}" if first else last
