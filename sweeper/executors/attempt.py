"""One attempt of one trial, inside whatever process runs it."""

import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeper.checkpoint import DirectoryCheckpoints
from sweeper.context import Channel, TrialContext, TrialSpec, TrialStopped
from sweeper.records import Outcome, OutcomeKind

TrialFunction = Callable[[TrialContext], Any]


def worker_facts() -> dict[str, Any]:
    """Return who this process is."""
    return {"node": socket.gethostname(), "pid": os.getpid()}


def run_attempt(spec: TrialSpec, channel: Channel, *, function: TrialFunction | None = None) -> Outcome:
    """Run a trial's code to its end; never raises what the code raised.

    Args:
        spec: What to train.
        channel: Where reports go.
        function: Run instead of what the spec names; for tests and for sweeps from Python.
    """
    checkpoints = DirectoryCheckpoints(Path(spec.trial_dir) / "checkpoints")
    context = TrialContext(spec=spec, channel=channel, checkpoint=checkpoints)
    try:
        metrics = _run(spec, context, function)
    except TrialStopped:
        return Outcome(kind=OutcomeKind.STOPPED, report=context.take_report())
    except Exception as error:  # noqa: BLE001 - whatever a user's code raises ends this attempt, not the sweep
        return Outcome(
            kind=OutcomeKind.FAILED,
            report=context.take_report(),
            error=f"{type(error).__name__}: {error}",
            traceback=traceback.format_exc(),
        )
    return Outcome(kind=OutcomeKind.DONE, report=context.take_report(metrics))


def _run(spec: TrialSpec, context: TrialContext, function: TrialFunction | None) -> dict[str, float]:
    from sweeper.training.functions import load_function, run_function

    name = spec.trial.get("function")
    if function is None and name is None:
        from sweeper.training import finetune  # torch, transformers, trl: only here, inside a worker

        return finetune.run(context)
    place = spec.trial.get("function_dir")
    return run_function(function or load_function(str(name), directory=Path(place) if place else None), context)
