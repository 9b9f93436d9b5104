"""Ray in this process: its settings, a local one started, a running cluster joined. Import it before ray."""

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweeper.errors import ConfigError, first_line
from sweeper.executors import ray_token
from sweeper.executors.user_code import UserCode
from sweeper.room import Node

# Read by Ray when it is imported or started. Our study holds all results, so Tune's own logs, snapshots and signal
# handling are off; the working directory of workers stays the user's, so that relative paths mean the same.
_RAY_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    # Trials that wait for their worker. Left alone, Tune reads it once, off the slots that there are at first, and a
    # sweep whose slots grow starts its trials that few at a time (2.60). The slots are the bound.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "10",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
for _name, _value in _RAY_SETTINGS.items():
    os.environ.setdefault(_name, _value)


import ray  # noqa: E402 - after its settings

logger = logging.getLogger(__name__)

_PORT_S = 5.0  # how long a cluster's port may take to answer
_ATTEMPTS = 3
_AUTH_MODE = "RAY_AUTH_MODE"  # Ray's variable: "token" or "disabled"
_given_auth_mode = os.environ.get(_AUTH_MODE)  # the user's word, before Ray or this module change it
_QUIET = {"log_to_driver": False, "logging_level": logging.ERROR}

_ours: str | None = None  # the address that this module joined, or "local" for a Ray that it started


def connect(address: str, code: UserCode | None = None) -> dict[str, float]:
    """Join a running cluster, unless this process is in one already; return its resources.

    Args:
        address: `host:port`, or `auto`.
        code: Sent to every node that works for this process, while it is joined.

    Raises:
        ConfigError: If none can be joined there.
    """
    _leave_another(address)
    if not ray.is_initialized():
        ray_token.close_token()
        with _runtime_env(code) as runtime_env:
            _join(address, runtime_env)
    resources: dict[str, float] = ray.cluster_resources()
    return resources


def nodes() -> list[Node]:
    """Return the nodes that the joined cluster has now, with all that they have."""
    return [Node(name=node["NodeManagerHostname"], resources=node["Resources"]) for node in described_nodes()]


def described_nodes() -> list[dict[str, Any]]:
    """Return the same nodes as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def start_local(*, n_cpus: int) -> None:
    """Start Ray on this machine, unless this process has one that was not made here."""
    _leave_another("local")
    if not ray.is_initialized():
        if _given_auth_mode is None:
            os.environ.pop(_AUTH_MODE, None)  # what an earlier cluster asked for is not for this one
        if os.environ.get(_AUTH_MODE, "token").lower() == "token":
            ray_token.make_token()
            ray_token.close_token()
        # With no address Ray would join a cluster that somebody else runs on this machine, and refuse `num_cpus`.
        with _keeping_sigterm(), _deaf_to_hangups():
            ray.init(address="local", num_cpus=n_cpus, include_dashboard=False, **_QUIET)
        _remember("local")


def end() -> None:
    """Leave or stop the Ray that was joined or started here. One that the caller made stays."""
    if _ours is not None:
        ray.shutdown()
        _remember(None)


def _remember(address: str | None) -> None:
    global _ours
    _ours = address


def _leave_another(address: str) -> None:
    if _ours is not None and _ours != address:
        end()


@contextlib.contextmanager
def _runtime_env(code: UserCode | None) -> Iterator[dict[str, Any] | None]:
    """Yield what Ray is to bring to the workers of this job; it has been read when the block ends."""
    if code is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="sweeper-") as scratch:
        try:
            packed = code.pack(Path(scratch))
        except ConfigError as error:
            # Where the nodes see the directory themselves it need not travel; each of them is asked for it.
            logger.warning("%s It is not sent.", error)
            yield None
        else:
            yield {"py_modules": [str(packed)]}


def _join(address: str, runtime_env: dict[str, Any] | None) -> None:
    try:
        _check_port(address)
        with _keeping_sigterm():
            _init(address, runtime_env=runtime_env)
    except ray.exceptions.RuntimeEnvSetupError as error:
        raise ConfigError(
            f"The code of the trial function cannot be sent to the cluster at {address}: {error}. Name a directory "
            "that holds the module alone with `trial.function_dir`."
        ) from error
    except (OSError, ValueError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        raise ConfigError(
            f"No Ray cluster can be joined at {address}: {first_line(error).rstrip('.')}. Check that it runs "
            "(`ray start --head` starts one) and that this machine has its token (~/.ray/auth_token). "
            "`--address` names another one than the sweep file or the study does, and `--address local` runs on this "
            "machine."
        ) from error
    _remember(address)


def _init(address: str, **settings: Any) -> None:
    """Join as the cluster wants it: without a token, or else with the one of this machine.

    `ray start` asks for a token where it finds one, and refuses who sends none; joining by address sends none. A
    cluster that asks for none lets in who sends one, but then ends every actor at once (ray 2.60).
    """
    if _given_auth_mode is None and ray_token.has_token():
        try:
            _set_auth_mode("disabled")
            with _few_attempts(1):
                ray.init(address=address, **_QUIET, **settings)
            return
        except ConnectionError:
            _set_auth_mode("token")
    with _few_attempts(_ATTEMPTS):
        ray.init(address=address, **_QUIET, **settings)


def _set_auth_mode(mode: str) -> None:
    try:
        # Ray reads the variable once and has no public way to read it again (2.60).
        read_again = ray._raylet.Config.initialize
    except AttributeError as error:
        raise ConfigError(
            f"Ray {ray.__version__} cannot be asked whether a cluster wants a token: it has no "
            f"`ray._raylet.Config.initialize`, as ray 2.60 has. Set {_AUTH_MODE}=token where the cluster was started "
            f"with a token, or {_AUTH_MODE}=disabled where it was not."
        ) from error
    os.environ[_AUTH_MODE] = mode
    read_again("")


def _check_port(address: str) -> None:
    """Refuse an address where nothing listens; Ray would go on trying for a quarter of an hour (ray 2.60)."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdecimal():
        raise ValueError("an address is written as host:port, or `auto` for a cluster on this machine")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_PORT_S).close()


@contextlib.contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Keep what SIGTERM does: Ray makes it end the process, at once or by an abort 3 s later (ray 2.60).

    Only the main thread can: where Ray starts in another one, `interrupt.take_signals_back` puts it right afterwards.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _deaf_to_hangups() -> Iterator[None]:
    """Let Ray's processes not end with the terminal: this one hears of it, and the trials save first.

    Ray keeps Ctrl-C from them in the same way, and no other signal of a terminal (2.60).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _few_attempts(n_attempts: int) -> Iterator[None]:
    """Let Ray give up soon; by default it tries 20 times, 40 s each where something else listens (ray 2.60)."""
    name = "RAY_gcs_server_port_wait_time_s"  # in attempts, where a cluster is joined
    before = os.environ.get(name)
    os.environ.setdefault(name, str(n_attempts))
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
