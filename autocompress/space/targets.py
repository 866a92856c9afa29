"""What a device's runtime supports: YAML in, search-space rules cut down to it."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autocompress.compress.quantizers.table import QUANTIZERS
from autocompress.errors import InputError, unknown_name
from autocompress.space.rules import (
    PRESETS,
    Bits,
    Rule,
    SpaceRules,
    WeightBits,
    check_bits,
    problem_of,
    read_yaml,
)

TARGETS: Final = PRESETS / "targets"


class Target(BaseModel):
    """What a device's runtime supports; what is not given is not restricted.

    Attributes:
        version: Format of the file, 1.
        runtime: Whose latency is measured, a name in `runtime.table`.
        objectives: Axes of the front.
        weight_bits: Bits that weights can have; float weights always can.
        activation_bits: Bits that inputs of layers can have; an empty list means floats only.
        quantizers: Methods whose values its files can hold.
        granularities: What may share a scale there.
        round_to: Widths stay multiples of this.
        max_size: Bytes that a packed file may take at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(default=1, ge=1, le=1)
    runtime: str | None = None
    objectives: str | None = None
    weight_bits: list[WeightBits] | None = None
    activation_bits: list[Bits] | None = None
    quantizers: list[str] | None = None
    granularities: list[str] | None = None
    round_to: int = Field(default=1, ge=1)
    max_size: int | None = Field(default=None, ge=1)


def load_target(target: str | Path) -> Target:
    """Read a target file, or a shipped one by its name.

    Args:
        target: Path of a YAML file, or a name such as `x86-onnxruntime`.

    Raises:
        InputError: If there is no such file, or it is not a valid target.
    """
    path = Path(target)
    if len(path.parts) == 1 and not path.suffix and not path.is_file():
        path = TARGETS / f"{target}.yaml"
        if not path.is_file():
            raise unknown_name("target", str(target), (p.stem for p in TARGETS.glob("*.yaml")))
    try:
        found = Target.model_validate(read_yaml(path, "target"))
    except ValidationError as error:
        raise InputError(f"The target {path} is wrong at {problem_of(error)}.") from error
    for field, names, known, default in (
        ("quantizers", found.quantizers, QUANTIZERS, "uniform"),
        ("granularities", found.granularities, ("channel", "tensor"), "channel"),
    ):
        for name in names or ():
            if name not in known and not name.startswith("group:"):
                raise unknown_name(f"name in `{field}` of {path}", name, known)
        if names is not None and default not in names:
            raise InputError(
                f"The target {path} must have {default!r} in `{field}`: layers have it by default."
            )
    check_bits("weight_bits", found.weight_bits, str(path))
    check_bits("activation_bits", found.activation_bits, str(path))
    return found


def restrict(rules: SpaceRules, target: Target) -> SpaceRules:
    """The rules without what a target does not support, so that no such plan is ever proposed.

    Raises:
        InputError: If a rule fixes a method that the target does not have.
    """
    pruning = rules.pruning.model_copy(
        update={"round_to": math.lcm(rules.pruning.round_to, target.round_to)}
    )
    kept = [_restricted(rule, target, i) for i, rule in enumerate(rules.rules)]
    return rules.model_copy(update={"pruning": pruning, "rules": kept})


def _restricted(rule: Rule, target: Target, index: int) -> Rule:
    changes: dict[str, object] = {}
    for field, allowed in (
        ("weight_bits", target.weight_bits),
        ("activation_bits", target.activation_bits),
    ):
        wanted = getattr(rule, field)
        if wanted is not None and allowed is not None:
            changes[field] = [bits for bits in wanted if bits in allowed]
    for field, names in (
        ("quantizer", target.quantizers),
        ("granularity", target.granularities),
    ):
        wanted = getattr(rule, field)
        if wanted is not None and names is not None:
            changes[field] = _methods(field, wanted, names, index)
    return rule.model_copy(update=changes)


def _methods(
    field: str, wanted: str | list[str], allowed: Iterable[str], index: int
) -> str | list[str]:
    """A fixed method that the target has, or those of a list that it has."""
    names = [wanted] if isinstance(wanted, str) else wanted
    kept = [name for name in names if name in allowed]
    if not kept:
        raise InputError(
            f"`{field}` of rules.{index} must be one that the target has "
            f"({', '.join(allowed)}), but is {', '.join(names)}.",
            "Change the rule, or search without --target.",
        )
    return wanted if isinstance(wanted, str) else kept
