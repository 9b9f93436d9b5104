"""The signals of a window of steps, kept where they were computed until the window closes."""

import math
from collections import deque

import torch

from sweeper.records import StepRow

_MAX_PENDING = 64  # steps that the host may run ahead of the device before it waits


class StepSignals:
    """Collects each step's loss and gradient norm without making the host wait for the device.

    On CUDA the values stay tensors until `take`, which moves a whole window at once. Whether a step was
    finite is copied beside the computation and looked at when the copy has arrived, so that NaN is noticed
    within some steps.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int, int, int, float | None]] = []
        self._values: list[torch.Tensor] = []
        self._has_norm: list[bool] = []
        self._flags: deque[tuple[torch.Tensor, torch.cuda.Event]] = deque()
        self._saw_non_finite = False

    def __len__(self) -> int:
        return len(self._steps)

    def add(
        self,
        *,
        step: int,
        samples: int,
        tokens: int,
        loss: torch.Tensor,
        grad_norm: torch.Tensor | None,
        learning_rate: float | None,
    ) -> None:
        """Add one optimiser step. A norm of None was not measured."""
        norm = torch.zeros_like(loss) if grad_norm is None else grad_norm.detach().to(loss.dtype)
        values = torch.stack((loss.detach().reshape(()), norm.reshape(())))
        self._steps.append((step, samples, tokens, learning_rate))
        self._values.append(values)
        self._has_norm.append(grad_norm is not None)
        if values.is_cuda:
            self._watch(values)
        elif not all(math.isfinite(value) for value in values.tolist()):
            self._saw_non_finite = True

    def saw_non_finite(self) -> bool:
        """Whether a step since the last `take` is known to be NaN or infinite."""
        while self._flags:
            flag, event = self._flags[0]
            if not event.query() and len(self._flags) < _MAX_PENDING:  # type: ignore[no-untyped-call]
                break
            event.synchronize()
            self._flags.popleft()
            self._saw_non_finite |= not bool(flag)
        return self._saw_non_finite

    def take(self) -> list[StepRow]:
        """Return the window's rows, oldest first, and start a new window."""
        values = torch.stack(self._values).tolist() if self._values else []
        rows = [
            StepRow(step, samples, tokens, loss, norm if has_norm else None, learning_rate)
            for (step, samples, tokens, learning_rate), (loss, norm), has_norm in zip(
                self._steps, values, self._has_norm, strict=True
            )
        ]
        self._steps, self._values, self._has_norm = [], [], []
        self._flags.clear()
        self._saw_non_finite = False
        return rows

    def _watch(self, values: torch.Tensor) -> None:
        flag = torch.empty((), dtype=torch.bool, pin_memory=True)
        flag.copy_(torch.isfinite(values).all(), non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._flags.append((flag, event))
