"""Trials that mix data sets or train in phases: the same as TRL by hand, and the same after a resume."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import training_fixtures
from training_fixtures import RecordingChannel, Tiny, all_rows, chat_rows, make_context, write_jsonl

from sweeper.context import TrialContext
from sweeper.phases import PlannedPhase
from sweeper.plan import plan_point

pytestmark = [
    pytest.mark.train,
    # TRL 1.16 will drop the argument in its version 2; then `bare_trl` becomes a subclass.
    pytest.mark.filterwarnings("ignore:`compute_loss_func` is deprecated:FutureWarning"),
]
tiny = training_fixtures.tiny

# Eager attention: with TRL's padding mask, torch's quicker kernels add the same numbers up in another order.
SETTINGS = {"attn_implementation": "eager", "micro_batch_size": 4, "max_length": 64}
PHASES: list[dict[str, Any]] = [
    {"name": "first", "data": "a", "samples": 48},
    {"name": "second", "data": ["b", "c"], "samples": 64, "learning_rate": 3e-3, "replay_frac": 0.25,
     "effective_batch_size": 16, "lr_scheduler_type": "linear", "warmup_steps": 1},
]  # fmt: skip
N_STEPS = 6 + 4


@pytest.fixture(scope="module")
def sets(tiny: Tiny) -> dict[str, Path]:
    """Three data sets that share no row."""
    sizes = {"a": 30, "b": 20, "c": 9}
    return {
        name: write_jsonl(tiny.train.with_name(f"{name}.jsonl"), chat_rows(n, seed=10 + index))
        for index, (name, n) in enumerate(sizes.items())
    }


def context(
    tiny: Tiny,
    sets: dict[str, Path],
    root: Path,
    *,
    settings: dict[str, Any] | None = None,
    phases: list[dict[str, Any]] | None = None,
    samples: int = 112,
    **options: Any,
) -> TrialContext:
    """Return the context of a trial as the plan resolves it."""
    from sweeper.config import config_from_dict
    from sweeper.plan import trial_spec

    config = config_from_dict(
        {
            "study": "phases", "metric": "dev/loss", "direction": "minimize", "search_space": {},
            "trial": {
                "model": str(tiny.model), "data_sets": {name: str(path) for name, path in sets.items()},
                "eval_data": {"dev": str(tiny.dev)}, "budget": {"samples": samples},
                "evaluation": {"at": options.pop("evaluated_at", "end"), "generate": False},
                "checkpoint": {"save_model": True},
                "settings": {
                    "effective_batch_size": 8, "learning_rate": 1e-2, **SETTINGS,
                    **({"data_strategy": "phased"} if phases else {}), **(settings or {}),
                },
                **({"phases": phases} if phases else {}),
            },
        }
    )  # fmt: skip
    spec = trial_spec(config, plan_point(config, {}), number=0, attempt=1, trial_dir=str(root), threads=1)
    made = make_context(tiny.model, tiny.train, root, channel=options.pop("channel", None))
    made.spec = dataclasses.replace(spec, **options)
    return made


def weights_of(root: Path) -> dict[str, Any]:
    import safetensors.torch

    return dict(safetensors.torch.load_file(root / "model" / "model.safetensors"))


def rows_in_order(tiny: Tiny, sets: dict[str, Path], run: TrialContext) -> list[dict[str, list[int]]]:
    """Return the tokens of every sample of a trial, in its order, as a data set of TRL's."""
    from sweeper.config.trial_models import TrainSettings, TrialSection
    from sweeper.training.legs import sample_order
    from sweeper.training.tokenizer import load_tokenizer
    from sweeper.training.tokens import load_train_rows

    trial, settings = (
        TrialSection.model_validate(run.spec.trial),
        TrainSettings.model_validate(run.spec.settings),
    )
    table = load_train_rows(trial, settings, load_tokenizer(trial))
    order = sample_order(
        trial, sizes=table.sizes, weights=settings.data_weights, phases=run.spec.phases,
        samples=run.spec.budget_samples, seed=run.seed,
    )  # fmt: skip
    indices = order.indices(0, run.spec.budget_samples)
    return [{name: values.tolist() for name, values in table[index].items()} for index in indices]


