"""Eval sets: held-out loss, token accuracy and exact match of generated answers."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from sweeper.config.models import Evaluation, TrainSettings, TrialSection
from sweeper.errors import ConfigError
from sweeper.training.encode import IGNORED
from sweeper.training.model import precision, precision_dtype
from sweeper.training.ranks import TorchRanks
from sweeper.training.sharding import is_sharded
from sweeper.training.templates import ChatRenderer
from sweeper.training.tokens import TokenTable, eval_token_settings, load_table
from sweeper.training.trainer import target_log_probs


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalSet:
    """One eval set, sorted by length so that a batch has little padding; no measure depends on the order."""

    name: str
    rows: list[dict[str, Any]]
    prompts: list[list[int]]  # of the rows that have an answer, shortest first
    answers: list[str]


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
        self._ranks = ranks  # where several train together, each reads its part of every set
        self._metrics = trial.metrics
        self._how = trial.evaluation
        self._settings = settings
        self._tokenizer = tokenizer
        self._collate = collate
        self._sets = [
            _eval_set(
                name,
                load_table(source, tokenizer, eval_token_settings(settings, trial.evaluation)),
                trial.evaluation,
            )
            for name, source in trial.eval_data.items()
        ]
        self._end_of_turn = (
            ChatRenderer(tokenizer, loss_on="answers").end_of_turn
            if tokenizer.chat_template and any(one.prompts for one in self._sets)
            else None
        )

    def measure(self, model: Any) -> dict[str, float]:
        """Return every `<set>/<measure>` and every weighted metric.

        The loss is the mean over all target tokens of the set; the random state and the training mode are
        kept. Where several ranks train, all of them call this.
        """
        measures: dict[str, float] = {}
        with _undisturbed(model), self._autocast(model):
            for one in self._sets:
                measures |= {
                    f"{one.name}/{name}": value for name, value in self._measure_set(model, one).items()
                }
        return measures | weighted_metrics(self._metrics, measures)

    def _measure_set(self, model: Any, one: EvalSet) -> dict[str, float]:
        device = model.device
        log_prob = torch.zeros((), dtype=torch.float64, device=device)
        n_right = torch.zeros((), dtype=torch.int64, device=device)
        n_targets = torch.zeros((), dtype=torch.int64, device=device)
        for rows, counts in self._shared(one.rows):
            batch = self._collate(rows)
            inputs = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            log_probs, is_top1 = target_log_probs(model, inputs)
            if counts:
                n_targets += int((batch["labels"][:, 1:] != IGNORED).sum())
                log_prob += log_probs.sum(dtype=torch.float64)
                n_right += is_top1.sum()
        targets = self._summed(n_targets)
        measured = {
            "loss": -self._summed(log_prob) / targets,
            "token_accuracy": self._summed(n_right) / targets,
        }
        if one.prompts:
            measured["exact_match"] = self._exact_match(model, one)
        return measured

    def _exact_match(self, model: Any, one: EvalSet) -> float:
        n_right = 0
        for rows, counts in self._shared(list(zip(one.prompts, one.answers, strict=True))):
            texts = self._answer(model, [prompt for prompt, _ in rows])
            if counts:
                n_right += sum(
                    text.strip() == answer.strip() for text, (_, answer) in zip(texts, rows, strict=True)
                )
        return self._summed(torch.tensor(n_right, device=model.device)) / len(one.prompts)

    def _shared(self, items: Sequence[Any]) -> Iterator[tuple[Sequence[Any], bool]]:
        """Yield this rank's batches, and whether they count.

        All ranks get as many: a shared-out model computes only where all do. Who has none left reads one again.
        """
        batches = list(_batches(items, self._how.batch_size))
        rank, size = (0, 1) if self._ranks is None else (self._ranks.rank, self._ranks.size)
        for first in range(0, len(batches), size):
            index = first + rank
            yield (batches[index], True) if index < len(batches) else (batches[first], False)

    def _summed(self, value: torch.Tensor) -> float:
        return float(value if self._ranks is None else self._ranks.summed(value))

    def _answer(self, model: Any, prompts: list[list[int]]) -> list[str]:
        """Generate greedily and return the words before the first end token."""
        stops = self._stop_ids(model)
        batch = self._tokenizer.pad(
            {"input_ids": prompts},
            padding=True,
            padding_side="left",
            return_tensors="pt",
            return_attention_mask=True,
        ).to(model.device)
        generated = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=False,
            use_cache=True,
            max_new_tokens=self._how.max_new_tokens,
            pad_token_id=self._tokenizer.pad_token_id,
            eos_token_id=stops,
            synced_gpus=self._ranks is not None and is_sharded(model),
        )[:, batch["input_ids"].shape[1] :].tolist()
        return [self._words(ids, stops) for ids in generated]

    def _words(self, ids: list[int], stops: Sequence[int]) -> str:
        length = next((i for i, token in enumerate(ids) if token in stops), len(ids))
        return str(self._tokenizer.decode(ids[:length], skip_special_tokens=True))

    def _stop_ids(self, model: Any) -> list[int]:
        stops = {self._tokenizer.eos_token_id}
        configured = model.generation_config.eos_token_id
        stops.update(configured if isinstance(configured, list) else [configured])
        if self._end_of_turn is not None:
            stops.add(self._tokenizer.convert_tokens_to_ids(self._end_of_turn))
        return sorted(stop for stop in stops if stop is not None)

    def _autocast(self, model: Any) -> contextlib.AbstractContextManager[Any]:
        used = precision(self._settings)
        return torch.autocast(
            model.device.type, dtype=precision_dtype(self._settings), enabled=used != "fp32"
        )


def weighted_metrics(
    metrics: Mapping[str, Mapping[str, float]], measures: Mapping[str, float]
) -> dict[str, float]:
    """Return each named metric: the mean of its measures, weighted by weights that need not sum to 1.

    Raises:
        ConfigError: If a measure is not there.
    """
    results = {}
    for name, weights in metrics.items():
        missing = [measure for measure in weights if measure not in measures]
        if missing:
            raise ConfigError(
                f"The metric `{name}` needs `{missing[0]}`, which is not measured. Measured are "
                f"{', '.join(measures)}."
            )
        total = sum(weights.values())
        results[name] = sum(weight * measures[measure] for measure, weight in weights.items()) / total
    return results


def _eval_set(name: str, table: TokenTable, how: Evaluation) -> EvalSet:
    count = min(len(table), how.max_rows or len(table))
    rows = sorted((table[i] for i in range(count)), key=lambda row: len(row["input_ids"]))
    pairs = []
    if how.generate:
        columns = table.dataset[:count]
        pairs = [
            (list(prompt), answer)
            for prompt, answer in zip(columns["prompt_ids"], columns["answer"], strict=True)
            if answer is not None
        ]
        pairs.sort(key=lambda pair: len(pair[0]))
    return EvalSet(
        name=name, rows=rows, prompts=[prompt for prompt, _ in pairs], answers=[answer for _, answer in pairs]
    )


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@contextlib.contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    was_training = model.training
    devices = [model.device] if model.device.type == "cuda" else []
    model.eval()
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        model.train(was_training)
