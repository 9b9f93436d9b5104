"""Pruners: who stops a trial early, and by which signals."""

from sweeper.pruners.early_dynamics import EarlyDynamicsPruner
from sweeper.pruners.plain import report_rung
from sweeper.pruners.ranked import PAPER_SIGNALS, RankedSignal

__all__ = ["PAPER_SIGNALS", "EarlyDynamicsPruner", "RankedSignal", "report_rung"]
