"""Tokenised data: made once per data set, tokenizer and length, and then memory-mapped by every trial."""

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from sweeper.cache import cache_dir
from sweeper.config.trial_models import DataSource, Evaluation, TrainSettings, TrialSection
from sweeper.errors import ConfigError, Problem
from sweeper.files import publish_directory
from sweeper.looking import is_there
from sweeper.training.encode import Columns, Encoder, TokenSettings, TokenStats
from sweeper.training.sources import read_rows, source_identity
from sweeper.training.token_files import write_tokens

FORMAT = 4  # raise it when what is written changes
MAX_PROBLEMS = 20
_tables: dict[str, "TokenTable"] = {}


class TokenTable:
    """Tokenised rows in Arrow files. Reading a row copies it from the mapped file, nothing else."""

    def __init__(self, path: Path) -> None:
        self.dataset = datasets.load_from_disk(str(path))
        self.stats = TokenStats(**json.loads((path / "stats.json").read_text()))
        self._input_ids = _Lists(self.dataset, "input_ids")
        self._labels = _Lists(self.dataset, "labels")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self._input_ids[index], "labels": self._labels[index]}

    @property
    def has_answers(self) -> bool:
        """Whether generated answers can be compared with anything."""
        return "answer" in self.dataset.column_names and any(a is not None for a in self.dataset["answer"])

    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the tokens of every row, in order."""
        return self._input_ids.lengths()

    def row_hashes(self) -> Iterator[bytes]:
        """Yield a digest of each row's tokens."""
        for index in range(len(self)):
            yield hashlib.sha256(self._input_ids[index].tobytes()).digest()


class JoinedTables:
    """Several tables one after the other, as one."""

    def __init__(self, tables: list[TokenTable]) -> None:
        self._tables = tables
        self._starts = np.cumsum([0, *(len(table) for table in tables)])

    @property
    def sizes(self) -> list[int]:
        """Rows of each table."""
        return [len(table) for table in self._tables]

    @property
    def dataset(self) -> Any:
        """The first table's rows, for whoever wants to see the columns."""
        return self._tables[0].dataset

    @property
    def stats(self) -> TokenStats:
        """What all tables hold together."""
        each = [table.stats for table in self._tables]
        return TokenStats(
            rows=sum(one.rows for one in each),
            tokens=sum(one.tokens for one in each),
            target_tokens=sum(one.target_tokens for one in each),
            longest=max(one.longest for one in each),
            n_truncated=sum(one.n_truncated for one in each),
            n_chats=sum(one.n_chats for one in each),
            n_joined=sum(one.n_joined for one in each),
        )

    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the tokens of every row, in order."""
        return np.concatenate([table.lengths() for table in self._tables])

    def row_hashes(self) -> Iterator[bytes]:
        """Yield a digest of each row's tokens."""
        for table in self._tables:
            yield from table.row_hashes()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        table = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._tables[table][index - int(self._starts[table])]


