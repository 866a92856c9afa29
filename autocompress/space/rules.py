"""Search-space files: YAML in, validated rules out."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from autocompress.errors import InputError, first_line, unknown_name
from autocompress.technique import ACTIVATION_BITS, BINARY_BITS, TERNARY_BITS, WEIGHT_BITS, KnobKind

PRESETS = Path(__file__).parent / "presets"
_MAX_BYTES = 256 * 1024
_BITS_BY_NAME = {"binary": BINARY_BITS, "ternary": TERNARY_BITS}


def _named_bits(value: object) -> object:
    if isinstance(value, bool):
        msg = "bits must be numbers, `ternary` or `binary`"
        raise ValueError(msg)
    return _BITS_BY_NAME.get(value, value) if isinstance(value, str) else value


WeightBits = Annotated[float, BeforeValidator(_named_bits), Field(ge=1, le=32)]
Bits = Annotated[int, Field(ge=2, le=32)]
RankRatio = Annotated[float, Field(gt=0.0, le=1.0)]
Price = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Methods = str | Annotated[list[str], Field(min_length=1)]
Names = str | Annotated[list[str], Field(min_length=1)] | None


class Match(BaseModel):
    """Which layers a rule is about; all conditions given must hold.

    Attributes:
        name: Glob on the qualified layer name, or several; `*` matches dots as well.
        kind: Layer kind, or several, as `autocompress analyze` prints them; `block` for blocks.
        position: `first` or `last` among the layers that can be quantized.
        min_params: Least number of parameters of the layer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Names = None
    kind: Names = None
    position: list[Literal["first", "last"]] | None = None
    min_params: int = Field(default=0, ge=0)


class Rule(BaseModel):
    """Levels for the layers it matches; for each technique the last matching rule decides.

    The untouched level (ratio 0, rank 1.0, 32 bits) is always added; an empty list means that the
    search leaves the technique alone there. A method given as a name is used wherever its amount
    is not untouched; given as a list it is a knob of its own, next to the default method.

    Attributes:
        match: Which layers.
        pruning_ratio: Shares of channels REMOVED; decided by a channel group's first layer.
        drop_block: Whether residual blocks may be left out as a whole.
        shared_with: Layer whose weight the matched layers may use as well; `earlier` means the
            first one of the same shape, an empty name none.
        rank_ratio: Shares of the full rank KEPT.
        factorization: Method, or methods, of `compress.low_rank`.
        sparsity: Shares of zero weights.
        sparsity_pattern: Method, or methods, of `compress.sparsity_patterns`.
        weight_bits: Bits of stored weights: 2-8, `ternary` (1.58), `binary` (1).
        quantizer: Method, or methods, of `compress.quantizers`.
        granularity: What shares a scale: `channel`, `tensor`, `group:N`.
        activation_bits: Bits of the layers' inputs, 8.
        rate_price: What one bit per weight is worth when weights are rounded, see `plan.LayerPlan`.
        shared: Techniques for which all matched layers share one knob.
        optional: Whether matching nothing is fine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: Match = Match()
    pruning_ratio: list[Share] | None = None
    drop_block: bool | None = None
    shared_with: str | None = None
    rank_ratio: list[RankRatio] | None = None
    factorization: Methods | None = None
    sparsity: list[Share] | None = None
    sparsity_pattern: Methods | None = None
    weight_bits: list[WeightBits] | None = None
    quantizer: Methods | None = None
    granularity: Methods | None = None
    activation_bits: list[Bits] | None = None
    rate_price: list[Price] | None = None
    shared: list[KnobKind] = []
    optional: bool = False


class PruningSettings(BaseModel):
    """How channels and weights are chosen; see `compress.pipeline.PruningPolicy`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    criterion: str = "l2"
    round_to: int = Field(default=8, ge=1)
    scope: Literal["local", "global"] = "local"
    sparsity_scope: Literal["local", "global"] = "local"


