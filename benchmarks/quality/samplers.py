"""What is compared: our search, our search without each of its parts, and Optuna's samplers."""

import dataclasses
import warnings

import optuna

from autocompress.samplers.propose import GUIDED, OPTUNA_SAMPLERS

_MULTIVARIATE = "tpe-multivariate"
_DEFAULT_TPE = "tpe-default"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One way to search.

    Attributes:
        name: What tables call it.
        sampler: Name in `search.sampler.SAMPLERS`, or one registered here.
        has_table: Whether the sampler has the sensitivity table.
        has_seeds: Whether the swept plans are measured at the start.
        is_learning: Whether trials correct the table.
        has_ladder: Whether plans are probed without training before they are fine-tuned.
    """

    name: str
    sampler: str
    has_table: bool = False
    has_seeds: bool = False
    is_learning: bool = False
    has_ladder: bool = False


_OURS = Config(
    name="ours",
    sampler=GUIDED,
    has_table=True,
    has_seeds=True,
    is_learning=True,
    has_ladder=True,
)


def _configs() -> list[Config]:
    ours = [
        _OURS,
        # without the table there is nothing to sweep, so the seeds go with it
        dataclasses.replace(_OURS, name="ours without table", has_table=False, has_seeds=False),
        dataclasses.replace(_OURS, name="ours without seeds", has_seeds=False),
        dataclasses.replace(_OURS, name="ours without surrogate", is_learning=False),
        dataclasses.replace(_OURS, name="ours without ladder", has_ladder=False),
    ]
    theirs = []
    for name in (_DEFAULT_TPE, _MULTIVARIATE, "nsga2", "gp", "random"):
        theirs.append(Config(name=name, sampler=name))
        theirs.append(Config(name=f"{name} + our seeds", sampler=name, has_seeds=True))
    return [*ours, *theirs]


CONFIGS = {config.name: config for config in _configs()}


def register() -> None:
    """Make Optuna's TPE selectable as Optuna ships it, and multivariate."""

    def multivariate(seed: int) -> optuna.samplers.BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(seed=seed, multivariate=True)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    OPTUNA_SAMPLERS[_DEFAULT_TPE] = lambda seed: optuna.samplers.TPESampler(seed=seed)
    OPTUNA_SAMPLERS[_MULTIVARIATE] = multivariate