def mean_over_targets(outputs: Any, labels: Any, num_items_in_batch: Any) -> Any:
    """Return the mean loss of a step's target tokens: what a trial's loss is, written with plain logits."""
    import torch

    is_target = labels[:, 1:] != -100
    logits = outputs.logits[:, :-1][is_target].float()
    losses = torch.nn.functional.cross_entropy(logits, labels[:, 1:][is_target], reduction="none")
    return losses.sum() / num_items_in_batch


def bare_trl(
    tiny: Tiny,
    model: Any,
    rows: Sequence[dict[str, list[int]]],
    root: Path,
    *,
    batch: int,
    rate: float,
    schedule: str = "constant",
    warmup: int = 0,
    moments: Any = None,
) -> Any:
    """Train with TRL alone, on rows in the given order, and return its trainer.

    The loss is given to it, since its own sums the logits of the target tokens alone, which rounds otherwise.
    """
    import datasets
    import transformers
    import trl
    from transformers.trainer_callback import PrinterCallback
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from sweeper.training.arguments import CHECKPOINTING

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.model)
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(
            output_dir=str(root), per_device_train_batch_size=4, gradient_accumulation_steps=batch // 4,
            max_steps=len(rows) // batch, learning_rate=rate, lr_scheduler_type=schedule, warmup_steps=warmup,
            optim="adamw_torch", adam_beta2=0.95, weight_decay=0.0, max_grad_norm=1.0, seed=0, use_cpu=True, bf16=False,
            **{CHECKPOINTING: False}, max_length=None, dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="sequential", save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True, dataloader_pin_memory=False,
        ),
        train_dataset=datasets.Dataset.from_list(list(rows)),
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id),
        compute_loss_func=mean_over_targets,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    if moments is not None:
        optimizer = trainer.create_optimizer()
        own = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": own})
    trainer.train()
    return trainer


def fresh_model(tiny: Tiny) -> Any:
    import torch
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(
        tiny.model, attn_implementation="eager", dtype=torch.float32
    )


def assert_same_weights(root: Path, model: Any) -> None:
    import torch

    ours = weights_of(root)
    theirs = model.state_dict()
    assert ours
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("kept", ["fresh", "keep"])
def test_a_phased_trial_is_bitwise_its_phases_trained_by_hand_with_trl(
    tiny: Tiny, sets: dict[str, Path], tmp_path: Path, kept: str
) -> None:
    from sweeper.training import finetune

    run = context(tiny, sets, tmp_path / "ours", phases=PHASES, settings={"phase_optimizer_state": kept})
    finetune.run(run)
    rows = rows_in_order(tiny, sets, run)
    first = bare_trl(tiny, fresh_model(tiny), rows[:48], tmp_path / "1", batch=8, rate=1e-2)
    moments = first.optimizer.state_dict()["state"] if kept == "keep" else None
    second = bare_trl(
        tiny, first.model, rows[48:], tmp_path / "2", batch=16, rate=3e-3, schedule="linear", warmup=1,
        moments=moments,
    )  # fmt: skip

    assert_same_weights(tmp_path / "ours", second.model)
    steps = all_rows(run)
    assert [row.samples for row in steps] == [8, 16, 24, 32, 40, 48, 64, 80, 96, 112]
    assert [row.learning_rate for row in steps[6:]] == pytest.approx([0.0, 3e-3, 2e-3, 1e-3])


def test_a_stacked_trial_of_equal_weights_is_bitwise_trl_fed_the_same_order(
    tiny: Tiny, sets: dict[str, Path], tmp_path: Path
) -> None:
    from sweeper.training import finetune

    run = context(
        tiny, sets, tmp_path / "ours", settings={"data_weights": {"a": 1, "b": 1, "c": 1}}, samples=96
    )
    finetune.run(run)
    rows = rows_in_order(tiny, sets, run)
    trainer = bare_trl(tiny, fresh_model(tiny), rows, tmp_path / "trl", batch=8, rate=1e-2)
    assert_same_weights(tmp_path / "ours", trainer.model)


@pytest.mark.parametrize("size", [4, 16])
def test_a_mixture_is_the_same_rows_in_the_same_order_at_every_batch_size(
    tiny: Tiny, sets: dict[str, Path], tmp_path: Path, size: int
) -> None:
    weights = {"data_weights": {"a": 1, "b": 2, "c": 1}}
    one = context(tiny, sets, tmp_path / "8", settings=weights)
    other = context(tiny, sets, tmp_path / "other", settings={**weights, "effective_batch_size": size})
    assert rows_in_order(tiny, sets, one) == rows_in_order(tiny, sets, other)


