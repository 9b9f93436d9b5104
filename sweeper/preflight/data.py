"""Model and data of a sweep, checked before anything is trained. Loads torch: `child` runs it apart."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import TrainSettings, TrialSection
from sweeper.errors import ConfigError, Problem
from sweeper.preflight.answers import answer_facts, answer_positions_problem, long_answer_warnings
from sweeper.preflight.data_report import DataReport, SetReport
from sweeper.preflight.data_rules import (
    in_train_warnings,
    joined_warnings,
    measures_problem,
    positions_problem,
    truncation_warnings,
    unlike_measures_warnings,
    unpinned_warnings,
    vocabulary_problem,
)
from sweeper.preflight.data_variants import data_settings, largest_length, models_of, packs
from sweeper.preflight.diagnosis import COMPILER_REMEDY
from sweeper.preflight.model import ModelFacts, check_model, read_model_config
from sweeper.preflight.node import cannot_compile
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
    each = [_BuiltIn(one) for one in models_of(config)]
    found = [one.gather() for one in each]
    merged = _merged([*found, *_unsharded(config), *(_unusable_gpu() if trains_on_gpu else ())])
    counted = {name: [n for one in each for n in one.counted[name]] for name in each[0].counted}
    unlike = unlike_measures_warnings(config, counted)
    return dataclasses.replace(merged, warnings=(*merged.warnings, *unlike))


def _unsharded(config: SweepConfig) -> list["DataReport | list[Problem]"]:
    if config.resources.sharding is None:
        return []
    from sweeper.training.sharding import unusable_for_sharding  # torch.distributed takes half a second

    why = unusable_for_sharding()
    return [] if why is None else [[Problem(why)]]


def _unusable_gpu() -> list["DataReport | list[Problem]"]:
    importlib.import_module("torch")  # which tells
    why = unusable_gpu()
    if why is not None:
        return [[Problem(why)]]
    lacking = cannot_compile()
    if lacking is None:
        return []
    return [
        [Problem(f"Trials are given GPUs, for which they compile kernels, but {lacking}. {COMPILER_REMEDY}")]
    ]


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
        self.counted: dict[str, list[int | None]] = {}  # see `unlike_measures_warnings`

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
            self._check_template(tokenizer, tables)
            self._note(measures_problem(self._config, tables))
            longest_checked = max(settings.max_length for settings in variants)
            self._count(loaded, is_all=longest_checked >= largest_length(self._config))
            if tables[""] is not None:
                self._sets = self._named_sets(tokenizer, variants[0])
            if model is not None:
                rows = [table for one in loaded for table in one.values() if table is not None]
                self._note(vocabulary_problem(model, tokenizer, rows, name=self._trial.model))
                self._check_answers(tokenizer, tables, model, model_config)
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
        from sweeper.training.tokenizer import load_tokenizer
        from sweeper.training.tokens import tokenizer_identity

        tokenizer = load_tokenizer(self._trial)
        tokenizer_identity(tokenizer)
        return tokenizer

    def _check_template(self, tokenizer: Any, tables: dict[str, Any]) -> None:
        """Try the chat template where there are chats: for other rows it may be made for what it likes."""
        from sweeper.training.templates import ChatRenderer

        if tokenizer.chat_template and any(
            table.stats.n_chats for table in tables.values() if table is not None
        ):
            self._warnings += self._try(ChatRenderer(tokenizer, loss_on="answers").check) or []

    def _check_answers(
        self, tokenizer: Any, tables: dict[str, Any], model: ModelFacts, model_config: Any
    ) -> None:
        """Look whether the eval sets' answers can be generated."""
        from sweeper.training.templates import end_of_turn

        how = self._trial.evaluation
        loaded = [name for name in self._trial.eval_data if tables[name] is not None]
        if not loaded or not how.generate:
            return
        end = end_of_turn(tokenizer, has_chats=False)  # a template that chats cannot use was told of before
        for name in loaded:
            found = answer_facts(tables[name], tokenizer, how, end=end)
            if found is not None:
                self._warnings += long_answer_warnings(name, found, how)
                self._note(answer_positions_problem(name, found, model, model_config, self._trial))

    def _count(self, loaded: list[dict[str, Any]], *, is_all: bool) -> None:
        """Note the target tokens of every set; `is_all` says whether every swept length is among the variants."""
        for name in loaded[0]:
            each = [tables[name].stats for tables in loaded if tables[name] is not None]
            others = [] if is_all or not any(stats.n_truncated for stats in each) else [None]
            self.counted[name] = [*(stats.target_tokens for stats in each), *others]

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
        named = {"train rows": report}
        named |= {f"rows of the eval set `{name}`": one for name, one in evaluation.items()}
        for rows, one in named.items():
            self._warnings += truncation_warnings(one, rows=rows, max_length=settings.max_length)
            self._warnings += joined_warnings(one, rows=rows)
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