class _Lists:
    """A list column as array views of the mapped file."""

    def __init__(self, dataset: Any, column: str) -> None:
        chunks = dataset.data.column(column).chunks
        self._chunks = [(chunk.offsets.to_numpy(), chunk.values.to_numpy()) for chunk in chunks]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])

    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.concatenate([np.diff(offsets).astype(np.int64) for offsets, _ in self._chunks])

    def __getitem__(self, index: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        offsets, values = self._chunks[chunk]
        row = index - int(self._starts[chunk])
        found: np.ndarray[Any, np.dtype[np.int64]] = values[offsets[row] : offsets[row + 1]].astype(np.int64)
        return found


def load_table(source: DataSource, tokenizer: Any, settings: TokenSettings) -> TokenTable:
    """Return a source's tokens: from this process, from the cache on disk, or made now.

    Raises:
        ConfigError: If a row cannot be learned from, with every such row's place.
    """
    key = _key(source, tokenizer, settings)
    if key not in _tables:
        path = cache_dir() / "tokens" / key
        if not os.path.exists(path):  # not `is_there`, which raises where a directory may not be entered
            with one_at_a_time(path):
                if not is_there(path):
                    _build(path, source, tokenizer, settings)
        _tables[key] = TokenTable(path)
    return _tables[key]


def load_train_rows(trial: TrialSection, settings: TrainSettings, tokenizer: Any) -> JoinedTables:
    """Return the rows of all train sources, one source after the other."""
    how = TokenSettings(max_length=settings.max_length, loss_on=settings.loss_on)
    return JoinedTables([load_table(source, tokenizer, how) for source in train_sources(trial)])


def train_sources(trial: TrialSection) -> list[DataSource]:
    """Return the train sources as a list.

    Raises:
        ConfigError: If there is none.
    """
    if not trial.sources:
        raise ConfigError("`trial.train_data` is missing. Give the data to train on.")
    return trial.sources


def eval_token_settings(settings: TrainSettings, how: Evaluation) -> TokenSettings:
    """Return how eval sets are tokenised."""
    return TokenSettings(max_length=settings.max_length, loss_on=settings.loss_on, with_prompts=how.generate)


def _key(source: DataSource, tokenizer: Any, settings: TokenSettings) -> str:
    parts = [
        str(FORMAT),
        source_identity(source),
        tokenizer_identity(tokenizer),
        json.dumps(dataclasses.asdict(settings), sort_keys=True),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def tokenizer_identity(tokenizer: Any) -> str:
    """Return a text that changes with the vocabulary, the special tokens or the chat template."""
    cached = getattr(tokenizer, "_sweeper_identity", None)
    if cached is None:
        if not tokenizer.is_fast:
            raise ConfigError(
                f"`{type(tokenizer).__name__}` does not tell where its tokens stand in the text, which is "
                "needed to "
                "find the answers. Use a model whose tokenizer has a `tokenizer.json`."
            )
        text = json.dumps(
            [tokenizer.chat_template, {k: str(v) for k, v in tokenizer.special_tokens_map.items()}]
        )
        digest = hashlib.sha256(text.encode())
        digest.update(tokenizer.backend_tokenizer.to_str().encode())
        cached = tokenizer._sweeper_identity = digest.hexdigest()
    return str(cached)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process of this machine make what lies at a path while the others wait for it.

    Raises:
        ConfigError: If its directory cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_suffix(".lock"), "w")  # noqa: SIM115 - closed below; the block's errors are its own
    except OSError as error:
        raise ConfigError(
            f"The cache `{cache_dir()}` cannot be written: {error.strerror or error} (`{path.parent}`). Set "
            "SWEEPER_CACHE to a directory that can."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(path: Path, source: DataSource, tokenizer: Any, settings: TokenSettings) -> None:
    encoder = Encoder(tokenizer, settings)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write_tokens(beside, _all_good(encoder, source), with_prompts=settings.with_prompts)
        (beside / "stats.json").write_text(json.dumps(dataclasses.asdict(encoder.stats)))
        publish_directory(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _all_good(encoder: Encoder, source: DataSource) -> Iterator[Columns]:
    """Yield a source's rows as they are encoded, and refuse them at the end if there is anything wrong.

    Raises:
        ConfigError: With every row that cannot be learned from, or if there is none.
    """
    yield from encoder.encode(read_rows(source))
    if encoder.problems:
        raise ConfigError(_shown(encoder.problems))
    if not encoder.stats.rows:
        raise ConfigError(f"The data `{source.path}` has no rows. Correct `path`, or fill it.")


def _shown(problems: list[Problem]) -> list[Problem]:
    """Keep the first problems and say how many there are."""
    if len(problems) <= MAX_PROBLEMS:
        return problems
    rest = len(problems) - MAX_PROBLEMS
    return [
        *problems[:MAX_PROBLEMS],
        Problem(f"{rest} more rows have problems; {len(problems)} rows in all."),
    ]
