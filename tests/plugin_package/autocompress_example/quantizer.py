from autocompress.compress.quantizers.base import STEP_FLOOR, QuantizerSpec
from autocompress.compress.quantizers.grid import code_limits
from autocompress.compress.quantizers.uniform import UniformQuantizer


class WidestQuantizer(UniformQuantizer):
    """Integers times a learned step, which starts where no weight is clipped."""

    def first_step(self, rows, members):
        _, high = code_limits(self.bits)
        return (rows.abs().amax(dim=1) / high).clamp_min(STEP_FLOOR)


WIDEST = QuantizerSpec(
    make=WidestQuantizer,
    bits=(8, 6, 4),
    granularities=("channel", "tensor"),
    integer_bits=(8, 6, 4),
)
