"""For which trials a micro-batch counts as too large, once one of them has run out of memory."""

from pathlib import Path
from typing import Any

import pytest
from sweep_files import config_of
from sweeps import make_config, make_orchestrator, make_study, reopened

from sweeper.batch import BatchPlan
from sweeper.records import FailureCause, Outcome, OutcomeKind
from sweeper.study.micro_batches import MicroBatchLimits

SWEEP = """\
study: demo
metric: dev/loss
direction: minimize
trial:
  train_data: org/train
  eval_data: {dev: org/dev}
  budget: {samples: 1024}
  settings: {effective_batch_size: 16}
search_space:
  model: {grid: [org/small, org/large]}
  max_length: {grid: [512, 4096]}
  learning_rate: {grid: [1e-5, 1e-4]}
pruner: nop
rungs: {fractions: [0.5]}
"""
HALF = BatchPlan(micro_batch_size=4, gradient_accumulation_steps=4, data_parallel_size=1)


def settings_of(study: Any) -> list[dict[str, Any]]:
    return [record.settings for record in study.records().values()]


def test_a_limit_holds_for_the_points_of_that_model_and_length_alone(tmp_path: Path) -> None:
    study = make_study(tmp_path, config_of(SWEEP))
    every = settings_of(study)
    out = next(one for one in every if one["model"] == "org/large" and one["max_length"] == 4096)
    MicroBatchLimits(study).lower(HALF, "H100", out)

    known = MicroBatchLimits(reopened(study))  # another driver
    for one in every:
        same = (one["model"], one["max_length"]) == ("org/large", 4096)
        assert known.by_device(one) == ({"H100": 4} if same else {})
    assert len(every) == 8


def test_a_trial_that_ran_out_of_memory_and_those_like_it_get_half_the_micro_batch(tmp_path: Path) -> None:
    orchestrator = make_orchestrator(make_study(tmp_path, config_of(SWEEP, "resources.slots=1")))
    first = orchestrator.next_trial()
    assert first is not None
    orchestrator.on_end(
        first.number,
        Outcome(kind=OutcomeKind.FAILED, error="no room", cause=FailureCause.OUT_OF_MEMORY, device="host"),
    )
    specs = [orchestrator.next_trial() for _ in range(8)]
    sizes = {
        (spec.settings["model"], spec.settings["max_length"]): spec.fitted("host").micro_batch_size
        for spec in specs
        if spec is not None
    }
    like = (first.settings["model"], first.settings["max_length"])
    assert sizes == {kind: 4 if kind == like else 8 for kind in sizes}
    assert len(sizes) == 4


def test_limits_that_a_study_has_by_the_model_alone_still_hold_for_all_its_trials(tmp_path: Path) -> None:
    study = make_study(tmp_path, make_config())
    study.record_micro_batches({"trial_functions:steady": {"host": 8}})
    known = MicroBatchLimits(study)
    first, second = settings_of(study)[:2]
    known.lower(HALF, "host", first | {"max_length": 4096})
    assert known.by_device(first | {"max_length": 4096}) == {"host": 4}
    assert known.by_device(second) == {"host": 8}


@pytest.mark.parametrize(
    ("device", "overrides", "ways"),
    [
        (
            "A10",
            (),
            "`method: lora`, `method: qlora`, `gradient_checkpointing: true`, `resources.sharding: fsdp2` over several "
            "GPUs or a `max_length` below 512",
        ),
        ("A10", ("method=qlora", "gradient_checkpointing=true"), "a `max_length` below 512"),
        (
            "host",
            ("method=lora", "gradient_checkpointing=true"),
            "fewer `resources.slots` or a `max_length` below 512",
        ),
    ],
)
def test_a_trial_whose_micro_batch_cannot_be_halved_says_what_needs_less_memory(
    tmp_path: Path, device: str, overrides: tuple[str, ...], ways: str
) -> None:
    given = ("micro_batch_size=1", *overrides)
    settings = ("failures.retries=0", "resources.slots=1", *(f"trial.settings.{one}" for one in given))
    study = make_study(tmp_path, config_of(SWEEP, *settings))
    orchestrator = make_orchestrator(study)
    first = orchestrator.next_trial()
    assert first is not None

    cause = FailureCause.OUT_OF_MEMORY
    ended = Outcome(kind=OutcomeKind.FAILED, error="CUDA out of memory.", cause=cause, device=device)
    orchestrator.on_end(first.number, ended)

    assert reopened(study).records()[first.number].reason == (
        f"out of memory ({device}) at micro_batch_size = 1, which cannot be halved. Less is needed with {ways}. "
        "It said: CUDA out of memory."
    )
