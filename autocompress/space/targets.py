"""What a device's runtime supports: YAML in, search-space rules cut down to it."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autocompress.compress.quantizers.registry import QUANTIZER_REGISTRY
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
from autocompress.technique import TECHNIQUES, KnobKind

TARGETS: Final = PRESETS / "targets"


class Target(BaseModel):
    """What a device's runtime supports; what is not given is not restricted.

    Attributes:
        version: Format of the file, 1.
        runtime: Whose latency is measured, a name in `runtime.table`.
        objectives: Axes of the front.
        weight_bits: Bits that weights can have; float weights always can.
        activation_bits: Bits that inputs of layers can have; an empty list means floats only.
        integer_weight_bits: Widest weights of layers whose inputs may be quantized: 7 where the
            processor may be an x86 without VNNI, whose integer kernels saturate.
        quantizers: Methods whose values its files can hold; layers without a rule have the first
            if `uniform` is not among them.
        granularities: What may share a scale there; the first if `channel` is not among them.
        round_to: Widths stay multiples of this.
        max_size: Bytes that a packed file may take at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(default=1, ge=1, le=1)
    runtime: str | None = None
    objectives: str | None = None
    weight_bits: list[WeightBits] | None = None
    activation_bits: list[Bits] | None = None
    integer_weight_bits: Literal[7, 8] | None = None
    quantizers: list[str] | None = Field(default=None, min_length=1)
    granularities: list[str] | None = Field(default=None, min_length=1)
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
    for field, names, known in (
        ("quantizers", found.quantizers, QUANTIZER_REGISTRY.names),
        ("granularities", found.granularities, ("channel", "tensor")),
    ):
        for name in names or ():
            if name not in known and not name.startswith("group:"):
                raise unknown_name(f"name in `{field}` of {path}", name, known)
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
    return rules.model_copy(
        update={
            "pruning": pruning,
            "rules": [*_defaults(target), *kept],
            "integer_weight_bits": rules.integer_weight_bits or target.integer_weight_bits,
        }
    )


def _methods_of(target: Target) -> dict[KnobKind, list[str]]:
    """What layers can be given there, by kind of method; nothing for one that is not restricted."""
    names: dict[KnobKind, list[str] | None] = {
        "quantizer": target.quantizers,
        "granularity": target.granularities,
    }
    return {kind: found for kind, found in names.items() if found is not None}


def _defaults(target: Target) -> list[Rule]:
    """What layers have without a rule, where the target lacks what they have otherwise."""
    lacking = {k: n[0] for k, n in _methods_of(target).items() if TECHNIQUES[k].untouched not in n}
    return [Rule.model_validate({"optional": True, **lacking})] if lacking else []


def _restricted(rule: Rule, target: Target, index: int) -> Rule:
    changes: dict[str, object] = {}
    for field, allowed in (
        ("weight_bits", target.weight_bits),
        ("activation_bits", target.activation_bits),
    ):
        wanted = getattr(rule, field)
        if wanted is not None and allowed is not None:
            changes[field] = [bits for bits in wanted if bits in allowed]
    for kind, names in _methods_of(target).items():
        wanted = getattr(rule, kind)
        if wanted is not None:
            changes[kind] = _methods(kind, wanted, names, index)
    return rule.model_copy(update=changes)


def _methods(
    kind: KnobKind, wanted: str | list[str], allowed: Collection[str], index: int
) -> str | list[str]:
    """A fixed method that the target has, or those of a list that it has.

    One, fixed, where the target lacks what a knob's first level would be.
    """
    names = [wanted] if isinstance(wanted, str) else wanted
    kept = [name for name in names if name in allowed]
    if not kept:
        raise InputError(
            f"`{kind}` of rules.{index} must be one that the target has "
            f"({', '.join(allowed)}), but is {', '.join(names)}.",
            "Change the rule, or search without `target`.",
        )
    return kept if isinstance(wanted, list) and TECHNIQUES[kind].untouched in allowed else kept[0]
