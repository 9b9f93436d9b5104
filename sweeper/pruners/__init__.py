"""Pruners: who stops a trial early, and by which signals."""

from sweeper.learning import LearnedOptions
from sweeper.pruners.early_dynamics import EarlyDynamicsPruner
from sweeper.pruners.plain import report_rung
from sweeper.pruners.ranked import PAPER_SIGNALS, RankedSignal
from sweeper.records import Decision

__all__ = [
    "PAPER_SIGNALS",
    "Decision",
    "EarlyDynamicsPruner",
    "LearnedOptions",
    "RankedSignal",
    "report_rung",
]
