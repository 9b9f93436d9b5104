"""Model and data of a sweep, checked before anything is trained. Loads torch: `child` runs it apart."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import TrainSettings, TrialSection
from sweeper.errors import ConfigError, Problem
from sweeper.preflight.data_report import DataReport, SetReport
from sweeper.preflight.data_rules import (
    in_train_warnings,
    measures_problem,
    positions_problem,
    truncation_warnings,
    unpinned_warnings,
    vocabulary_problem,
)
from sweeper.preflight.data_variants import data_settings, largest_length, models_of, packs
from sweeper.preflight.model import ModelFacts, check_model, read_model_config
from sweeper.preflight.packing import check_packing
from sweeper.training.data_identity import data_identities, pinned
from sweeper.training.memory import unusable_gpu


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
    found = [_BuiltIn(one).gather() for one in models_of(config)]
    return _merged([*found, *_unusable_gpu()] if trains_on_gpu else found)


def _unusable_gpu() -> list["DataReport | list[Problem]"]:
    importlib.import_module("torch")  # which tells
    why = unusable_gpu()
    return [] if why is None else [[Problem(why)]]


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
        self._warnings = unpinned_warnings(config.trial, self._sources)
        self._sets: dict[str, list[int]] = {}

    def gather(self) -> DataReport | list[Problem]:
        """Return what was found, or else every problem."""
        model_config = self._try(lambda: read_model_config(self._config.trial))
        model = None if model_config is None else self._try(lambda: check_model(self._config, model_config))
        tokenizer = self._try(self._tokenizer)
        variants = list(data_settings(self._config))
        tables: dict[str, Any] = {}
        if tokenizer is not None:
            loaded = [self._load(tokenizer, settings) for settings in (*variants[1:], variants[0])]
            tables = loaded[-1]
            self._note(measures_problem(self._config, tables))
            if tables[""] is not None:
                self._sets = self._named_sets(tokenizer, variants[0])
            if model is not None:
                rows = [table for one in loaded for table in one.values() if table is not None]
                self._note(vocabulary_problem(model, tokenizer, rows, name=self._trial.model))
        if model is not None:
            longest = max((table.stats.longest for table in tables.values() if table is not None), default=0)
            most = largest_length(self._config)
            self._note(positions_problem(model, longest=longest, most=most, name=self._trial.model))
            if packs(self._config):
                self._try(lambda: check_packing(self._trial, model_config))
        if self._problems:
            return self._problems
        return self._report(model, tables, variants[0])

    def _try(self, action: Any) -> Any:
        try:
            return action()
        except ConfigError as error:
            self._problems.extend(error.problems)
            return None

    def _note(self, problem: Problem | None) -> None:
        if problem is not None:
            self._problems.append(problem)

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

    def _report(
        self, model: ModelFacts | None, tables: dict[str, Any], settings: TrainSettings
    ) -> DataReport:
        train = tables[""]
        hashes = set(train.row_hashes())
        evaluation = {
            name: _set_report(tables[name].stats, sum(h in hashes for h in tables[name].row_hashes()))
            for name in self._trial.eval_data
        }
        report = _set_report(train.stats, 0)
        self._warnings += in_train_warnings(evaluation)
        self._warnings += truncation_warnings(report, max_length=settings.max_length)
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


def _set_report(stats: Any, n_in_train: int) -> SetReport:
    return SetReport(**dataclasses.asdict(stats), n_in_train=n_in_train)
