"""Eval sets: held-out loss, token accuracy and exact match of generated answers."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch

from sweeper.config.trial_models import TrainSettings, TrialSection
from sweeper.items import Items
from sweeper.training.encode import IGNORED
from sweeper.training.eval_sets import EvalSet, eval_set, weighted_metrics
from sweeper.training.generation import greedy_answers, stop_ids, words_of
from sweeper.training.memory import free_memory, is_out_of_memory
from sweeper.training.model import precision, precision_dtype
from sweeper.training.ranks import TorchRanks
from sweeper.training.sharding import is_sharded
from sweeper.training.templates import end_of_turn
from sweeper.training.tokens import eval_token_settings, load_table
from sweeper.training.trainer import target_log_probs

logger = logging.getLogger(__name__)

_Read = TypeVar("_Read")


class Evaluator:
    """Reads all eval sets of a trial with the model as it is, and leaves training as it was."""

    def __init__(
        self,
        trial: TrialSection,
        settings: TrainSettings,
        tokenizer: Any,
        collate: Any,
        *,
        ranks: TorchRanks | None = None,
    ) -> None:
        self.items: dict[str, Items] = {}  # by eval set, of the last measurement; whole on rank 0
        self._ranks = ranks  # where several train together, each reads its part of every set
        self._metrics = trial.metrics
        self._how = trial.evaluation
        self._batch_size = trial.evaluation.batch_size  # less once that did not fit
        self._settings = settings
        self._tokenizer = tokenizer
        self._collate = collate
        tables = {
            name: load_table(source, tokenizer, eval_token_settings(settings, trial.evaluation))
            for name, source in trial.eval_data.items()
        }
        self._sets = [eval_set(name, table, trial.evaluation) for name, table in tables.items()]
        has_chats = any(table.stats.n_chats for table in tables.values())
        is_asked = any(one.prompts for one in self._sets)
        self._end_of_turn = end_of_turn(tokenizer, has_chats=has_chats) if is_asked else None

    def measure(self, model: Any) -> dict[str, float]:
        """Return every `<set>/<measure>` and every weighted metric.

        The loss is the mean over all target tokens of the set; the random state and the training mode are
        kept. Where several ranks train, all of them call this.
        """
        measures: dict[str, float] = {}
        with undisturbed(model), self._autocast(model):
            for one in self._sets:
                measures |= {
                    f"{one.name}/{name}": value for name, value in self._measure_set(model, one).items()
                }
        return measures | weighted_metrics(self._metrics, measures)

    def _measure_set(self, model: Any, one: EvalSet) -> dict[str, float]:
        log_prob, n_right, n_targets, scored = self._fitting(model, lambda: self._scores(model, one))
        targets = self._summed(n_targets)
        measured = {
            "loss": -self._summed(log_prob) / targets,
            "token_accuracy": self._summed(n_right) / targets,
        }
        scored, missing = self._merged(scored), (math.nan, math.nan)
        columns = {
            name: [scored.get(index, missing)[at] for index in range(len(one.rows))]
            for at, name in enumerate(("loss", "token_accuracy"))
        }
        if one.prompts:
            right = self._fitting(model, lambda: self._exact_matches(model, one))
            n_exact = self._summed(torch.tensor(sum(right.values()), device=model.device))
            measured["exact_match"] = n_exact / len(one.prompts)
            by_place = {
                one.answer_places[index]: float(is_right) for index, is_right in self._merged(right).items()
            }
            columns["exact_match"] = [by_place.get(place, math.nan) for place in one.row_places]
        self.items[one.name] = Items(
            source=one.name,
            ids=tuple(map(str, one.row_places)),
            measures={name: tuple(values) for name, values in columns.items()},
            lower_is_better=("loss",),
        )
        return measured

    def _fitting(self, model: Any, read: Callable[[], _Read]) -> _Read:
        """Return what is read, with half the batch from here on for as long as memory does not suffice.

        Where several ranks train, all of them halve it together. Where they share the model out they cannot: who has
        room waits inside a pass for who has not, and the attempt ends as it would for a pass of the training.
        """
        if self._ranks is not None and is_sharded(model):
            return read()
        while True:
            found = self._unless_out_of_memory(read)
            n_lacking = (
                int(found is None) if self._ranks is None else self._ranks.total([int(found is None)])[0]
            )
            if found is not None and n_lacking == 0:
                return found
            free_memory()  # here, where the error is forgotten: its traceback held what was computed
            self._batch_size //= 2
            logger.warning(
                "An evaluation ran out of memory. Going on with %d rows at a time.", self._batch_size
            )

    def _unless_out_of_memory(self, read: Callable[[], _Read]) -> _Read | None:
        try:
            return read()
        except Exception as error:
            if self._batch_size == 1 or not is_out_of_memory(error):
                raise
        return None

    def _scores(
        self, model: Any, one: EvalSet
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[int, tuple[float, float]]]:
        """Return log-probability, right tokens and targets of this rank's part, and loss and accuracy by row."""
        device = model.device
        log_prob = torch.zeros((), dtype=torch.float64, device=device)
        n_right = torch.zeros((), dtype=torch.int64, device=device)
        n_targets = torch.zeros((), dtype=torch.int64, device=device)
        scored: dict[int, tuple[float, float]] = {}
        for part, counts in self._shared(list(enumerate(zip(one.rows, one.n_targets, strict=True)))):
            batch = self._collate([row for _, (row, _) in part])
            is_target = batch["labels"][:, 1:] != IGNORED
            inputs = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            log_probs, is_top1 = target_log_probs(model, inputs)
            if not counts:
                continue
            n_targets += int(is_target.sum())
            log_prob += log_probs.sum(dtype=torch.float64)
            n_right += is_top1.sum()
            sizes = [size for _, (_, size) in part]
            losses = (-_row_means(log_probs, is_target, sizes)).tolist()
            accuracies = _row_means(is_top1, is_target, sizes).tolist()
            scored |= {
                index: pair
                for (index, _), pair in zip(part, zip(losses, accuracies, strict=True), strict=True)
            }
        return log_prob, n_right, n_targets, scored

    def _exact_matches(self, model: Any, one: EvalSet) -> dict[int, bool]:
        """Return whether each answer is right, by its place among the prompts; of this rank's part."""
        right: dict[int, bool] = {}
        stops = stop_ids(model, self._tokenizer, self._end_of_turn)
        for part, counts in self._shared(list(enumerate(zip(one.prompts, one.answers, strict=True)))):
            texts = self._answer(model, [prompt for _, (prompt, _) in part], stops)
            if counts:
                right |= {
                    index: text.strip() == words_of(self._tokenizer, answer, stops).strip()
                    for text, (index, (_, answer)) in zip(texts, part, strict=True)
                }
        return right

    def _shared(self, items: Sequence[Any]) -> Iterator[tuple[Sequence[Any], bool]]:
        """Yield this rank's batches, and whether they count.

        All ranks get as many: a shared-out model computes only where all do. Who has none left reads one again.
        """
        batches = list(_batches(items, self._batch_size))
        rank, size = (0, 1) if self._ranks is None else (self._ranks.rank, self._ranks.size)
        for first in range(0, len(batches), size):
            index = first + rank
            yield (batches[index], True) if index < len(batches) else (batches[first], False)

    def _summed(self, value: torch.Tensor) -> float:
        return float(value if self._ranks is None else self._ranks.summed(value))

    def _merged(self, found: dict[int, Any]) -> dict[int, Any]:
        """Return on rank 0 what all ranks found, elsewhere what this one did."""
        everyone = None if self._ranks is None else self._ranks.gathered(found)
        return found if everyone is None else {key: value for one in everyone for key, value in one.items()}

    def _answer(self, model: Any, prompts: list[list[int]], stops: list[int]) -> list[str]:
        return greedy_answers(
            model, self._tokenizer, prompts,
            max_new_tokens=self._how.max_new_tokens,
            stops=stops,
            in_step=self._ranks is not None and is_sharded(model),
        )  # fmt: skip

    def _autocast(self, model: Any) -> contextlib.AbstractContextManager[Any]:
        used = precision(self._settings)
        return torch.autocast(
            model.device.type, dtype=precision_dtype(self._settings), enabled=used != "fp32"
        )


def _row_means(values: torch.Tensor, is_target: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Return the mean over each row's targets, on the CPU; NaN for a row without any.

    Args:
        values: One per target, or of the shape of `is_target`.
        is_target: Positions that are predicted; one row holds all where rows are packed.
        counts: Targets of each row, in order.
    """
    flat = values if values.dim() == 1 else values[is_target.to(values.device)]
    flat = flat.detach().to("cpu", torch.float64)
    sizes = torch.tensor(counts)
    rows = torch.repeat_interleave(torch.arange(len(counts)), sizes)
    return torch.zeros(len(counts), dtype=torch.float64).index_add_(0, rows, flat) / sizes


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@contextlib.contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Let the block measure a model without gradients, and leave training mode and random state as they were."""
    was_training = model.training
    devices = [model.device] if model.device.type == "cuda" else []
    model.eval()
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        model.train(was_training)
