"""What makes model and rows unfit for each other, and what should be known of the rows. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import TrialSection
from sweeper.errors import Problem
from sweeper.preflight.data_report import SetReport
from sweeper.preflight.model import ModelFacts
from sweeper.training.data_identity import named_sources
from sweeper.training.sources import is_local


def vocabulary_problem(
    model: ModelFacts, tokenizer: Any, tables: Sequence[Any], *, name: str | None
) -> Problem | None:
    """A token without a row in the embedding ends a trial with an index error, on a GPU with a dead process."""
    highest, which = int(tokenizer.pad_token_id), f"The pad token `{tokenizer.pad_token}`"
    if highest < model.vocab_size:
        if max(tokenizer.get_vocab().values()) < model.vocab_size:
            return None  # so that no row has to be looked at
        rows = (table[index]["input_ids"] for table in tables for index in range(len(table)))
        highest, which = (
            max((int(ids.max()) for ids in rows if len(ids)), default=0),
            "A token of the data",
        )
    if highest < model.vocab_size:
        return None
    return Problem(
        f"{which} has the id {highest}, but `{name}` knows only {model.vocab_size} tokens, "
        "from 0 on. Use the tokenizer that it was trained with, or one whose added tokens it has."
    )


def positions_problem(model: ModelFacts, *, longest: int, most: int, name: str | None) -> Problem | None:
    """Rows are to fit into the positions that a model knows.

    Args:
        model: Of the sweep.
        longest: Row of all tables, in tokens.
        most: The largest `max_length`.
        name: The model's.
    """
    if model.max_positions is None or min(longest, most) <= model.max_positions:
        return None
    return Problem(
        f"The longest row has {longest} tokens and `max_length` is {most}, but "
        f"`{name}` knows only {model.max_positions} positions. "
        f"Set `max_length` to at most {model.max_positions}."
    )


def measures_problem(config: SweepConfig, tables: Mapping[str, Any]) -> Problem | None:
    """Exact match needs rows with an answer; that the names exist at all was checked with the config."""
    used = {
        config.metric,
        *(measure for weights in config.trial.metrics.values() for measure in weights),
    }
    for name in config.trial.eval_data:
        table = tables.get(name)
        if table is not None and f"{name}/exact_match" in used and not table.has_answers:
            return Problem(
                f"`{name}/exact_match` compares generated answers, but `{name}` has only `text` rows, "
                "which have "
                f"none. Use `{name}/loss`, or give rows with `messages` or with `prompt` and "
                "`completion`."
            )
    return None


def in_train_warnings(evaluation: Mapping[str, SetReport]) -> list[str]:
    """Return a warning for each eval set of which rows are trained on."""
    return [
        f"{found.n_in_train} of the {found.rows} rows of the eval set `{name}` are also in the "
        "train data, so "
        "its measures flatter the trials that memorise."
        for name, found in evaluation.items()
        if found.n_in_train
    ]


def truncation_warnings(train: SetReport, *, max_length: int) -> list[str]:
    """Return a warning where rows are cut."""
    if not train.n_truncated:
        return []
    return [
        f"{train.n_truncated} of {train.rows} train rows are longer than `max_length` = "
        f"{max_length} "
        f"tokens and are cut; the longest has {train.longest}."
    ]


def unpinned_warnings(trial: TrialSection, identities: Mapping[str, str]) -> list[str]:
    """Return a warning for each data set of the hub of which no commit is known: nobody would notice a new one."""
    return [
        f"`trial.{place}` = `{source.path}` is a data set of the hub, which does not tell its commit: should it change "
        "there while the sweep runs, later trials may be trained or measured on other rows. Set its `revision` to a "
        "commit, or download it and give its path."
        for place, source in named_sources(trial).items()
        if place not in identities and not is_local(source)
    ]
