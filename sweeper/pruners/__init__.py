"""Pruners: who stops a trial early, and by which signals."""

from sweeper.pruners.early_dynamics import PAPER_SIGNALS, EarlyDynamicsPruner, RankedSignal, report_rung

__all__ = ["PAPER_SIGNALS", "EarlyDynamicsPruner", "RankedSignal", "report_rung"]