class RecipeSettings(BaseModel):
    """How candidates are tuned; see `train.recipe.Recipe`, which checks the values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float | None = None
    task_share: float | None = None
    features: str | None = None
    feature_weight: float | None = None
    penalty: str | None = None
    penalty_strength: float | None = None
    prune_steps: int | None = None
    rewind: bool | None = None
    rounding: str | None = None
    entropy_strength: float | None = None


class SpaceRules(BaseModel):
    """A whole search-space file.

    Attributes:
        version: Format of the file, 1.
        pruning: How channels and weights are chosen.
        recipe: How candidates are tuned, where it differs from the default.
        rules: In order; later rules override earlier ones.
        integer_weight_bits: Widest weights of layers whose inputs may be quantized; None for what
            the target or the runtime says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    pruning: PruningSettings = PruningSettings()
    recipe: RecipeSettings = RecipeSettings()
    rules: list[Rule] = Field(min_length=1)
    integer_weight_bits: Literal[7, 8] | None = None


def is_shipped(space: str | Path) -> bool:
    """Whether a search space is meant by its name, and is no file of the user's."""
    path = Path(space)
    return len(path.parts) == 1 and not path.suffix and not path.is_file()


def load_rules(space: str | Path) -> SpaceRules:
    """Read a search-space file, or a shipped one by its name.

    Args:
        space: Path of a YAML file, or a name such as `default`.

    Raises:
        InputError: If there is no such file, or it is not a valid search space.
    """
    path = Path(space)
    if is_shipped(space):
        path = PRESETS / f"{space}.yaml"
        if not path.is_file():
            raise unknown_name("search space", str(space), (p.stem for p in PRESETS.glob("*.yaml")))
    return parse_rules(read_text(path, "search space"), str(path))


def read_text(path: Path, kind: str) -> str:
    """Text of a small file.

    Raises:
        InputError: If it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:  # a device or pipe has no size to ask for beforehand
            content = file.read(_MAX_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The {kind} {path} cannot be read: {first_line(error)}.") from error
    if len(content) > _MAX_BYTES:
        raise InputError(
            f"A {kind.replace(' ', '-')} file must be at most {_MAX_BYTES} bytes, but {path} has "
            "more."
        )
    return text


def read_yaml(path: Path, kind: str) -> Any:
    """What a small YAML file holds, without aliases and duplicate keys.

    Raises:
        InputError: If it cannot be read, or is no YAML.
    """
    return _parsed(read_text(path, kind), kind, str(path))


def _parsed(text: str, kind: str, origin: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, RecursionError) as error:
        place = " ".join(str(error).split())
        raise InputError(f"The {kind} {origin} is not valid YAML: {place}.") from error


def parse_rules(text: str, origin: str) -> SpaceRules:
    """Parse the text of a search-space file; `origin` names it in messages.

    Raises:
        InputError: If the text is not a valid search space.
    """
    data = _parsed(text, "search space", origin)
    try:
        rules = SpaceRules.model_validate(data)
    except ValidationError as error:
        raise InputError(f"The search space {origin} is wrong at {problem_of(error)}.") from error
    for i, rule in enumerate(rules.rules):
        check_bits("weight_bits", rule.weight_bits, f"{origin}: rules.{i}")
        check_bits("activation_bits", rule.activation_bits, f"{origin}: rules.{i}")
    return rules


def problem_of(error: ValidationError) -> str:
    """The first thing that is wrong in a file: where, what, and what came."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"]) or "top level"
    return f"`{where}`: {problem['msg']}, but got {str(problem['input'])[:80]!r}"


def check_bits(field: str, wanted: Iterable[float] | None, where: str) -> None:
    """Refuse bits that no quantizer makes.

    Args:
        field: `weight_bits` or `activation_bits`.
        wanted: What is asked for.
        where: Names the place in messages.

    Raises:
        InputError: If one of them does not exist.
    """
    allowed = WEIGHT_BITS if field == "weight_bits" else ACTIVATION_BITS
    for bits in wanted or ():
        if bits not in allowed:
            raise InputError(
                f"`{field}` must be among {sorted(allowed)}, but got {bits:g} in {where}."
            )


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without aliases (their expansion can exhaust memory) and duplicate keys.

    A value that cannot be built is a YAMLError with its place, whatever Python raises for it.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(
                None, None, "aliases are not allowed", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, AttributeError) as error:  # of a scalar such as 2001-99-99
            raise yaml.constructor.ConstructorError(
                None, None, first_line(error), node.start_mark
            ) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name!r} stands twice", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)
