"""Tokenised rows on their way to Arrow files: never more of them in memory than are encoded at a time."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow

from sweeper.training.encode import Columns


def write_tokens(directory: Path, blocks: Iterable[Columns], *, with_prompts: bool) -> None:
    """Write blocks of rows, one after the other, as a data set of the `datasets` library.

    They go to one plain file first, of which that library then makes its own: it takes what it is given in memory as
    Python objects, at 130 bytes a token (5.2).
    """
    plain = directory / "plain" / "rows.arrow"
    plain.parent.mkdir(parents=True)
    schema = _features(with_prompts=with_prompts).arrow_schema
    with pyarrow.OSFile(str(plain), "wb") as file, pyarrow.ipc.new_stream(file, schema) as stream:
        for columns in blocks:
            arrays = [_array(columns[field.name], field.type) for field in schema]
            stream.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
    with _quiet():
        datasets.Dataset.from_file(str(plain)).save_to_disk(str(directory))
    shutil.rmtree(plain.parent)


def _array(values: Sequence[Any], kind: Any) -> Any:
    if not pyarrow.types.is_list(kind):
        return pyarrow.array(values, type=kind)
    rows = [np.asarray(row, dtype=np.int32) for row in values]
    offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int32)
    tokens = np.concatenate(rows) if rows else np.empty(0, dtype=np.int32)
    return pyarrow.ListArray.from_arrays(offsets, tokens, type=kind)


@contextmanager
def _quiet() -> Iterator[None]:
    was_on = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if was_on:
            datasets.enable_progress_bars()


def _features(*, with_prompts: bool) -> Any:
    tokens = datasets.List(datasets.Value("int32"))
    features = {"input_ids": tokens, "labels": tokens}
    if with_prompts:
        features |= {"prompt_ids": tokens, "answer": datasets.Value("string")}
    return datasets.Features(features)
