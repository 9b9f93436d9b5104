"""Model and data of a sweep, checked before anything is trained. Loads torch: `child` runs it apart."""

import dataclasses
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.rules_space import possible_values
from sweeper.config.trial_models import TrainSettings, TrialSection
from sweeper.errors import ConfigError, Problem
from sweeper.preflight.model import ModelFacts, check_model
from sweeper.preflight.packing import check_packing
from sweeper.training.data_identity import data_identities, named_sources, pinned
from sweeper.training.memory import unusable_gpu
from sweeper.training.sources import is_local


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetReport:
    """What one set of rows holds. Lengths in tokens."""

    rows: int
    tokens: int  # after truncation
    target_tokens: int  # that the loss is taken on
    longest: int  # before truncation
    n_truncated: int
    n_in_train: int = 0  # rows of an eval set that are also trained on


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataReport:
    """What the preflight found. JSON-able."""

    rows: int = 0  # of all train sources
    target_tokens: int = 0
    sets: dict[str, list[int]] = dataclasses.field(
        default_factory=dict
    )  # rows and target tokens of `data_sets`
    max_length: int = 0  # that rows were counted with: the first, where it is swept
    train: SetReport | None = None  # None where the trial is the user's own function
    evaluation: dict[str, SetReport] = dataclasses.field(default_factory=dict)
    model: ModelFacts | None = None
    warnings: tuple[str, ...] = ()
    sources: dict[str, str] = dataclasses.field(default_factory=dict)  # what each holds: `DataFacts.sources`


def check_trial(
    config: SweepConfig, *, directory: Path | None = None, trains_on_gpu: bool = False
) -> DataReport:
    """Check all that a trial reads, and leave the tokenised data in the cache.

    Args:
        config: The sweep.
        directory: Where the module of `trial.function` may lie.
        trains_on_gpu: Whether it is to train on a GPU of this machine.

    Raises:
        ConfigError: With every problem that was found.
    """
    if config.trial.function is not None:
        from sweeper.training.functions import load_function

        load_function(config.trial.function, directory=directory)
        return DataReport()
    models = _values(config, "model")
    found = [_BuiltIn(_of_model(config, model)).gather() for model in models or [None]]
    return _merged([*found, *_unusable_gpu()] if trains_on_gpu else found)


def _unusable_gpu() -> list["DataReport | list[Problem]"]:
    importlib.import_module("torch")  # which tells
    why = unusable_gpu()
    return [] if why is None else [[Problem(why)]]


def _of_model(config: SweepConfig, model: str | None) -> SweepConfig:
    """Return the sweep as if it had one of its models alone."""
    if model is None:
        return config
    space = {name: dimension for name, dimension in config.search_space.items() if name != "model"}
    return config.model_copy(update={"trial": config.trial.with_model(model), "search_space": space})


def _merged(found: list["DataReport | list[Problem]"]) -> DataReport:
    """Return the reports of several models as one: the first one's rows, the largest model, all warnings.

    Raises:
        ConfigError: With the problems of all.
    """
    problems = [problem for one in found if isinstance(one, list) for problem in one]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    reports = [one for one in found if isinstance(one, DataReport)]
    largest = max(
        (one.model for one in reports), key=lambda model: 0 if model is None else model.n_parameters
    )
    warnings = dict.fromkeys(warning for one in reports for warning in one.warnings)
    return dataclasses.replace(reports[0], model=largest, warnings=tuple(warnings))


