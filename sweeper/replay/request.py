"""What `sweeper replay` was asked for: a recorded sweep, and pruners with their settings."""

import re
from collections.abc import Sequence

from sweeper.errors import ConfigError
from sweeper.replay.result import ReplayResult
from sweeper.replay.run import ReplayOptions, replay
from sweeper.replay.setup import replay_config
from sweeper.study.recorded import RecordedSweep

_NEXT_SETTING = re.compile(r"\s+(?=[A-Za-z_][\w.]*=)")  # values may hold spaces: `signals={loss: {...}}`


def replay_all(
    sweep: RecordedSweep,
    pruners: Sequence[str],
    overrides: Sequence[str] = (),
    options: ReplayOptions | None = None,
) -> list[ReplayResult]:
    """Replay a sweep under each pruner.

    Args:
        pruners: A name each, with settings of its own behind it: `early_dynamics keep_frac=0.3`.
        overrides: `key=value` for all of them.
        options: The same for all of them.

    Raises:
        ConfigError: If one of them cannot be played; nothing was.
    """
    options = options or ReplayOptions()
    configs = []
    for asked in pruners:
        name, *own = _NEXT_SETTING.split(asked.strip())
        if not name or "=" in name:
            raise ConfigError(
                f"`--pruner` must be a pruner's name, with settings behind it if any, but got `{asked}`. "
                "Write for example `--pruner 'early_dynamics keep_frac=0.3'`."
            )
        configs.append(replay_config(sweep, name, [*own, *overrides], seed=options.seed))
    return [
        replay(sweep, config, options, label=" ".join(asked.split()))
        for asked, config in zip(pruners, configs, strict=True)
    ]
