"""Batch arithmetic: how an effective batch is cut into passes. Pure."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from sweeper.errors import ConfigError

AUTO = "auto"  # a micro-batch of what fits on the device
AUTO_ON_CPU = 8  # where memory is not what bounds a pass
# Settings that change how much memory a pass takes, beside the model and the micro-batch.
MEMORY_SETTINGS = (
    "method", "lora_rank", "lora_dropout", "lora_target_modules", "precision", "gradient_checkpointing",
    "attn_implementation", "use_liger_kernel", "packing", "max_length", "optimizer",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How one optimiser step is cut into passes. All sizes in sequences."""

    micro_batch_size: int  # per pass and rank; bounded by GPU memory
    gradient_accumulation_steps: int  # passes per optimiser step
    data_parallel_size: int  # ranks that see different data

    @property
    def effective_batch_size(self) -> int:
        return self.micro_batch_size * self.gradient_accumulation_steps * self.data_parallel_size

    def halved(self) -> "BatchPlan | None":
        """Return the same effective batch with half the micro-batch, or None where it cannot be halved."""
        if self.micro_batch_size % 2:
            return None
        return dataclasses.replace(
            self,
            micro_batch_size=self.micro_batch_size // 2,
            gradient_accumulation_steps=self.gradient_accumulation_steps * 2,
        )

    def cut(self, limit: int | None) -> "BatchPlan":
        """Return the same effective batch with the largest micro-batch of `cuts` that is at most `limit`.

        >>> BatchPlan(micro_batch_size=45, gradient_accumulation_steps=1, data_parallel_size=1).cut(8)
        BatchPlan(micro_batch_size=5, gradient_accumulation_steps=9, data_parallel_size=1)
        """
        share = self.micro_batch_size * self.gradient_accumulation_steps
        limit = self.micro_batch_size if limit is None else min(limit, self.micro_batch_size)
        micro = next(size for size in cuts(share) if size <= limit)
        return dataclasses.replace(self, micro_batch_size=micro, gradient_accumulation_steps=share // micro)

    def within(self, limit: int | None) -> "BatchPlan":
        """Return the same effective batch with a micro-batch of at most `limit`, or as near as halving comes.

        >>> BatchPlan(micro_batch_size=12, gradient_accumulation_steps=1, data_parallel_size=1).within(4)
        BatchPlan(micro_batch_size=3, gradient_accumulation_steps=4, data_parallel_size=1)
        """
        plan = self
        while limit is not None and plan.micro_batch_size > limit:
            half = plan.halved()
            if half is None:
                break
            plan = half
        return plan


def plan_batch(*, effective_batch_size: int, micro_batch_size: int, data_parallel_size: int = 1) -> BatchPlan:
    """Cut an effective batch into passes of at most `micro_batch_size`.

    A batch smaller than one full pass over all ranks is one smaller pass; a larger one must be a multiple.

    >>> plan_batch(effective_batch_size=64, micro_batch_size=8, data_parallel_size=2)
    BatchPlan(micro_batch_size=8, gradient_accumulation_steps=4, data_parallel_size=2)

    Raises:
        ConfigError: If the effective batch cannot be cut exactly.
    """
    unit = micro_batch_size * data_parallel_size
    if effective_batch_size < unit and effective_batch_size % data_parallel_size == 0:
        return BatchPlan(
            micro_batch_size=effective_batch_size // data_parallel_size,
            gradient_accumulation_steps=1,
            data_parallel_size=data_parallel_size,
        )
    if effective_batch_size % unit:
        raise ConfigError(_indivisible(effective_batch_size, unit))
    return BatchPlan(
        micro_batch_size=micro_batch_size,
        gradient_accumulation_steps=effective_batch_size // unit,
        data_parallel_size=data_parallel_size,
    )


def _indivisible(effective_batch_size: int, unit: int) -> str:
    below = effective_batch_size // unit * unit
    nearest = f"{below} and {below + unit}" if below else f"{unit}"
    return (
        f"`effective_batch_size` must be a multiple of micro_batch_size * data_parallel_size = {unit}, "
        f"but got {effective_batch_size}. Nearest valid values: {nearest}."
    )


@dataclasses.dataclass(kw_only=True)
class Known:
    """What was tried so far. Kept in a file beside the tokenised data, for all studies of this machine."""

    fits: int = 0  # the largest size that is known to fit
    fails: int | None = None  # the smallest that is known not to

    def verdict(self, size: int) -> bool | None:
        """Return whether a size fits; None where that is to be tried."""
        if size <= self.fits:
            return True
        return False if self.fails is not None and size >= self.fails else None

    def learn(self, size: int, *, fits: bool) -> None:
        if fits:
            self.fits = max(self.fits, size)
        else:
            self.fails = size if self.fails is None else min(self.fails, size)


def cuts(size: int) -> Iterator[int]:
    """Yield micro-batches to try for so many sequences: divisors, falling, each at most half the one before.

    >>> list(cuts(24)), list(cuts(100)), list(cuts(45))
    ([24, 12, 6, 3, 1], [100, 50, 25, 10, 5, 2, 1], [45, 15, 5, 1])
    """
    micro = size
    yield micro
    while micro > 1:
        micro = next(divisor for divisor in range(micro // 2, 0, -1) if size % divisor == 0)
        yield micro


def largest_that_fits(sizes: Sequence[int], fits: Callable[[int], bool], known: Known) -> int:
    """Return the first of falling sizes that fits, and take note of what was tried; the last one where none does."""
    for size in sizes[:-1]:
        verdict = known.verdict(size)
        if verdict is None:
            verdict = fits(size)
            known.learn(size, fits=verdict)
        if verdict:
            return size
    return sizes[-1]
