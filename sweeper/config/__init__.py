"""The sweep file: read, overridden, checked as a whole, frozen."""

from sweeper.config.dump import config_to_dict, dump_config
from sweeper.config.load import config_from_dict, load_config, override_recorded, parse_config
from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import TrainSettings

__all__ = [
    "SweepConfig",
    "TrainSettings",
    "config_from_dict",
    "config_to_dict",
    "dump_config",
    "load_config",
    "override_recorded",
    "parse_config",
]
