"""What another pruner would have saved and lost on a sweep whose every end is known."""

from sweeper.replay.result import OrderOutcome, ReplayResult
from sweeper.replay.run import Replay, ReplayOptions, replay
from sweeper.replay.setup import replay_config

__all__ = ["OrderOutcome", "Replay", "ReplayOptions", "ReplayResult", "replay", "replay_config"]
