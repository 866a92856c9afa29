"""From a candidate that is trained to one that ships: plain layers, and what their weights are."""

import copy
import dataclasses

from torch import nn

from autocompress.compress.codes import ActivationRange, StoredWeight
from autocompress.compress.quantize import freeze_


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deployable:
    """A candidate as runtimes see it: a plain float model and what is stored of its weights.

    Attributes:
        model: In eval mode; quantized layers hold exactly dequantized weights.
        weights: Layer name -> what its weight is stored as; of a parameter not called `weight`
            (recurrent layers) the parameter's name.
        activations: Layer name -> unsigned 8-bit grid of its input, where it runs in integers.
    """

    model: nn.Module
    weights: dict[str, StoredWeight]
    activations: dict[str, ActivationRange]


def make_deployable(model: nn.Module) -> Deployable:
    """Freeze a copy of a candidate into what runtimes and files need; `model` is not modified."""
    frozen = copy.deepcopy(model).eval()
    weights, activations = freeze_(frozen)
    return Deployable(model=frozen, weights=weights, activations=activations)
