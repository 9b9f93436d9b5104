"""A trial that runs out of memory goes on with a smaller micro-batch, and trains the same."""

import contextlib
import json

import pytest
import training_fixtures
from sweeps import make_orchestrator, make_study, reopened

from sweeper.config import config_from_dict
from sweeper.events import EventKind
from sweeper.executors.in_process import InProcessExecutor
from sweeper.records import TrialState

pytestmark = pytest.mark.train
tiny = training_fixtures.tiny

FITS = 2  # sequences in a pass that the made-up device has room for
FULL_AFTER = 30  # sequences of an attempt, from which on it has no more room than that


@contextlib.contextmanager
def little_memory():
    """Raise torch's own out-of-memory error inside the model's forward pass, where a GPU would."""
    import torch

    seen = 0

    def refuse(module, args):
        nonlocal seen
        if not isinstance(module, torch.nn.Embedding) or not module.training:
            return
        size = args[0].shape[0]
        seen += size
        if seen > FULL_AFTER and size > FITS:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    hook = torch.nn.modules.module.register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


def train_with_little_memory(context):
    from sweeper.training import finetune

    with little_memory():
        return finetune.run(context)


def train(context):
    from sweeper.training import finetune

    return finetune.run(context)


def config(tiny, **settings):
    return config_from_dict(
        training_fixtures.sweep_of(
            tiny,
            trial={
                "budget": {"samples": 64},
                "checkpoint": {"at": [16]},
                "settings": {"effective_batch_size": 8, "micro_batch_size": 8, "max_length": 64, **settings},
            },
            search_space={"learning_rate": {"grid": [1e-2, 3e-3]}},
            rungs={"samples": [32]},
            failures={"retries": 0},
            resources={"slots": 1},
        )
    )


class Messages:
    def __init__(self):
        self.texts = []

    def on_event(self, event):
        if event.kind in (EventKind.TRIAL_RETRIED, EventKind.TRIAL_STARTED):
            self.texts.append(event.message)


def run(directory, config, function, listener):
    study = make_study(directory, config)
    InProcessExecutor(slots=1, function=function).run(make_orchestrator(study, listener))
    return reopened(study)


@pytest.mark.parametrize("micro_batch_size", [8, pytest.param("auto", marks=pytest.mark.slow)])
def test_out_of_memory_twice_in_a_row_ends_complete_with_the_same_batch_and_curve(
    tmp_path, tiny, micro_batch_size
):
    calm = run(tmp_path / "calm", config(tiny), train, Messages())
    told = Messages()
    cut = config(tiny, micro_batch_size=micro_batch_size)
    study = run(tmp_path / "full", cut, train_with_little_memory, told)

    records = study.records()
    assert [record.state for record in records.values()] == [TrialState.COMPLETE] * 2
    assert records[0].settings["effective_batch_size"] == 8
    assert (
        "ran out of memory (host) at micro_batch_size = 8. Going on with micro_batch_size = 4"
        in told.texts[1]
    )
    assert "gradient_accumulation_steps = 2; effective_batch_size = 8 is unchanged" in told.texts[1]
    assert told.texts[2] == "attempt 2 started from step 2"
    assert "at micro_batch_size = 4. Going on with micro_batch_size = 2" in told.texts[3]
    for number in (0, 1):
        rows, expected = study.curves.rows(number), calm.curves.rows(number)
        assert [row.samples for row in rows] == [row.samples for row in expected] == list(range(8, 65, 8))
        assert [row.loss for row in rows] == pytest.approx([row.loss for row in expected], abs=1e-4)
        assert [row.grad_norm for row in rows] == pytest.approx([row.grad_norm for row in expected], abs=1e-4)
    # What fits is remembered: the second trial did not run out of memory again.
    assert [record.attempts for record in records.values()] == [3, 1]
    ((kind, limits),) = study.micro_batches().items()
    assert json.loads(kind)[0] == str(tiny.model)
    assert limits == {"host": 2}
    assert "torch.OutOfMemoryError" in records[0].errors[0]["traceback"]


def test_a_batch_that_cannot_be_halved_fails_the_trial_with_the_reason(tmp_path, tiny):
    study = run(tmp_path, config(tiny, micro_batch_size=1), refuse_everything, Messages())

    records = study.records()
    assert [record.state for record in records.values()] == [TrialState.FAIL] * 2
    assert "OutOfMemoryError" in records[0].reason


def refuse_everything(context):
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory.")
