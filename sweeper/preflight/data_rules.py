"""What makes model and rows unfit for each other, and what should be known of the rows. Pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sweeper.config.messages import join
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


def truncation_warnings(found: SetReport, *, rows: str, max_length: int) -> list[str]:
    """Return a warning where rows are cut; `rows` says of what they are."""
    if not found.n_truncated:
        return []
    return [
        f"{found.n_truncated} of {found.rows} {rows} are longer than `max_length` = {max_length} tokens and are cut; "
        f"the longest has {found.longest}."
    ]


def joined_warnings(found: SetReport, *, rows: str) -> list[str]:
    """Return a warning where a prompt's end and its answer's begin are one token."""
    if not found.n_joined:
        return []
    return [
        f"In {found.n_joined} of {found.rows} {rows} the tokenizer joins the end of the prompt to the begin of the "
        "answer, so the answer is learned after other tokens than it is asked for with. Most often the prompt ends in "
        "a space: move it to the begin of the `completion`."
    ]


def unlike_measures_warnings(config: SweepConfig, counted: Mapping[str, Collection[int | None]]) -> list[str]:
    """Return a warning where the points of a sweep are compared by means over other tokens from point to point.

    Args:
        config: The sweep.
        counted: The target tokens of each eval set, and of the train rows under the empty name, with every value of the
            settings that they depend on; None among them where a range of values has others.
    """
    varied = [name for name in ("loss_on", "max_length", "model") if name in config.search_space]
    per_token = ("loss", "token_accuracy")
    told = []
    for value in _compared_by(config):
        name, _, measure = value.rpartition("/")
        if measure in per_token and len(set(counted.get(name, ()))) > 1:
            rows = f"the eval set `{name}`" if name else "the train rows"
            told.append(
                f"Points are compared by `{value}`, a mean over the target tokens of {rows}, and {join(varied)} in the "
                "search space changes which these are: a point may win by easier tokens. Fix "
                f"{'it' if len(varied) == 1 else 'them'}, or compare by an `exact_match`."
            )
    return told


def _compared_by(config: SweepConfig) -> list[str]:
    """Return the values that the metric, and signals that are chosen to judge by, are made of."""
    pruner = config.pruner
    judged_by = [config.metric, *(pruner.signals or ()), *([pruner.signal] if pruner.signal else [])]
    parts = [part for name in judged_by for part in config.trial.metrics.get(name, [name])]
    return list(dict.fromkeys(parts))


def unpinned_warnings(trial: TrialSection, identities: Mapping[str, str]) -> list[str]:
    """Return a warning for each data set of the hub of which no commit is known: nobody would notice a new one."""
    return [
        f"`trial.{place}` = `{source.path}` is a data set of the hub, which does not tell its commit: should it change "
        "there while the sweep runs, later trials may be trained or measured on other rows. Set its `revision` to a "
        "commit, or download it and give its path."
        for place, source in named_sources(trial).items()
        if place not in identities and not is_local(source)
    ]