class _BuiltIn:
    """The checks of the built-in fine-tuning, gathering problems as they go."""

    def __init__(self, config: SweepConfig) -> None:
        self._config = config
        # Before they are read, so that an edit meanwhile is seen.
        self._sources = data_identities(config.trial)
        self._trial: TrialSection = pinned(config.trial, self._sources)
        self._problems: list[Problem] = []
        self._warnings = _unpinned(config.trial, self._sources)
        self._sets: dict[str, list[int]] = {}

    def gather(self) -> DataReport | list[Problem]:
        """Return what was found, or else every problem."""
        model = self._try(lambda: check_model(self._config))
        tokenizer = self._try(self._tokenizer)
        variants = list(_data_settings(self._config))
        tables: dict[str, Any] = {}
        if tokenizer is not None:
            loaded = [self._load(tokenizer, settings) for settings in (*variants[1:], variants[0])]
            tables = loaded[-1]
            self._try(lambda: self._check_measures(tables))
            if tables[""] is not None:
                self._sets = self._named_sets(tokenizer, variants[0])
            if model is not None:
                self._check_vocabulary(
                    model, tokenizer, [t for one in loaded for t in one.values() if t is not None]
                )
        if model is not None:
            self._check_positions(model, tables)
            if True in (_values(self._config, "packing") or [self._trial.settings.get("packing")]):
                self._try(lambda: check_packing(self._trial))
        if self._problems:
            return self._problems
        return self._report(model, tables, variants[0])

    def _try(self, action: Any) -> Any:
        try:
            return action()
        except ConfigError as error:
            self._problems.extend(error.problems)
            return None

    def _tokenizer(self) -> Any:
        from sweeper.training.templates import ChatRenderer
        from sweeper.training.tokenizer import load_tokenizer
        from sweeper.training.tokens import tokenizer_identity

        tokenizer = load_tokenizer(self._trial)
        tokenizer_identity(tokenizer)
        if tokenizer.chat_template:
            self._warnings += ChatRenderer(tokenizer, loss_on="answers").check()
        return tokenizer

    def _load(self, tokenizer: Any, settings: TrainSettings) -> dict[str, Any]:
        """Return every set's table, the train rows under the empty name."""
        from sweeper.training.tokens import eval_token_settings, load_table, load_train_rows

        tables = {"": self._try(lambda: load_train_rows(self._trial, settings, tokenizer))}
        how = eval_token_settings(settings, self._trial.evaluation)
        for name, source in self._trial.eval_data.items():
            tables[name] = self._try(lambda source=source: load_table(source, tokenizer, how))
        return tables

    def _named_sets(self, tokenizer: Any, settings: TrainSettings) -> dict[str, list[int]]:
        """Return rows and target tokens of each data set that has a name; all are loaded already."""
        from sweeper.training.encode import TokenSettings
        from sweeper.training.tokens import load_table

        how = TokenSettings(max_length=settings.max_length, loss_on=settings.loss_on)
        each = {
            name: load_table(one, tokenizer, how).stats for name, one in (self._trial.data_sets or {}).items()
        }
        return {name: [stats.rows, stats.target_tokens] for name, stats in each.items()}

    def _check_vocabulary(self, model: ModelFacts, tokenizer: Any, tables: list[Any]) -> None:
        """A token without a row in the embedding ends a trial with an index error, on a GPU with a dead process."""
        highest, which = int(tokenizer.pad_token_id), f"The pad token `{tokenizer.pad_token}`"
        if highest < model.vocab_size:
            if max(tokenizer.get_vocab().values()) < model.vocab_size:
                return  # so that no row has to be looked at
            rows = (table[index]["input_ids"] for table in tables for index in range(len(table)))
            highest, which = (
                max((int(ids.max()) for ids in rows if len(ids)), default=0),
                "A token of the data",
            )
        if highest >= model.vocab_size:
            self._problems.append(
                Problem(
                    f"{which} has the id {highest}, but `{self._trial.model}` knows only {model.vocab_size} tokens, "
                    "from 0 on. Use the tokenizer that it was trained with, or one whose added tokens it has."
                )
            )

    def _check_positions(self, model: ModelFacts, tables: dict[str, Any]) -> None:
        longest = max((table.stats.longest for table in tables.values() if table is not None), default=0)
        most = _largest_length(self._config)
        length = min(longest, most)
        if model.max_positions is not None and length > model.max_positions:
            self._problems.append(
                Problem(
                    f"The longest row has {longest} tokens and `max_length` is {most}, but "
                    f"`{self._trial.model}` knows only {model.max_positions} positions. "
                    f"Set `max_length` to at most {model.max_positions}."
                )
            )

    def _check_measures(self, tables: dict[str, Any]) -> None:
        """Exact match needs rows with an answer; that the names exist at all was checked with the config."""
        used = {
            self._config.metric,
            *(measure for weights in self._trial.metrics.values() for measure in weights),
        }
        for name in self._trial.eval_data:
            table = tables.get(name)
            if table is not None and f"{name}/exact_match" in used and not table.has_answers:
                raise ConfigError(
                    f"`{name}/exact_match` compares generated answers, but `{name}` has only `text` rows, "
                    "which have "
                    f"none. Use `{name}/loss`, or give rows with `messages` or with `prompt` and "
                    "`completion`."
                )

    def _report(
        self, model: ModelFacts | None, tables: dict[str, Any], settings: TrainSettings
    ) -> DataReport:
        train = tables[""]
        hashes = set(train.row_hashes())
        evaluation = {
            name: _set_report(tables[name].stats, sum(h in hashes for h in tables[name].row_hashes()))
            for name in self._trial.eval_data
        }
        for name, found in evaluation.items():
            if found.n_in_train:
                self._warnings.append(
                    f"{found.n_in_train} of the {found.rows} rows of the eval set `{name}` are also in the "
                    "train data, so "
                    "its measures flatter the trials that memorise."
                )
        report = _set_report(train.stats, 0)
        if report.n_truncated:
            self._warnings.append(
                f"{report.n_truncated} of {report.rows} train rows are longer than `max_length` = "
                f"{settings.max_length} "
                f"tokens and are cut; the longest has {report.longest}."
            )
        return DataReport(
            rows=report.rows,
            target_tokens=report.target_tokens,
            sets=self._sets,
            max_length=settings.max_length,
            train=report,
            evaluation=evaluation,
            model=model,
            warnings=tuple(self._warnings),
            sources=self._sources,
        )


