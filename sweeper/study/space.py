"""The search space in Optuna's distributions, and the samplers by name."""

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from sweeper.config.models import SweepConfig
from sweeper.config.space_models import Dimension, is_on_step
from sweeper.params import is_number


def distributions(config: SweepConfig) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of every dimension, in the order of the file."""
    return {name: _distribution(dimension) for name, dimension in config.search_space.items()}


def _distribution(dimension: Dimension) -> BaseDistribution:
    values = dimension.grid if dimension.grid is not None else dimension.choice
    if values is not None:
        return CategoricalDistribution(choices=[encode_choice(value) for value in values])
    if dimension.int is not None:
        low, high = dimension.int
        step = int(dimension.step) if dimension.step is not None else 1
        return IntDistribution(low, high, log=dimension.log, step=step)
    if dimension.log_uniform is not None:
        low_rate, high_rate = dimension.log_uniform
        return FloatDistribution(low_rate, high_rate, log=True)
    assert dimension.uniform is not None, "config checked that one kind is set"
    return FloatDistribution(*dimension.uniform, step=dimension.step)


def contains(distribution: BaseDistribution, choice: Any) -> bool:
    """Whether a dimension can hold a value, encoded as a choice."""
    if isinstance(distribution, CategoricalDistribution):
        # Optuna keeps the place of the first equal choice, and to Python true equals 1.
        first = next((one for one in distribution.choices if one == choice), None)
        return choice in distribution.choices and isinstance(first, bool) == isinstance(choice, bool)
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return (
            is_number(choice)
            and distribution.low <= choice <= distribution.high
            and (isinstance(distribution, FloatDistribution) or float(choice).is_integer())
            and is_on_step(choice, low=distribution.low, step=distribution.step)
        )
    return False


def widened(distribution: BaseDistribution, values: Iterable[Any]) -> BaseDistribution:
    """Return a dimension that holds some further values too."""
    choices = [encode_choice(value) for value in values]
    outside = [choice for choice in dict.fromkeys(choices) if not contains(distribution, choice)]
    if not outside:
        return distribution
    if isinstance(distribution, CategoricalDistribution):
        return CategoricalDistribution([*distribution.choices, *outside])
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    kind = type(distribution)
    ends = (distribution.low, distribution.high, *outside)
    return kind(low=min(ends), high=max(ends), log=distribution.log)


# Marks a list or mapping, and text that begins like the mark; Optuna's choices are None, bool, int, float or str.
_JSON = "json:"


def encode_choice(value: Any) -> Any:
    """Return a value as Optuna keeps choices: scalars as they are, lists and mappings as JSON text.

    >>> encode_choice([1, 2]), encode_choice("json:x")
    ('json:[1, 2]', 'json:"json:x"')
    """
    is_marked = isinstance(value, list | dict) or (isinstance(value, str) and value.startswith(_JSON))
    return _JSON + json.dumps(value, sort_keys=True) if is_marked else value


def decode_choice(value: Any) -> Any:
    """Return the value that `encode_choice` was given, or text that only begins like one of its own."""
    if not isinstance(value, str) or not value.startswith(_JSON):
        return value
    try:
        return json.loads(value.removeprefix(_JSON))
    except ValueError:  # text of a study that was made before such text was marked
        return value


def from_choices(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the config that stored params stand for."""
    return {name: decode_choice(value) for name, value in params.items()}


def make_sampler(config: SweepConfig, *, n_drawn: int) -> BaseSampler:
    """Return the sampler for the next draw.

    It is made anew for every draw, seeded from the study's seed and the number of trials drawn so far, so that a
    resumed study draws what the uninterrupted one would have drawn. QMC keeps one seed, since its sequence is
    defined by it; the position is kept in the storage.
    """
    name, options = config.sampler.name, dict(config.sampler.options)
    seed = options.pop("seed", config.seed)
    drawn_seed = _seed_of(f"{seed}:{n_drawn}")
    if name == "cmaes":  # the plan says which dimensions it draws by themselves; Optuna would at every draw
        options = {"warn_independent_sampling": False, **options}
    samplers: dict[str, Callable[..., BaseSampler]] = {
        "random": optuna.samplers.RandomSampler,
        "tpe": optuna.samplers.TPESampler,
        "qmc": optuna.samplers.QMCSampler,
        "gp": optuna.samplers.GPSampler,
        "cmaes": optuna.samplers.CmaEsSampler,
    }
    return samplers[name](seed=seed if name == "qmc" else drawn_seed, **options)


def random_samplers(config: SweepConfig, *, n_drawn: int, n: int) -> Iterator[BaseSampler]:
    """Yield samplers that draw at random, each with a seed of its own."""
    for index in range(n):
        yield optuna.samplers.RandomSampler(seed=_seed_of(f"{config.seed}:{n_drawn}:{index}"))


def _seed_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 2**31


@contextlib.contextmanager
def quiet_samplers() -> Iterator[None]:
    """Let samplers be made and used that are, in Optuna's words, experimental: QMC and GP."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