# In the first phase, at its end, in the second phase; the last is also where the best weights were kept before.
@pytest.mark.parametrize(
    ("mark", "options"),
    [
        pytest.param(24, {}, marks=pytest.mark.slow),
        pytest.param(48, {"phase_optimizer_state": "keep"}, marks=pytest.mark.slow),
        (80, {"phase_optimizer_state": "keep"}),
        (24, {"phase_start": "best", "phase_optimizer_state": "keep"}),
        pytest.param(48, {"phase_start": "best"}, marks=pytest.mark.slow),
        pytest.param(
            80, {"phase_start": "best", "method": "lora", "lora_dropout": 0.2}, marks=pytest.mark.slow
        ),
    ],
)
def test_a_phased_trial_that_was_killed_goes_on_bitwise(
    tiny: Tiny, sets: dict[str, Path], tmp_path: Path, mark: int, options: dict[str, Any]
) -> None:
    from sweeper.training import finetune

    given: dict[str, Any] = {"phases": PHASES, "settings": options, "evaluated_at": [16, 32, 64]}
    whole = context(tiny, sets, tmp_path / "whole", **given)
    expected = finetune.run(whole)
    rows = all_rows(whole)
    assert len(rows) == N_STEPS
    at = next(row.step for row in rows if row.samples >= mark)
    killed = context(
        tiny, sets, tmp_path / "cut", channel=RecordingChannel(raise_at_step=at + 1), checkpoint_marks=(mark,),
        step_marks=(at + 1,), **given,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="killed"):
        finetune.run(killed)
    resumed = context(tiny, sets, tmp_path / "cut", **given)
    got = finetune.run(resumed)

    assert [saved.samples for saved in resumed.checkpoint.saved()] == [rows[at - 1].samples]
    assert all_rows(resumed) == rows[at:]
    assert got == expected


def test_a_phase_may_start_from_the_best_weights_of_the_one_before(
    tiny: Tiny, sets: dict[str, Path], tmp_path: Path
) -> None:
    from sweeper.training import finetune

    # The highest loss is taken as the best, which is that of the first evaluation: later ones are lower.
    phases = [PHASES[0], {**PHASES[1], "learning_rate": 1e-9}]
    given: dict[str, Any] = {"phases": phases, "evaluated_at": [8, 24], "direction": "maximize"}
    best = context(tiny, sets, tmp_path / "best", settings={"phase_start": "best"}, **given)
    last = context(tiny, sets, tmp_path / "last", **given)
    ends = finetune.run(best)["dev/loss"], finetune.run(last)["dev/loss"]
    seen = [report.metrics["dev/loss"] for report in best.channel.reports if report.metrics]  # type: ignore[attr-defined]
    assert len(seen) == 3  # at 8, at 24, and at the phase's end, which has to be known for the choice
    assert seen == sorted(seen, reverse=True)
    assert ends == pytest.approx((seen[0], seen[-1]), abs=1e-5)


def test_a_smaller_micro_batch_that_fits_is_used_in_every_phase() -> None:
    from sweeper.batch import BatchPlan
    from sweeper.trial_spec import TrialSpec

    phase = PlannedPhase(
        name="one", data=("a",), steps=1, replay_frac=0.0, start="last", optimizer_state="fresh", settings={},
        batch=BatchPlan(micro_batch_size=8, gradient_accumulation_steps=2, data_parallel_size=1),
    )  # fmt: skip
    spec = TrialSpec(
        number=0, attempt=1, study="s", params={}, settings={}, trial={}, seed=0, budget_samples=16, total_steps=1,
        micro_batch_size=8, gradient_accumulation_steps=1, marks=(), evaluation_marks=(), checkpoint_marks=(),
        phases=(phase,), micro_batch_limits={"gpu": 2},
    )  # fmt: skip
    (fitted,) = spec.fitted("gpu").phases
    assert (fitted.batch.micro_batch_size, fitted.batch.gradient_accumulation_steps) == (2, 8)
    assert fitted.samples == phase.samples