def _unpinned(trial: TrialSection, identities: dict[str, str]) -> list[str]:
    """Return a warning for each data set of the hub of which no commit is known: nobody would notice a new one."""
    return [
        f"`trial.{place}` = `{source.path}` is a data set of the hub, which does not tell its commit: should it change "
        "there while the sweep runs, later trials may be trained or measured on other rows. Set its `revision` to a "
        "commit, or download it and give its path."
        for place, source in named_sources(trial).items()
        if place not in identities and not is_local(source)
    ]


def _set_report(stats: Any, n_in_train: int) -> SetReport:
    return SetReport(**dataclasses.asdict(stats), n_in_train=n_in_train)


def _largest_length(config: SweepConfig) -> int:
    """Return the largest `max_length` that a point can have."""
    dimension = config.search_space.get("max_length")
    if dimension is None:
        return int(config.trial.settings.get("max_length", TrainSettings().max_length))
    return int(max(dimension.listed or dimension.int or [TrainSettings().max_length]))


def _data_settings(config: SweepConfig) -> Iterable[TrainSettings]:
    """Yield settings with every combination of swept values that the tokens depend on.

    A `max_length` drawn from a range is checked at its smallest value, where the most rows lose their answer.
    """
    base = {key: value for key, value in config.trial.settings.items() if key in TrainSettings.model_fields}
    for loss_on in _values(config, "loss_on") or [None]:
        for max_length in _values(config, "max_length") or [None]:
            swept = {"loss_on": loss_on, "max_length": max_length}
            yield TrainSettings.model_validate(base | {k: v for k, v in swept.items() if v is not None})


def _values(config: SweepConfig, name: str) -> list[Any]:
    dimension = config.search_space.get(name)
    if dimension is None:
        return []
    values = possible_values(dimension)
    if values is not None and len(values) <= 16:
        return list(values)
    return [min(values)] if values else [dimension.int[0]] if dimension.int else []
