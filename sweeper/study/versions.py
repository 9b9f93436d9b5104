"""The versions that a study's results stand on."""

import logging
import platform
from importlib import metadata

_PACKAGES = ("sweeper", "ray", "optuna", "torch", "transformers", "trl", "peft", "datasets")


def versions() -> dict[str, str]:
    """Return the versions that a study's results stand on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            logging.getLogger(__name__).debug("%s is not installed", package)
    return found
