"""The built-in trial: exact batches, exact signals, the same numbers every time."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import training_fixtures
from training_fixtures import (
    Hub,
    RecordingChannel,
    Tiny,
    all_rows,
    chat_rows,
    make_context,
    make_model_dir,
    write_jsonl,
)

from sweeper.channel import TrialStopped
from sweeper.config.names import METRIC_SCHEDULES, SCHEDULER_TYPES
from sweeper.config.trial_models import TrialSection
from sweeper.errors import ConfigError, SweeperError
from sweeper.executors.attempt import run_attempt
from sweeper.records import FailureCause, StepRow
from sweeper.training.data_identity import data_identities

pytestmark = pytest.mark.train
tiny = training_fixtures.tiny
hub = training_fixtures.hub
SPLITS = [(8, 1), (4, 2), (2, 4)]


def train(tiny: Tiny, root: Path, **options: Any) -> list[StepRow]:
    from sweeper.training import finetune

    context = make_context(tiny.model, tiny.train, root, **options)
    finetune.run(context)
    return all_rows(context)


def losses(rows: list[StepRow]) -> list[float | None]:
    return [row.loss for row in rows]


def by_hand(tiny: Tiny, *, n_steps: int, batch: int, rate: float, clip: float) -> list[tuple[float, float]]:
    """Train with bare torch, each step one big padded batch; return losses and gradient norms."""
    import torch
    import transformers

    from sweeper.training.stream import SampleStream

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    rows = [json.loads(line)["messages"] for line in tiny.train.read_text().splitlines()]
    stream = SampleStream(len(rows), seed=0)
    seen = []
    for step in range(n_steps):
        chats = [rows[i] for i in stream.indices(step * batch, (step + 1) * batch)]
        whole = [
            tokenizer(f"<|user|>{u['content']}<|end|><|assistant|>{a['content']}<|end|>")["input_ids"]
            for u, a in chats
        ]
        asked = [tokenizer(f"<|user|>{u['content']}<|end|><|assistant|>")["input_ids"] for u, _ in chats]
        width = max(len(ids) for ids in whole)
        inputs = torch.tensor([ids + [0] * (width - len(ids)) for ids in whole])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in whole])
        log_probs = model(input_ids=inputs, attention_mask=mask).logits.log_softmax(-1)
        terms = [
            -log_probs[row, position - 1, inputs[row, position]]
            for row in range(batch)
            for position in range(len(asked[row]), len(whole[row]))
        ]
        loss = torch.stack(terms).mean()
        loss.backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        seen.append((loss.item(), norm.item()))
    return seen


@pytest.mark.parametrize(
    ("split", "clip"),
    [
        *((split, 1.0) for split in SPLITS),
        (SPLITS[-1], None),
        *(pytest.param(split, None, marks=pytest.mark.slow) for split in SPLITS[:-1]),
    ],
)
def test_every_split_gives_the_losses_and_norms_of_one_big_batch(
    tiny: Tiny,
    tmp_path: Path,
    split: tuple[int, int],
    clip: float | None,
) -> None:
    rows = train(
        tiny, tmp_path, micro_batch_size=split[0], gradient_accumulation_steps=split[1], total_steps=6,
        settings={"max_grad_norm": clip},
    )  # fmt: skip
    expected = by_hand(tiny, n_steps=6, batch=8, rate=1e-2, clip=clip or math.inf)
    assert losses(rows) == pytest.approx([loss for loss, _ in expected], abs=1e-4)
    assert [row.grad_norm for row in rows] == pytest.approx([norm for _, norm in expected], rel=1e-4)


def test_the_fused_head_of_gpus_scores_as_the_plain_logits_do(tiny: Tiny) -> None:
    import torch
    import transformers
    from trl.trainer.utils import add_fused_lm_head

    from sweeper.training.trainer import fused_log_probs, plain_log_probs

    model = transformers.AutoModelForCausalLM.from_pretrained(tiny.model)
    add_fused_lm_head(model, outputs=("log_probs", "is_top1"))
    ids = torch.randint(0, 300, (3, 12), generator=torch.Generator().manual_seed(0))
    labels = ids.masked_fill(torch.arange(12) < 4, -100)
    fused, is_top = fused_log_probs(model, {"input_ids": ids, "labels": labels})
    plain, is_likeliest = plain_log_probs(model, {"input_ids": ids, "labels": labels})
    assert fused[labels[:, 1:] != -100].tolist() == pytest.approx(plain.tolist(), abs=1e-5)
    assert int(is_top.sum()) == int(is_likeliest.sum())


def test_several_rows_in_one_sequence_give_the_same_losses(tiny: Tiny, tmp_path: Path) -> None:
    padded = train(tiny, tmp_path / "padded")
    packed = train(tiny, tmp_path / "packed", settings={"packing": True})
    assert losses(packed) == pytest.approx(losses(padded), abs=1e-4)


def test_gradient_checkpointing_gives_the_same_losses(tiny: Tiny, tmp_path: Path) -> None:
    plain = train(tiny, tmp_path / "plain")
    saving = train(tiny, tmp_path / "saving", settings={"gradient_checkpointing": True})
    assert losses(saving) == pytest.approx(losses(plain), abs=1e-4)


def test_no_step_is_partial_where_an_epoch_ends(tiny: Tiny, tmp_path: Path) -> None:
    rows = train(tiny, tmp_path, micro_batch_size=8, gradient_accumulation_steps=2, total_steps=6)  # 40 rows
    assert [row.samples for row in rows] == [16, 32, 48, 64, 80, 96]


def test_tokens_count_the_targets_of_the_rows_seen(tiny: Tiny, tmp_path: Path) -> None:
    large = train(tiny, tmp_path / "large", micro_batch_size=8, gradient_accumulation_steps=5, total_steps=1)
    small = train(tiny, tmp_path / "small", micro_batch_size=4, gradient_accumulation_steps=2, total_steps=5)
    assert large[-1].tokens == small[-1].tokens > 0


def test_the_rate_of_a_step_is_the_one_it_was_taken_with(tiny: Tiny, tmp_path: Path) -> None:
    settings = {"lr_scheduler_type": "linear", "warmup_frac": 0.25, "learning_rate": 0.008}
    rows = train(tiny, tmp_path, total_steps=8, settings=settings)
    rates = [0.0, 0.004, 0.008, *(0.008 * left / 6 for left in (5, 4, 3, 2, 1))]
    assert [row.learning_rate for row in rows] == pytest.approx(rates)


def test_the_default_rate_is_constant_without_warm_up(tiny: Tiny, tmp_path: Path) -> None:
    assert {row.learning_rate for row in train(tiny, tmp_path)} == {0.01}


SCHEDULE_KWARGS = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 2},
}


@pytest.mark.parametrize("name", [name for name in SCHEDULER_TYPES if name not in METRIC_SCHEDULES])
def test_every_schedule_gives_transformers_rates_over_the_trial_s_full_budget(name: str, tiny: Tiny) -> None:
    import torch
    import transformers

    from sweeper.config.trial_models import TrainSettings
    from sweeper.training.arguments import training_arguments

    kwargs = SCHEDULE_KWARGS.get(name, {})
    settings = TrainSettings.model_validate(
        {"lr_scheduler_type": name, "lr_scheduler_kwargs": kwargs, "warmup_samples": 17}
    )
    arguments = training_arguments(
        settings,
        output_dir=tiny.model,
        micro_batch_size=4,
        gradient_accumulation_steps=2,
        total_steps=10,
        seed=0,
    )
    assert (arguments.warmup_steps, arguments.max_steps) == (3, 10)

    def rates(trainer_s: bool) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        if trainer_s:
            trainer = transformers.Trainer(
                model=torch.nn.Linear(1, 1), args=arguments, optimizers=(optimizer, None)
            )
            schedule = trainer.create_scheduler(num_training_steps=10, optimizer=optimizer)
        else:
            schedule = transformers.get_scheduler(
                name, optimizer, num_warmup_steps=3, num_training_steps=10, scheduler_specific_kwargs=kwargs
            )
        seen = []
        for _ in range(10):
            seen.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        return seen

    assert rates(trainer_s=True) == rates(trainer_s=False)


def test_a_warm_up_in_samples_ends_on_that_sample(tiny: Tiny, tmp_path: Path) -> None:
    settings = {"lr_scheduler_type": "constant_with_warmup", "warmup_samples": 16, "learning_rate": 0.008}
    for micro, accumulation, rates in ((4, 1, [0, 0.002, 0.004, 0.006, 0.008]), (4, 2, [0, 0.004, 0.008])):
        rows = train(
            tiny, tmp_path / str(accumulation), total_steps=len(rates), settings=settings,
            micro_batch_size=micro, gradient_accumulation_steps=accumulation,
        )  # fmt: skip
        assert [row.learning_rate for row in rows] == pytest.approx(rates)


def test_a_schedule_s_arguments_are_passed_on(tiny: Tiny, tmp_path: Path) -> None:
    settings = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.5}}
    rows = train(tiny, tmp_path, total_steps=8, settings=settings)
    assert 0.005 <= (rows[-1].learning_rate or 0) < 0.006


def test_the_same_trial_is_bitwise_the_same_after_another_one(tiny: Tiny, tmp_path: Path) -> None:
    settings = {"method": "lora", "lora_dropout": 0.2}
    first = train(tiny, tmp_path / "first", settings=settings)
    train(tiny, tmp_path / "other", total_steps=1, settings={"seed": 7, "precision": "bf16"})
    assert train(tiny, tmp_path / "second", settings=settings) == first


def test_the_same_trial_is_bitwise_the_same_in_a_fresh_process(tiny: Tiny, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from training_fixtures import all_rows, make_context; from sweeper.training import finetune\n"
        "context = make_context(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))\n"
        "finetune.run(context); print('losses', [row.loss for row in all_rows(context)])\n"
    )
    here = Path(__file__).parent
    python_path = {"PYTHONPATH": f"{here}:{here.parent}", "HOME": str(tmp_path)}
    arguments = [str(tiny.model), str(tiny.train), str(tmp_path / "fresh")]
    output = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=python_path
    ).stdout
    assert f"losses {losses(train(tiny, tmp_path / 'here'))}" in output


def test_another_seed_is_another_order(tiny: Tiny, tmp_path: Path) -> None:
    assert losses(train(tiny, tmp_path / "a")) != losses(train(tiny, tmp_path / "b", settings={"seed": 1}))


def test_a_loss_that_is_nan_stays_nan_and_is_reported_at_once(tiny: Tiny, tmp_path: Path) -> None:
    from sweeper.training import finetune

    channel = RecordingChannel()
    settings = {"learning_rate": 1e30, "max_grad_norm": None}
    context = make_context(
        tiny.model, tiny.train, tmp_path, total_steps=6, settings=settings, channel=channel
    )
    context.report_every_s = 1e9
    finetune.run(context)
    first_bad = next(row.step for row in all_rows(context) if not math.isfinite(row.loss or 0))
    assert first_bad < 6
    assert channel.reports[0].rows[-1].step == first_bad
    assert all(math.isnan(row.loss or 0) for report in channel.reports[1:] for row in report.rows)


@pytest.mark.parametrize("hook", ["get_batch_samples", "_get_grad_norm"])
def test_a_transformers_that_calls_its_hooks_by_other_names_is_refused_at_the_first_step(
    hook: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeper.training.trainer import SweepTrainer

    monkeypatch.delattr(SweepTrainer, hook)  # as if nobody called ours
    channel = RecordingChannel()
    with pytest.raises(
        SweeperError, match=rf"^transformers [\d.]+ does not call `{hook}`, .* Install an earlier"
    ):
        train(tiny, tmp_path, channel=channel)
    assert all_rows(make_context(tiny.model, tiny.train, tmp_path, channel=channel)) == []


def test_a_process_that_would_train_on_several_gpus_is_refused() -> None:
    from sweeper.training.arguments import use_one_gpu

    class Renamed:
        """Arguments that do not listen to what they are told."""

        n_gpu = 2

    with pytest.raises(SweeperError, match=r"would share each batch out over 2 GPUs .*CUDA_VISIBLE_DEVICES"):
        use_one_gpu(Renamed())


def test_windows_close_at_marks(tiny: Tiny, tmp_path: Path) -> None:
    from sweeper.training import finetune

    channel = RecordingChannel()
    context = make_context(
        tiny.model, tiny.train, tmp_path, total_steps=6, marks=(20,), step_marks=(5,), channel=channel
    )
    context.report_every_s = 1e9
    finetune.run(context)
    assert [[row.step for row in report.rows] for report in channel.reports] == [[1, 2, 3], [4, 5]]
    assert [row.step for row in context.take_report().rows] == [6]


def test_a_told_stop_ends_the_trial_at_the_next_step(tiny: Tiny, tmp_path: Path) -> None:
    from sweeper.training import finetune

    channel = RecordingChannel()
    channel.stop.set()
    context = make_context(tiny.model, tiny.train, tmp_path, total_steps=100, channel=channel)
    with pytest.raises(TrialStopped):
        finetune.run(context)
    assert len(all_rows(context)) <= 1


def test_a_stop_that_answers_a_report_ends_the_trial(tiny: Tiny, tmp_path: Path) -> None:
    from sweeper.training import finetune

    channel = RecordingChannel(stop_at_step=3)
    context = make_context(
        tiny.model, tiny.train, tmp_path, total_steps=100, step_marks=(3,), channel=channel
    )
    with pytest.raises(TrialStopped) as stopped:
        finetune.run(context)
    assert [row.step for row in all_rows(context)] == [1, 2, 3]
    assert stopped.value.__context__ is None  # nothing keeps the trial's tensors


def test_lora_trains_the_adapters_alone(tiny: Tiny, tmp_path: Path) -> None:
    import safetensors.torch

    from sweeper.training import finetune

    context = make_context(
        tiny.model,
        tiny.train,
        tmp_path,
        total_steps=3,
        settings={"method": "lora", "lora_rank": 4},
        checkpoint_marks=(24,),
    )
    finetune.run(context)
    loaded = context.checkpoint.load()
    assert loaded is not None
    weights = safetensors.torch.load_file(loaded.path / "weights.safetensors")
    assert weights
    assert all(".lora_A." in name or ".lora_B." in name for name in weights)
    rows = all_rows(context)
    assert (rows[-1].loss or 0) < (rows[0].loss or 0)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_final_model_can_be_loaded_where_it_is_kept(tiny: Tiny, tmp_path: Path, method: str) -> None:
    import transformers

    train(tiny, tmp_path, settings={"method": method}, trial={"checkpoint": {"save_model": True}})
    transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.config.hidden_size == 32
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_kept_model_ends_its_answers_where_they_were_scored_to_end(
    tiny: Tiny, tmp_path: Path, method: str
) -> None:
    from sweeper.benchmarks.loaded import load_kept

    train(tiny, tmp_path, settings={"method": method}, trial={"checkpoint": {"save_model": True}})
    kept = load_kept(tmp_path / "model", trust_remote_code=False)
    ends = kept.tokenizer.convert_tokens_to_ids(["<|eos|>", "<|end|>"])  # of a text, and of a turn
    assert kept.model.generation_config.eos_token_id == sorted(ends)


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_a_kept_model_caches_as_its_base_does(tiny: Tiny, tmp_path: Path, is_checkpointed: bool) -> None:
    settings = {"gradient_checkpointing": is_checkpointed}
    train(tiny, tmp_path, settings=settings, trial={"checkpoint": {"save_model": True}})

    base, kept = (
        json.loads((place / "config.json").read_text()) for place in (tiny.model, tmp_path / "model")
    )
    assert kept["use_cache"] == base["use_cache"]


def test_a_model_is_not_kept_unless_asked(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny, tmp_path)
    assert not (tmp_path / "model").exists()


def test_several_sources_are_stacked(tiny: Tiny, tmp_path: Path) -> None:
    half = [json.loads(line) for line in tiny.train.read_text().splitlines()]
    parts = [write_jsonl(tmp_path / "a.jsonl", half[:25]), write_jsonl(tmp_path / "b.jsonl", half[25:])]
    apart = Tiny(model=tiny.model, train=parts, dev=tiny.dev)  # type: ignore[arg-type]
    assert losses(train(apart, tmp_path / "apart")) == losses(train(tiny, tmp_path / "together"))


def test_a_trial_is_not_trained_on_other_data_than_its_sweep_began_with(tiny: Tiny, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", chat_rows(8))
    context = make_context(tiny.model, train, tmp_path / "trial")
    began = data_identities(TrialSection.model_validate(context.spec.trial))
    write_jsonl(train, chat_rows(8, seed=1))
    assert isinstance(context.channel, RecordingChannel)
    outcome = run_attempt(dataclasses.replace(context.spec, data_identities=began), context.channel)
    assert outcome.cause is FailureCause.DATA_CHANGED
    assert "`trial.train_data[0]`" in str(outcome.error)


def test_a_trial_reads_the_commit_of_the_hub_that_its_sweep_began_with(
    tiny: Tiny, tmp_path: Path, hub: Hub
) -> None:
    from sweeper.training import finetune

    hub.rows = {"a" * 40: chat_rows(8), "b" * 40: chat_rows(8, seed=1)}
    noted = dict.fromkeys(("train_data[0]", "eval_data.dev"), f"commit {'a' * 40}")
    context = make_context(
        tiny.model, Path("org/rows"), tmp_path / "hub", eval_data={"dev": Path("org/rows")}, total_steps=1,
        trial={"evaluation": {"generate": False}}, data_identities=noted,
    )  # fmt: skip
    finetune.run(context)
    local = make_context(
        tiny.model, write_jsonl(tmp_path / "rows.jsonl", chat_rows(8)), tmp_path / "local", total_steps=1
    )
    finetune.run(local)
    assert [row.loss for row in all_rows(context)] == [row.loss for row in all_rows(local)]
    assert set(hub.asked) == {"a" * 40}


def test_a_study_of_the_loss_gets_the_mean_of_the_last_steps(tiny: Tiny, tmp_path: Path) -> None:
    from sweeper.training import finetune

    context = make_context(tiny.model, tiny.train, tmp_path, total_steps=10, metric="loss")
    metrics = finetune.run(context)
    last = [row.loss or 0.0 for row in all_rows(context)[-8:]]
    assert metrics == {"loss": pytest.approx(sum(last) / 8)}


def test_half_precision_without_a_gpu_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="`precision: fp16` needs a GPU"):
        train(tiny, tmp_path, settings={"precision": "fp16"})


def test_dropout_does_not_depend_on_what_ran_before(tmp_path: Path, tiny: Tiny) -> None:
    model = make_model_dir(tmp_path / "model", dropout=0.3)
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(16))
    dropping = Tiny(model=model, train=data, dev=data)
    first = train(dropping, tmp_path / "first")
    train(tiny, tmp_path / "between")
    assert train(dropping, tmp_path / "second") == first


@pytest.mark.parametrize(
    ("precision", "name"),
    [("bf16", "adamw_torch_fused"), ("fp32", "adamw_torch_fused"), ("fp16", "adamw_torch")],
)
def test_on_a_gpu_adam_is_fused_but_where_steps_may_be_left_out(
    monkeypatch: pytest.MonkeyPatch, precision: str, name: str
) -> None:
    import torch

    from sweeper.training.arguments import _optimizer_name

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert _optimizer_name("adamw_torch", precision) == name
    assert _optimizer_name("sgd", precision) == "sgd"


@pytest.mark.parametrize("is_fused", [False, True])
def test_a_step_that_is_left_out_is_seen_of_an_optimiser_that_is_not_fused(is_fused: bool) -> None:
    """What `_optimizer_name` goes by; once both are seen, fp16 may have the fused one."""
    import accelerate
    import torch
    from accelerate.optimizer import AcceleratedOptimizer

    accelerate.Accelerator(cpu=True)
    parameter = torch.nn.Parameter(torch.ones(2))
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))  # makes the scale
    optimizer = AcceleratedOptimizer(torch.optim.AdamW([parameter], fused=is_fused), scaler=scaler)
    parameter.grad = torch.tensor([1.0, math.inf])
    optimizer.step()
    assert parameter.tolist() == [1.0, 1.0]
    assert optimizer.step_was_skipped is not is_fused


@pytest.mark.gpu
def test_in_fp16_a_gradient_that_overflowed_is_reported_as_no_value(
    monkeypatch: pytest.MonkeyPatch, tiny: Tiny, tmp_path: Path
) -> None:
    import torch

    really = torch.amp.GradScaler.__init__
    monkeypatch.setattr(
        torch.amp.GradScaler,
        "__init__",
        lambda self, *args, **options: really(self, *args, **(options | {"init_scale": 2.0**40})),
    )
    rows = train(tiny, tmp_path, total_steps=4, settings={"precision": "fp16"})
    assert [row.grad_norm for row in rows] == [None] * 4


class OneRank:
    """A gang of one, without processes."""

    rank, size = 0, 1

    def total(self, values: list[int]) -> list[int]:
        return values

    def of_first(self, value: Any) -> Any:
        return value


@pytest.mark.parametrize(("sharding", "device"), [(None, "gpu 0"), ("fsdp2", None)])
def test_workers_that_each_hold_the_whole_model_read_it_straight_to_their_gpus(
    monkeypatch: pytest.MonkeyPatch, tiny: Tiny, tmp_path: Path, sharding: str | None, device: str | None
) -> None:
    from sweeper.training import finetune

    asked = []

    def load(*_: Any, device: Any) -> None:
        asked.append(device)
        raise RuntimeError("as far as this goes")

    monkeypatch.setattr(finetune, "single_device", lambda: "gpu 0")
    monkeypatch.setattr(finetune, "load_model", load)
    context = make_context(tiny.model, tiny.train, tmp_path, sharding=sharding)
    outcome = run_attempt(context.spec, RecordingChannel(), ranks=OneRank())  # type: ignore[arg-type]
    assert asked == [device], outcome.traceback
