"""Divergence: what a trial shows against its own history. Never a comparison with others. Pure."""

import collections
import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sweeper.optimizer import is_norm_limit
from sweeper.records import StepRow

DIVERGENCE_RULES = ("nan", "loss_spike", "grad_norm_explosion", "dead_gradients", "clipped_steps")


class Verdict(NamedTuple):
    """Which rule a trial broke, and the sentence that says so."""

    rule: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class DivergenceRules:
    """Which rules are on. A rule over steps needs `patience_steps` of them in a row."""

    nan: bool = True
    loss_spike: bool = True
    # Times the lowest median of any earlier window of `patience_steps`. One below 0 must be left behind by as much as
    # one of that size above 0 would be.
    loss_spike_factor: float = 3.0
    grad_norm_explosion: bool = True
    grad_norm_factor: float = 100.0  # times the median norm of all earlier steps
    dead_gradients: bool = True  # a norm that became exactly 0 while there is a loss: nothing is learned
    clipped_steps: bool = False  # at 1.0, the usual limit, many sound runs are clipped at every step
    clipped_frac: float = 0.95  # of all steps but the first `patience_steps`
    patience_steps: int = 8


# A spike must also lie this many scaled MADs above the best window, so that a noisy loss near zero, whose triple
# is still small, is no spike.
_SPIKE_MADS = 10.0
# And it must undo half of what training had won: a trial that fits its rows had losses of 0.007, and a stretch of
# harder ones at 0.06 was no divergence (examples/tiny, batch 8, rate 1e-3, November 2026).
_SPIKE_UNDONE = 0.5
_MAD_SCALE = 1.4826  # makes the MAD of normal noise its standard deviation
_CLIPPED_WINDOWS = (
    10  # times `patience_steps`: so many steps must have been seen before their share says anything
)
_NORM_HISTORY = 512  # steps; the median of more says the same and costs more


class Judged(Protocol):
    """What is known of a trial that is watched: where its data changes, and its settings."""

    @property
    def phase_ends(self) -> Sequence[int]: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...


def monitor_for(point: Judged, rules: DivergenceRules) -> "DivergenceMonitor":
    """Return the monitor of a trial of this point."""
    limit = point.settings.get("max_grad_norm") if rules.clipped_steps else None
    return DivergenceMonitor(
        rules, restarts=point.phase_ends, max_grad_norm=limit if is_norm_limit(limit) else None
    )


