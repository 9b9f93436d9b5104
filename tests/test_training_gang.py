"""A trial that several processes train together gives the curve of one that trains alone."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rank_functions
import training_fixtures
from rank_processes import RankPool, Trained, alone
from training_fixtures import Tiny

pytestmark = pytest.mark.train
tiny = training_fixtures.tiny
SHARDINGS = [None, "fsdp2"]
SAME = 1e-4
WHOLE: dict[str, Any] = {"micro_batch_size": 4, "gradient_accumulation_steps": 2, "total_steps": 6}
HALVES: dict[str, Any] = {"micro_batch_size": 2, "gradient_accumulation_steps": 2, "total_steps": 6}


@pytest.fixture(scope="module")
def pair(tiny: Tiny) -> Iterator[RankPool]:
    WHOLE["eval_data"] = HALVES["eval_data"] = {"dev": tiny.dev}
    pool = RankPool(2)
    yield pool
    pool.end()


@pytest.fixture(scope="module")
def trained_alone(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("alone")
    return alone(root, tiny=tiny, **WHOLE)


def test_two_ranks_give_the_curve_of_one(
    pair: RankPool, tiny: Tiny, tmp_path: Path, trained_alone: Trained
) -> None:
    for sharding in SHARDINGS:
        two = pair.train(tmp_path / str(sharding), tiny=tiny, sharding=sharding, **HALVES)
        assert two.kinds == ["done", "done"], two.outcomes
        assert_same(two, trained_alone)
        assert [row.samples for row in two.rows] == [8, 16, 24, 32, 40, 48]


@pytest.mark.slow
@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize(
    "settings",
    [
        {"max_grad_norm": None, "lr_scheduler_type": "cosine", "warmup_frac": 0.5},
        {"method": "lora", "lora_rank": 4},
        {"gradient_checkpointing": True, "packing": True},
    ],
    ids=["unclipped", "lora", "checkpointing"],
)
def test_two_ranks_give_the_curve_of_one_with_other_settings(
    pair: RankPool, tiny: Tiny, tmp_path: Path, sharding: str | None, settings: dict[str, Any]
) -> None:
    one = alone(tmp_path / "one", tiny=tiny, settings=settings, **WHOLE)
    two = pair.train(tmp_path / "two", tiny=tiny, settings=settings, sharding=sharding, **HALVES)
    assert_same(two, one)


@pytest.mark.slow
def test_a_shared_out_model_trains_in_bf16_with_frozen_weights(
    pair: RankPool, tiny: Tiny, tmp_path: Path
) -> None:
    settings = {"method": "lora", "lora_rank": 4, "precision": "bf16"}
    one = alone(tmp_path / "one", tiny=tiny, settings=settings, **WHOLE)
    two = pair.train(tmp_path / "two", tiny=tiny, settings=settings, sharding="fsdp2", **HALVES)
    assert two.losses == pytest.approx(one.losses, abs=0.05)  # bf16 keeps 3 digits


def test_a_checkpoint_right_after_an_evaluation_holds_the_trained_weights(
    pair: RankPool, tiny: Tiny, tmp_path: Path
) -> None:
    import safetensors.torch
    import torch

    weights = []
    for place, marks in (("evaluated", (16,)), ("plain", ())):
        two = pair.train(
            tmp_path / place, tiny=tiny, sharding="fsdp2", settings={"precision": "bf16"}, **HALVES,
            evaluation_marks=marks, checkpoint_marks=(16,), trial={"evaluation": {"generate": False}},
        )  # fmt: skip
        assert two.kinds == ["done", "done"], two.outcomes
        (saved,) = (tmp_path / place).glob("checkpoints/step-*/weights.safetensors")
        weights.append(safetensors.torch.load_file(saved))
    after, expected = weights
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    assert after.keys() == expected.keys()
    assert all(torch.equal(after[name], expected[name]) for name in expected)


def test_between_micro_steps_each_rank_holds_its_share_of_the_gradient_alone(
    pair: RankPool, tiny: Tiny, tmp_path: Path
) -> None:
    job = {**HALVES, "gradient_accumulation_steps": 3, "total_steps": 2}
    two = pair.train(
        tmp_path, tiny=tiny, sharding="fsdp2", function=rank_functions.trains_watching_gradients, **job
    )
    assert two.kinds == ["done", "done"], two.outcomes
    assert two.metrics["micro_steps"] == 6
    assert two.metrics["shared_out"] == 6


def test_an_evaluation_for_which_one_rank_lacks_memory_is_halved_by_all(
    pair: RankPool, tiny: Tiny, tmp_path: Path, trained_alone: Trained
) -> None:
    two = pair.train(tmp_path, tiny=tiny, function=rank_functions.trains_with_little_memory, **HALVES)
    assert two.kinds == ["done", "done"], two.outcomes
    assert two.metrics == pytest.approx(trained_alone.metrics, abs=SAME)


def test_a_stop_reaches_all_ranks_at_the_same_step(pair: RankPool, tiny: Tiny, tmp_path: Path) -> None:
    two = pair.train(tmp_path, tiny=tiny, **HALVES, marks=(16, 32), channel={"stop_at_step": 2})
    assert two.kinds == ["stopped", "stopped"]
    assert [row.step for row in two.rows] == [1, 2]


def test_a_stop_flag_ends_all_ranks_before_their_next_step(
    pair: RankPool, tiny: Tiny, tmp_path: Path
) -> None:
    two = pair.train(tmp_path, tiny=tiny, **HALVES, stops_at_once=True)
    assert two.kinds == ["stopped", "stopped"]
    assert two.rows == []


@pytest.mark.parametrize("sharding", [pytest.param(None, marks=pytest.mark.slow), "fsdp2"])
def test_a_checkpoint_of_two_ranks_is_gone_on_with_by_one_and_by_two(
    pair: RankPool, tiny: Tiny, tmp_path: Path, trained_alone: Trained, sharding: str | None
) -> None:
    interrupted = {**HALVES, "marks": (16,), "channel": {"pause_at_step": 2}}
    first = pair.train(tmp_path / "run", tiny=tiny, sharding=sharding, **interrupted)
    assert first.kinds == ["stopped", "stopped"]
    assert first.checkpoints == ["step-00000003"]
    shutil.copytree(tmp_path / "run", tmp_path / "copy")

    two = pair.train(tmp_path / "run", tiny=tiny, sharding=sharding, **HALVES)
    one = alone(tmp_path / "copy", tiny=tiny, **WHOLE)

    for later in (two, one):
        assert [row.step for row in later.rows] == [4, 5, 6]
        assert later.losses == pytest.approx(trained_alone.losses[3:], abs=SAME)
        assert later.norms == pytest.approx(trained_alone.norms[3:], abs=SAME)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_checkpoint_of_one_is_gone_on_with_by_two(
    pair: RankPool, tiny: Tiny, tmp_path: Path, trained_alone: Trained, sharding: str | None
) -> None:
    alone(tmp_path, tiny=tiny, **WHOLE, marks=(16,), channel={"pause_at_step": 2})
    two = pair.train(tmp_path, tiny=tiny, sharding=sharding, **HALVES)
    assert [row.step for row in two.rows] == [4, 5, 6]
    assert two.losses == pytest.approx(trained_alone.losses[3:], abs=SAME)


@pytest.mark.slow
def test_ranks_drop_out_units_of_their_own_and_go_on_with_them(
    pair: RankPool, tiny: Tiny, tmp_path: Path
) -> None:
    job = {**HALVES, "tiny": tiny, "settings": {"method": "lora", "lora_rank": 4, "lora_dropout": 0.5}}
    whole = pair.train(tmp_path / "whole", **job)
    pair.train(tmp_path / "cut", **job, marks=(16,), channel={"pause_at_step": 2})
    rest = pair.train(tmp_path / "cut", **job)
    assert rest.losses == whole.losses[3:]


@pytest.mark.slow
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_the_model_that_is_kept_is_whole(
    pair: RankPool, tiny: Tiny, tmp_path: Path, sharding: str | None
) -> None:
    import transformers

    from sweeper.training.sharding import is_sharded

    job = {**HALVES, "trial": {"checkpoint": {"save_model": True}}}
    two = pair.train(tmp_path, tiny=tiny, sharding=sharding, **job)
    assert two.kinds == ["done", "done"], two.outcomes
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert not is_sharded(model)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]


def test_a_function_of_the_users_own_stops_on_all_ranks(pair: RankPool, tiny: Tiny, tmp_path: Path) -> None:
    function = {"tiny": tiny, "function": rank_functions.averages, "total_steps": 6}
    whole = pair.train(tmp_path / "whole", **function)
    assert whole.kinds == ["done", "done"]
    assert [row.loss for row in whole.rows] == [0.5] * 6  # the mean of 0 and 1, their ranks
    assert whole.metrics == {"score": 2.0}

    stopped = pair.train(tmp_path / "stopped", **function, marks=(8,), channel={"stop_at_step": 1})
    assert stopped.kinds == ["stopped", "stopped"]
    assert len(stopped.rows) == 1


def test_a_function_of_the_users_own_saves_on_rank_0_and_ends_on_all(
    pair: RankPool, tiny: Tiny, tmp_path: Path
) -> None:
    job = {"tiny": tiny, "function": rank_functions.saves, "total_steps": 6}
    first = pair.train(tmp_path, **job, marks=(8,), channel={"pause_at_step": 1})
    assert first.kinds == ["stopped", "stopped"]
    assert first.checkpoints == ["step-00000002"]

    rest = pair.train(tmp_path, **job)
    assert [row.step for row in rest.rows] == [3, 4, 5, 6]


def assert_same(two: Trained, one: Trained) -> None:
    assert two.losses == pytest.approx(one.losses, abs=SAME)
    assert two.norms == pytest.approx(one.norms, abs=SAME)
    assert [row.tokens for row in two.rows] == [row.tokens for row in one.rows]
    assert {"dev/loss", "dev/exact_match"} <= set(two.metrics)
    assert two.metrics == pytest.approx(one.metrics, abs=SAME)
