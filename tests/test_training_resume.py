"""A trial that was killed goes on as if it had not been."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import training_fixtures
from training_fixtures import (
    RecordingChannel,
    Tiny,
    all_rows,
    chat_rows,
    make_context,
    make_model_dir,
    write_jsonl,
)

from sweeper.channel import TrialStopped
from sweeper.config import config_from_dict
from sweeper.errors import SweeperError
from sweeper.preflight.disk import disk_need

pytestmark = pytest.mark.train
tiny = training_fixtures.tiny
SETTINGS = [
    {"lr_scheduler_type": "cosine", "warmup_steps": 2},
    {"method": "lora", "lora_dropout": 0.3, "weight_decay": 0.1},
    {"optimizer": "sgd", "max_grad_norm": None},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_resumed_curve_is_bitwise_the_uninterrupted_one(
    tmp_path: Path, tiny: Tiny, settings: dict[str, Any]
) -> None:
    from sweeper.training import finetune

    model = make_model_dir(tmp_path / "model", dropout=0.1)
    options: dict[str, Any] = {"settings": settings, "total_steps": 8, "eval_data": {"dev": tiny.dev}}

    whole = make_context(model, tiny.train, tmp_path / "whole", **options)
    expected = finetune.run(whole)

    marks = {
        "checkpoint_marks": (36,),
        "step_marks": (6,),
    }  # the first step at or past 36 samples is the fifth
    killed = make_context(
        model, tiny.train, tmp_path / "cut", channel=RecordingChannel(raise_at_step=6), **options, **marks
    )
    with pytest.raises(RuntimeError, match="killed"):
        finetune.run(killed)
    resumed = make_context(model, tiny.train, tmp_path / "cut", **options, **marks)
    got = finetune.run(resumed)

    assert all_rows(resumed) == all_rows(whole)[5:]
    assert got == expected


def test_a_trial_that_saved_after_its_last_step_ends_without_another_one(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    # Inside the last step, as `every_samples` may put it; with a metric that is made of the last losses.
    options: dict[str, Any] = {
        "total_steps": 8, "eval_data": {"dev": tiny.dev}, "checkpoint_marks": (60,), "metric": "loss",
        "direction": "minimize",
    }  # fmt: skip
    first = make_context(tiny.model, tiny.train, tmp_path, **options)
    expected = finetune.run(first)
    assert len(all_rows(first)) == 8

    again = make_context(tiny.model, tiny.train, tmp_path, **options)

    assert finetune.run(again) == expected
    assert all_rows(again) == []


def test_the_loss_of_a_resumed_trial_is_the_mean_of_as_many_steps(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    options: dict[str, Any] = {"total_steps": 10, "metric": "loss", "direction": "minimize"}
    expected = finetune.run(make_context(tiny.model, tiny.train, tmp_path / "whole", **options))
    options |= {"checkpoint_marks": (56,), "step_marks": (8,)}
    killed = make_context(
        tiny.model, tiny.train, tmp_path / "cut", channel=RecordingChannel(raise_at_step=8), **options
    )
    with pytest.raises(RuntimeError, match="killed"):
        finetune.run(killed)

    resumed = make_context(tiny.model, tiny.train, tmp_path / "cut", **options)

    assert finetune.run(resumed) == expected
    assert [row.step for row in all_rows(resumed)] == [8, 9, 10]


def test_a_paused_trial_saves_where_it_is_and_goes_on_bitwise(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    whole = make_context(tiny.model, tiny.train, tmp_path / "whole", total_steps=8)
    expected = finetune.run(whole)
    paused = make_context(
        tiny.model,
        tiny.train,
        tmp_path / "cut",
        channel=RecordingChannel(pause_at_step=3),
        total_steps=8,
        step_marks=(3,),
    )
    with pytest.raises(TrialStopped):
        finetune.run(paused)
    assert [saved.step for saved in paused.checkpoint.saved()] == [4]  # the next step's end
    resumed = make_context(tiny.model, tiny.train, tmp_path / "cut", total_steps=8)

    assert finetune.run(resumed) == expected
    assert [*all_rows(paused), *all_rows(resumed)] == all_rows(whole)


@pytest.mark.parametrize("settings", [{}, {"method": "lora", "lora_rank": 4}, {"optimizer": "sgd"}])
def test_a_checkpoint_has_the_size_that_was_planned(
    tmp_path: Path, tiny: Tiny, settings: dict[str, Any]
) -> None:
    from sweeper.training import finetune

    context = make_context(tiny.model, tiny.train, tmp_path, settings=settings, checkpoint_marks=(16,))
    finetune.run(context)
    found = context.checkpoint.saved()[0].n_bytes
    config = config_from_dict(
        {
            "study": "size", "metric": "loss", "direction": "minimize", "search_space": {},
            "trial": {
                "model": str(tiny.model), "train_data": str(tiny.train), "budget": {"samples": 64},
                "settings": settings,
            },
        }
    )  # fmt: skip
    planned = disk_need(config, slots=1, directory=tmp_path)
    # Random states and names come to some 30 kB, which is nothing beside a model that is worth a sweep.
    assert planned.checkpoint_bytes <= found <= planned.checkpoint_bytes + 60_000


def test_a_resumed_trial_may_be_cut_into_other_micro_batches(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    whole = make_context(tiny.model, tiny.train, tmp_path / "whole", total_steps=6)
    finetune.run(whole)
    cut = {"total_steps": 6, "checkpoint_marks": (16,)}
    killed = make_context(
        tiny.model,
        tiny.train,
        tmp_path / "cut",
        channel=RecordingChannel(raise_at_step=3),
        step_marks=(3,),
        **cut,
    )
    with pytest.raises(RuntimeError, match="killed"):
        finetune.run(killed)
    resumed = make_context(
        tiny.model, tiny.train, tmp_path / "cut", micro_batch_size=2, gradient_accumulation_steps=4, **cut
    )
    finetune.run(resumed)
    rows = all_rows(resumed)
    assert [row.samples for row in rows] == [24, 32, 40, 48]
    expected = all_rows(whole)[2:]
    assert [row.loss for row in rows] == pytest.approx([row.loss for row in expected], abs=1e-4)
    assert [row.tokens for row in rows] == [row.tokens for row in expected]


def test_saving_checkpoints_does_not_change_the_curve(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    plain = make_context(tiny.model, tiny.train, tmp_path / "plain")
    saving = make_context(tiny.model, tiny.train, tmp_path / "saving", checkpoint_marks=(8, 16, 24))
    finetune.run(plain)
    finetune.run(saving)
    assert all_rows(saving) == all_rows(plain)


def test_a_checkpoint_is_reported_by_name_with_its_step(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    channel = RecordingChannel()
    context = make_context(tiny.model, tiny.train, tmp_path, checkpoint_marks=(16,), channel=channel)
    finetune.run(context)
    saved = next(report for report in channel.reports if report.checkpoint)
    assert (saved.checkpoint, saved.rows[-1].step) == ("step-00000002", 2)
    assert [path.name for path in tmp_path.glob(".checkpoint-*")] == []


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    finetune.run(make_context(tiny.model, tiny.train, tmp_path, checkpoint_marks=(16,)))
    other = make_context(tiny.model, tiny.train, tmp_path, settings={"method": "lora"})
    with pytest.raises(SweeperError, match="It belongs to another model or method"):
        finetune.run(other)


@pytest.mark.parametrize("rank", [1, 4])
def test_a_checkpoint_of_adapters_of_another_rank_is_refused(tmp_path: Path, tiny: Tiny, rank: int) -> None:
    """Those of rank 1 would be copied into each row of the others."""
    from sweeper.training import finetune

    lora = {"method": "lora", "lora_rank": rank}
    finetune.run(make_context(tiny.model, tiny.train, tmp_path, settings=lora, checkpoint_marks=(16,)))
    other = make_context(tiny.model, tiny.train, tmp_path, settings={**lora, "lora_rank": 8})
    with pytest.raises(
        SweeperError, match=rf"holds `.*lora_A.*` with the shape \({rank}, 32\), and .* has \(8, 32\)"
    ):
        finetune.run(other)


def test_data_is_read_on_from_the_right_sample(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(7))
    whole = make_context(tiny.model, data, tmp_path / "whole", total_steps=6)
    finetune.run(whole)
    first = make_context(tiny.model, data, tmp_path / "cut", total_steps=6, checkpoint_marks=(40,))
    finetune.run(first)
    second = make_context(tiny.model, data, tmp_path / "cut", total_steps=6)
    finetune.run(second)
    assert all_rows(second) == all_rows(whole)[5:]


def test_an_inherited_checkpoint_brings_moments_and_position_but_not_the_rate(tmp_path: Path) -> None:
    import torch

    from sweeper.training.checkpoints import STATE, load_state, read_state

    def trainer(rate: float, total: int) -> SimpleNamespace:
        weight = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.AdamW([weight], lr=rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / total)
        return SimpleNamespace(
            optimizer=optimizer, lr_scheduler=schedule, weight=weight, accelerator=SimpleNamespace(scaler=None)
        )  # fmt: skip

    theirs, ours = trainer(1e-3, 10), trainer(4e-3, 20)
    for _ in range(5):
        theirs.weight.grad = torch.ones(2)
        theirs.optimizer.step()
        theirs.lr_scheduler.step()
    state = {
        "optimizer": theirs.optimizer.state_dict(), "schedule": theirs.lr_scheduler.state_dict(), "scaler": None,
        "random": {}, "tokens": 7,
    }  # fmt: skip
    torch.save(state, tmp_path / STATE)

    load_state(ours, read_state(tmp_path), is_inherited=True)

    assert ours.lr_scheduler.last_epoch == 5
    assert ours.optimizer.param_groups[0]["lr"] == pytest.approx(4e-3 * (1 - 5 / 20))
    ours.lr_scheduler.step()
    assert ours.optimizer.param_groups[0]["lr"] == pytest.approx(4e-3 * (1 - 6 / 20))
    moments = ours.optimizer.state[ours.weight]["exp_avg"]
    assert torch.equal(moments, theirs.optimizer.state[theirs.weight]["exp_avg"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_where_a_gpu_trains_large_tensors_of_a_checkpoint_stay_in_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from sweeper.training.checkpoints import STATE, read_state

    moments = {"step": torch.tensor(7.0), "exp_avg": torch.arange(100_000.0)}
    torch.save({"optimizer": {"state": {0: moments}}, "tokens": 7}, tmp_path / STATE)

    def read(*, on_gpu: bool) -> dict[str, torch.Tensor]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
        found: dict[str, torch.Tensor] = read_state(tmp_path)["optimizer"]["state"][0]
        return found

    def is_mapped(tensor: torch.Tensor) -> bool:
        maps = [
            line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line
        ]
        ends = [[int(end, 16) for end in words[0].split("-")] for words in maps]
        return any(first <= tensor.data_ptr() < last for first, last in ends)

    mapped, whole = read(on_gpu=True), read(on_gpu=False)
    assert {name: is_mapped(one) for name, one in mapped.items()} == {"step": False, "exp_avg": True}
    assert not any(is_mapped(one) for one in whole.values())
    assert all(torch.equal(mapped[name], whole[name]) for name in whole)