class DivergenceMonitor:
    """Watches one trial's steps as they come in.

    Args:
        rules: Which rules are on.
        restarts: Samples after which the data is another one, growing. Loss and norm may jump there, so what came
            before is forgotten.
        max_grad_norm: The norm at which the trial's gradients are clipped; None: they are not, or it is not known.
    """

    def __init__(
        self, rules: DivergenceRules, *, restarts: Sequence[int] = (), max_grad_norm: float | None = None
    ) -> None:
        self._rules = rules
        self._max_grad_norm = max_grad_norm
        self._restarts = collections.deque(restarts)
        # Whether a norm was ever above 0: a function may report 0 for one that it does not measure.
        self._has_moved = False
        self._forget()

    def _forget(self) -> None:
        rules = self._rules
        self._recent: collections.deque[StepRow] = collections.deque(maxlen=rules.patience_steps)
        self._first_median: float | None = None
        self._best_median = math.inf
        self._best_mad = 0.0
        self._norms: collections.deque[float] = collections.deque(maxlen=_NORM_HISTORY)
        self._n_norms = self._n_clipped = 0  # of the steps after the first `patience_steps`

    def check(self, rows: Iterable[StepRow]) -> Verdict | None:
        """Take in further steps; return what the first of them broke, or None."""
        for row in rows:
            verdict = self._check_one(row)
            if verdict is not None:
                return verdict
        return None

    def go_on_from(self, rows: Iterable[StepRow]) -> None:
        """Take in the steps that a trial goes on from; they were checked as they came, so nothing is looked for.

        That is most of what a step costs: 20,000 take 0.03 s, and 0.17 s where each is checked again (2 cores,
        November 2026), which hundreds of trials that are taken up again would wait for.
        """
        for row in rows:
            self._restart(row)
            if self._nan(row) is None and self._take_in(row):
                self._learn()

    def _check_one(self, row: StepRow) -> Verdict | None:
        self._restart(row)
        verdict = self._nan(row)
        if verdict is not None or not self._take_in(row):
            return verdict
        verdict = self._spike(row) or self._explosion(row) or self._dead(row) or self._clipped(row)
        self._learn()
        return verdict

    def _restart(self, row: StepRow) -> None:
        while self._restarts and row.samples > self._restarts[0]:
            self._restarts.popleft()
            self._forget()

    def _take_in(self, row: StepRow) -> bool:
        """Take in a step; return whether there are enough of them to say anything."""
        if len(self._recent) == self._recent.maxlen:
            if self._recent[0].grad_norm is not None:
                self._norms.append(self._recent[0].grad_norm)  # leaves the patience window: becomes history
            if row.grad_norm is not None and self._max_grad_norm is not None:
                self._n_norms += 1
                self._n_clipped += row.grad_norm > self._max_grad_norm
        self._has_moved = self._has_moved or bool(row.grad_norm)
        self._recent.append(row)
        return len(self._recent) == self._recent.maxlen

    def _nan(self, row: StepRow) -> Verdict | None:
        if not self._rules.nan:
            return None
        for name, value in (("loss", row.loss), ("gradient norm", row.grad_norm)):
            if value is not None and not math.isfinite(value):
                return Verdict(
                    "nan", f"diverged: {name} is {value} at step {row.step} ({row.samples} samples)"
                )
        return None

    def _spike(self, row: StepRow) -> Verdict | None:
        losses = [recent.loss for recent in self._recent if recent.loss is not None]
        if (
            not self._rules.loss_spike
            or len(losses) < self._rules.patience_steps
            or self._first_median is None
        ):
            return None
        threshold = max(
            self._best_median + (self._rules.loss_spike_factor - 1.0) * abs(self._best_median),
            self._best_median + _SPIKE_MADS * _MAD_SCALE * self._best_mad,
            self._best_median + _SPIKE_UNDONE * (self._first_median - self._best_median),
        )
        has_scale = (
            threshold > self._best_median
        )  # not where the loss has been exactly 0 from the first step on
        if not has_scale or min(losses) <= threshold:
            return None
        return Verdict(
            "loss_spike",
            f"diverged: loss stayed above {threshold:.4g} for {len(losses)} steps up to step {row.step} "
            f"({row.samples} samples); its own best was {self._best_median:.4g}",
        )

    def _explosion(self, row: StepRow) -> Verdict | None:
        norms = [recent.grad_norm for recent in self._recent if recent.grad_norm is not None]
        known = len(self._norms) >= self._rules.patience_steps
        if not self._rules.grad_norm_explosion or len(norms) < self._rules.patience_steps or not known:
            return None
        # The cheap test first: the median of 512 norms at every step would cost more than the step's report.
        threshold_floor = self._rules.grad_norm_factor * min(self._norms)
        if min(norms) <= threshold_floor:
            return None
        median = statistics.median(self._norms)
        if min(norms) <= self._rules.grad_norm_factor * median:
            return None
        return Verdict(
            "grad_norm_explosion",
            f"diverged: gradient norm stayed above {self._rules.grad_norm_factor:.4g} times its own median of "
            f"{median:.4g} for {len(norms)} steps up to step {row.step} ({row.samples} samples)",
        )

    def _dead(self, row: StepRow) -> Verdict | None:
        if not self._rules.dead_gradients or row.grad_norm != 0.0 or not self._has_moved:
            return None
        losses = [recent.loss for recent in self._recent if recent.loss is not None]
        # A trial that fits its rows to the last digit has a loss of 0, and no gradient either: it is done, not dead.
        if any(recent.grad_norm != 0.0 or recent.loss in (0.0, None) for recent in self._recent):
            return None
        # So is one that has come to rest at the lowest loss it ever had.
        if (
            self._first_median is not None
            and statistics.median(losses) <= self._best_median < self._first_median
        ):
            return None
        return Verdict(
            "dead_gradients",
            f"diverged: gradient norm was 0 for {len(self._recent)} steps up to step {row.step} "
            f"({row.samples} samples), so nothing is learned any more",
        )

    def _clipped(self, row: StepRow) -> Verdict | None:
        if not self._rules.clipped_steps or self._n_norms < _CLIPPED_WINDOWS * self._rules.patience_steps:
            return None
        if self._n_clipped <= self._rules.clipped_frac * self._n_norms:
            return None
        return Verdict(
            "clipped_steps",
            f"diverged: gradients were clipped at {self._max_grad_norm:g} in {self._n_clipped} of {self._n_norms} "
            f"steps up to step {row.step} ({row.samples} samples)",
        )

    def _learn(self) -> None:
        losses = [recent.loss for recent in self._recent if recent.loss is not None]
        if len(losses) < self._rules.patience_steps or not all(map(math.isfinite, losses)):
            return
        median = statistics.median(losses)
        if self._first_median is None:
            self._first_median = median
        if median < self._best_median:
            self._best_median = median
            self._best_mad = statistics.median(abs(loss - median) for loss in losses)
