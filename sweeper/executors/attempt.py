"""One attempt of one trial, inside whatever process runs it."""

import logging
import os
import shutil
import socket
import threading
import traceback
from pathlib import Path
from typing import Any

from sweeper.channel import Channel, TrialStopped
from sweeper.checkpoint import open_checkpoints
from sweeper.context import TrialContext
from sweeper.executors.user_code import arrived
from sweeper.files import is_disk_full
from sweeper.gang import Gang, Ranks, SharedCheckpoints
from sweeper.records import FailureCause, Outcome, OutcomeKind
from sweeper.study.machine import write_attempt_environment
from sweeper.training.data_identity import DataChangedError
from sweeper.training.functions import TrialFunction as TrialFunction
from sweeper.training.memory import computes_in_bf16, device_name, free_memory, is_out_of_memory
from sweeper.training.warm import load_torch
from sweeper.trial_spec import TrialSpec

logger = logging.getLogger(__name__)

JOIN_S = 300.0  # how long a told trial may take to its next step boundary before it is given up
_NO_ROOM_BYTES = 1 << 20


def worker_facts() -> dict[str, Any]:
    """Return who this process is."""
    return {"node": socket.gethostname(), "pid": os.getpid()}


def run_attempt(
    spec: TrialSpec, channel: Channel, *, function: TrialFunction | None = None, ranks: Ranks | None = None
) -> Outcome:
    """Run a trial's code to its end; never raises: an attempt that says nothing would be waited for for ever.

    Args:
        spec: What to train.
        channel: Where reports go; where several workers train the trial, rank 0's go there.
        function: Run instead of what the spec names; for tests and for sweeps from Python.
        ranks: The trial's workers, where there are several; each of them calls this.
    """
    try:
        return _attempt(spec, channel, function=function, ranks=ranks)
    except BaseException as error:
        # Before and after the trial's code: a store that cannot be opened, a GPU that is lost.
        if _ends_this_process(error):
            raise
        return _failed(error, cause=_cause_of(error, spec))


def _ends_this_process(error: BaseException) -> bool:
    """Whether it is a signal's doing, or what a process that runs this alone is to end with."""
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and isinstance(error, (SystemExit, KeyboardInterrupt))


def _failed(error: BaseException, **facts: Any) -> Outcome:
    return Outcome(
        kind=OutcomeKind.FAILED,
        error=f"{type(error).__name__}: {error}",
        traceback=traceback.format_exc(),
        **facts,
    )


def _attempt(
    spec: TrialSpec, channel: Channel, *, function: TrialFunction | None, ranks: Ranks | None
) -> Outcome:
    if function is None and spec.trial.get("function") is None:
        load_torch()  # which device this is has to be known before the batch is cut
    device = device_name()
    spec = spec.fitted(device)
    context = _context_of(spec, channel, ranks)
    try:
        if spec.trial_dir:
            Path(spec.trial_dir).mkdir(parents=True, exist_ok=True)
            write_attempt_environment(Path(spec.trial_dir), device, computes_in_bf16=computes_in_bf16())
        metrics = _run(spec, context, function)
    except TrialStopped:
        return Outcome(kind=OutcomeKind.STOPPED, report=context.take_report())
    except BaseException as error:
        # Whatever a user's code raises, `sys.exit` too, ends this attempt, not the sweep.
        if _ends_this_process(error):
            raise
        outcome = _failed(
            error,
            report=context.take_report(),
            cause=_cause_of(error, spec),
            device=device,
            micro_batch_size=context.micro_batch_size or spec.micro_batch_size,
        )
    else:
        return Outcome(
            kind=OutcomeKind.DONE,
            report=context.take_report(metrics),
            device=device,
            micro_batch_size=context.micro_batch_size,
        )
    _free_memory(spec)  # only here, where the error is forgotten: its traceback held what the trial had made
    return outcome


def _context_of(spec: TrialSpec, channel: Channel, ranks: Ranks | None) -> TrialContext:
    place = spec.checkpoint_place or str(Path(spec.trial_dir) / "checkpoints")
    checkpoints = open_checkpoints(
        place,
        newest_step=spec.checkpoint_step,
        trial_dir=Path(spec.trial_dir) if spec.trial_dir else None,
        rank=0 if ranks is None else ranks.rank,
    )
    every_s = spec.report_every_s
    if ranks is None:
        return TrialContext(spec=spec, channel=channel, checkpoint=checkpoints, report_every_s=every_s)
    gang = Gang(ranks, channel)
    shared = SharedCheckpoints(checkpoints, ranks)
    return TrialContext(spec=spec, channel=gang, checkpoint=shared, gang=gang, report_every_s=every_s)


def _free_memory(spec: TrialSpec) -> None:
    try:
        free_memory()
    except RuntimeError as error:
        # A GPU that has failed answers every call so. What came first is told; the process is replaced.
        logger.warning("The memory of trial %d could not be freed: %s", spec.number, error)


def _cause_of(error: BaseException, spec: TrialSpec) -> FailureCause | None:
    if is_out_of_memory(error):
        return FailureCause.OUT_OF_MEMORY
    if is_disk_full(error):
        return FailureCause.DISK_FULL
    if isinstance(error, DataChangedError):
        return FailureCause.DATA_CHANGED
    # torch 2.13 says no more than that its writer failed; a disk that has no room left says the rest.
    is_torch_writer = "PytorchStreamWriter" in str(error) or "inline_container" in str(error)
    if is_torch_writer and spec.trial_dir and shutil.disk_usage(spec.trial_dir).free < _NO_ROOM_BYTES:
        return FailureCause.DISK_FULL
    return None


def _run(spec: TrialSpec, context: TrialContext, function: TrialFunction | None) -> dict[str, float]:
    from sweeper.training.functions import load_function, run_function

    name = spec.trial.get("function")
    if function is None and name is None:
        from sweeper.training import finetune  # torch, transformers, trl: only here, inside a worker

        return finetune.run(context)
    if function is None:
        home = spec.trial.get("function_dir")
        place = arrived([home] if home else []) or home
        function = load_function(str(name), directory=Path(place) if place else None)
    return run_function(function, context)
