"""Where tokenised data, hashes and the like are kept for all sweeps of a user. Pure."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the directory of the cache: `SWEEPER_CACHE`, else `~/.cache/sweeper`."""
    return Path(os.environ.get("SWEEPER_CACHE") or Path.home() / ".cache" / "sweeper")
