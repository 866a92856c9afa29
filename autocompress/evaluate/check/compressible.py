"""The contract of the search space: what can be compressed in the model, and what cannot."""

from collections.abc import Mapping
from typing import Final

from autocompress.errors import InputError
from autocompress.evaluate.check.finding import Finding, failed, passed, warned
from autocompress.evaluate.check.subject import Subject
from autocompress.space.build import BuiltSpace, build_space

# Kind of knob -> what is done to its targets; those that a user asks for first.
_VERBS: Final[Mapping[str, str]] = {
    "pruning_ratio": "pruned",
    "rank_ratio": "factorized",
    "weight_bits": "quantized",
}
_SHOWN: Final = 3


def has_knobs(subject: Subject) -> Finding:
    """There is something to search; names what takes no technique, and why."""
    profile = subject.evaluator.profile
    try:
        built = build_space(profile, subject.rules)
    except InputError as error:
        return failed(error.message, error.hint, subject.place("model"))
    counts = {verb: _targets(built, kind) for kind, verb in _VERBS.items()}
    refused = {verb: _refusals(built, kind) for kind, verb in _VERBS.items()}
    for name, reason in profile.refused_groups.items():
        names = refused["pruned"].setdefault(reason, [])
        if name not in names:
            names.append(name)
    said = "; ".join(
        f"{n} {'groups' if v == 'pruned' else 'layers'} can be {v}" for v, n in counts.items()
    )
    message = f"{len(built.space.knobs)} knobs: {said}"
    facts = {"knobs": len(built.space.knobs), "refused": refused}
    nothing = [verb for verb, n in counts.items() if n == 0 and refused[verb]]
    if nothing:
        why = "; ".join(f"nothing can be {verb}: {_reasons(refused[verb])}" for verb in nothing)
        return warned(
            f"{message}; {why}.",
            "`autocompress analyze` says it layer by layer.",
            subject.place("model"),
            **facts,
        )
    unasked = [verb for verb, n in counts.items() if n == 0]
    if unasked:
        message += f" (no rule of the search space asks for {' or '.join(unasked)} layers here)"
    kept = "; ".join(f"not {verb}: {_reasons(r)}" for verb, r in refused.items() if r)
    return passed(f"{message}. {kept}" if kept else message, **facts)


def _targets(built: BuiltSpace, kind: str) -> int:
    return len({target for k in built.space.knobs if k.kind == kind for target in k.targets})


def _refusals(built: BuiltSpace, kind: str) -> dict[str, list[str]]:
    """Reason -> the layers or groups it is given for."""
    found: dict[str, list[str]] = {}
    for (technique, target), reason in built.refused.items():
        if technique == kind:
            found.setdefault(reason, []).append(target)
    return found


def _reasons(refused: Mapping[str, list[str]]) -> str:
    parts = []
    for reason, targets in refused.items():
        more = f" and {len(targets) - _SHOWN} more" if len(targets) > _SHOWN else ""
        parts.append(f"{', '.join(targets[:_SHOWN])}{more} ({reason})")
    return ", ".join(parts)
