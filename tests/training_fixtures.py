"""A tiny random Llama with a tokenizer, data, and a context to train it in. Importing this loads no torch."""

import dataclasses
import random
import threading
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sweep_files import write_jsonl
from sweeps import merged

from sweeper.channel import Channel
from sweeper.checkpoint import DirectoryCheckpoints
from sweeper.context import TrialContext, TrialStopped
from sweeper.records import Report, StepRow
from sweeper.trial_spec import TrialSpec

SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = ("red", "green", "blue", "one", "two", "three", "sun", "moon", "star", "rain")


def make_tokenizer(
    *, special_tokens: Sequence[str] = SPECIAL_TOKENS, template: str | None = CHAT_TEMPLATE
) -> Any:
    """Return a byte-level BPE tokenizer; the first three special tokens are pad, bos and eos."""
    import tokenizers
    import transformers

    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(special_tokens),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([" ".join(WORDS)] * 50 + ["It is. What is the"] * 50, trainer)
    pad, bos, eos = special_tokens[:3]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=pad, bos_token=bos, eos_token=eos, chat_template=template
    )


def make_model_dir(path: Path, *, seed: int = 0, dropout: float = 0.0) -> Path:
    """Write a random 2-layer Llama of width 32 with its tokenizer."""
    import torch
    import transformers

    tokenizer = make_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        attention_dropout=dropout,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def chat_rows(n_rows: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return chats that repeat some words; answers are 2 to 9 words long. Two seeds have no row in common."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n_rows):
        words = f"{seed} " + " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 8)))
        rows.append(
            {"messages": [{"role": "user", "content": words}, {"role": "assistant", "content": words}]}
        )
    return rows


class CachedRows(list[dict[str, Any]]):
    """Rows as the `datasets` library gives them, from the file of its cache that a commit has."""

    def __init__(self, rows: Sequence[dict[str, Any]], commit: str) -> None:
        super().__init__(rows)
        self.cache_files = [{"filename": f"/cache/org___rows/default/0.0.0/{commit}/rows-train.arrow"}]


class Hub:
    """Stands in for the hub, which has one data set of one split; as installed by the fixture `hub`."""

    def __init__(self) -> None:
        self.rows: dict[str, Sequence[dict[str, Any]]] = {}  # by commit, the newest last
        self.is_reached = True
        self.asked: list[str | None] = []  # revisions that rows were loaded at

    def dataset_info(self, path: str, *, revision: str | None = None, **_: Any) -> Any:
        if not self.is_reached:
            raise ConnectionError("the hub cannot be reached")
        return types.SimpleNamespace(sha=revision or list(self.rows)[-1])

    def load_dataset(self, path: str, name: str | None, *, revision: str | None) -> dict[str, CachedRows]:
        """Load rows; those of the newest commit where the hub is not reached, as datasets 5.2 does."""
        self.asked.append(revision)
        commit = revision if revision and self.is_reached else list(self.rows)[-1]
        return {"train": CachedRows(self.rows[commit], commit)}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub without data yet."""
    import datasets
    import huggingface_hub

    stand_in = Hub()
    monkeypatch.setattr(huggingface_hub, "dataset_info", stand_in.dataset_info)
    monkeypatch.setattr(datasets, "load_dataset", stand_in.load_dataset)
    return stand_in


@dataclasses.dataclass(frozen=True)
class Tiny:
    """A model directory and data to train it on."""

    model: Path
    train: Path
    dev: Path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """The tiny model, 40 train and 12 dev chats, and a cache of tokenised data of the module's own."""
    root = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEPER_CACHE", str(root / "cache"))
        yield Tiny(
            model=make_model_dir(root / "model"),
            train=write_jsonl(root / "train.jsonl", chat_rows(40)),
            dev=write_jsonl(root / "dev.jsonl", chat_rows(12, seed=1)),
        )


def sweep_of(tiny: Tiny, **changes: Any) -> dict[str, Any]:
    """Return a sweep of two rates over the tiny model, with changes laid over it; a budget has to be among them."""
    base = {
        "study": "tiny",
        "metric": "dev/loss",
        "direction": "minimize",
        "trial": {
            "model": str(tiny.model),
            "train_data": str(tiny.train),
            "eval_data": {"dev": str(tiny.dev)},
            "evaluation": {"at": "end", "generate": False},
        },
        "search_space": {"learning_rate": {"grid": [1e-3, 1e-2]}},
        "pruner": "nop",
    }
    return merged(base, changes)


@dataclasses.dataclass
class RecordingChannel:
    """Keeps every report; says stop or pause once that step was reported, or stop when told."""

    stop_at_step: int | None = None
    raise_at_step: int | None = None
    pause_at_step: int | None = None
    reports: list[Report] = dataclasses.field(default_factory=list)
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)

    def send(self, report: Report, *, wait: bool) -> None:
        self.reports.append(report)
        last = report.rows[-1].step if report.rows else 0
        if self.raise_at_step is not None and last >= self.raise_at_step:
            raise RuntimeError("killed")
        if self.stop_at_step is not None and last >= self.stop_at_step:
            raise TrialStopped

    def should_stop(self) -> bool:
        return self.stop.is_set()

    def should_pause(self) -> bool:
        last = max((row.step for report in self.reports for row in report.rows), default=0)
        return self.pause_at_step is not None and last >= self.pause_at_step


def make_context(
    model: Path,
    train: Path | list[Path],
    root: Path,
    *,
    eval_data: dict[str, Path] | None = None,
    settings: dict[str, Any] | None = None,
    trial: dict[str, Any] | None = None,
    micro_batch_size: int = 4,
    gradient_accumulation_steps: int = 2,
    total_steps: int = 4,
    channel: Channel | None = None,
    **spec: Any,
) -> TrialContext:
    """Return the context of one attempt; its checkpoints lie under `root`."""
    from sweeper.config.trial_models import TrainSettings, TrialSection

    batch = micro_batch_size * gradient_accumulation_steps * spec.get("data_parallel_size", 1)
    sources = [str(path) for path in train] if isinstance(train, list) else str(train)
    section = TrialSection.model_validate(
        {
            "model": str(model),
            "train_data": sources,
            "eval_data": {name: str(path) for name, path in (eval_data or {}).items()},
            **(trial or {}),
        }
    )
    base = {"learning_rate": 1e-2, "effective_batch_size": batch, "micro_batch_size": micro_batch_size}
    complete = TrainSettings.model_validate(base | (settings or {})).model_dump()
    root.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "number": 0,
        "attempt": 1,
        "study": "test",
        "params": {},
        "settings": complete,
        "trial": section.model_dump(),
        "seed": complete["seed"],
        "budget_samples": total_steps * batch,
        "total_steps": total_steps,
        "micro_batch_size": micro_batch_size,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "marks": (),
        "evaluation_marks": (),
        "checkpoint_marks": (),
        "trial_dir": str(root),
    }
    return TrialContext(
        spec=TrialSpec(**(values | spec)),
        channel=channel or RecordingChannel(),
        checkpoint=DirectoryCheckpoints(root / "checkpoints"),
    )


def all_rows(context: TrialContext) -> list[StepRow]:
    """Return every step that was reported, sent or not."""
    assert isinstance(context.channel, RecordingChannel)
    sent = [row for report in context.channel.reports for row in report.rows]
    return [*sent, *context.take_report().rows]
