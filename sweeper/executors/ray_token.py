"""Ray's token, which keeps the other users of a machine and of its network out of a cluster: for this user alone."""

import logging
import os
import secrets
import stat
from pathlib import Path

from sweeper.errors import ConfigError

logger = logging.getLogger(__name__)

_GIVEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")  # Ray reads these before its own file


def has_token() -> bool:
    """Whether Ray would find a token on this machine; an earlier local Ray leaves one behind."""
    return _is_given() or _place().is_file()


def make_token() -> None:
    """Write a token where Ray would, unless it has one: its own is readable as the umask says (ray 2.60).

    Raises:
        ConfigError: If it cannot be written.
    """
    place = _place()
    if _is_given() or place.exists():
        return
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return  # another process was first; its token is the one
    except OSError as error:
        raise ConfigError(
            f"Ray's token, which keeps other users out, cannot be written to {place}: {error.strerror}. Make that "
            "writable, or set RAY_AUTH_TOKEN to a long random text."
        ) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def close_token() -> None:
    """Let nobody else read this user's token any more, as Ray and `ray get-auth-token` have left it."""
    place = _place()
    try:
        facts = place.stat()
    except FileNotFoundError:
        return
    if facts.st_uid != os.geteuid() or not stat.S_IMODE(facts.st_mode) & 0o077:
        return
    try:
        place.chmod(0o600)
    except OSError as error:
        logger.warning(
            "Other users of this machine can read Ray's token in %s and with it run code as you, and its mode cannot "
            "be changed: %s. Move it to a file system that can, and name it by RAY_AUTH_TOKEN_PATH.",
            place,
            error.strerror,
        )


def _is_given() -> bool:
    return any(os.environ.get(name) for name in _GIVEN)


def _place() -> Path:
    return Path.home() / ".ray" / "auth_token"
