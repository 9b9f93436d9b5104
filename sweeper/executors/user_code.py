"""The user's own code on its way to the nodes of a cluster: which directory, what of it, and where it arrives.

Ray carries it as a part of the job's runtime environment. What is no code stays: studies, checkpoints, data,
keys and what holds a password.
"""

import dataclasses
import filecmp
import functools
import logging
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cloudpickle

from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError, SweeperError
from sweeper.looking import is_directory, is_file
from sweeper.model_files import ADAPTERS, SAFETENSORS, SAFETENSORS_INDEX
from sweeper.storage_url import holds_password
from sweeper.study import layout
from sweeper.training.functions import load_function, put_first

logger = logging.getLogger(__name__)

PACKAGE = "sweeper_trial_code"  # the directory's name wherever it arrives
_MAX_FILE_BYTES = 1 << 20
_MAX_BYTES = 20 << 20
_MAX_FILES = 2000
_RAYS_OWN = (".gitignore", ".rayignore")  # Ray leaves out what they name
_DATA_SUFFIXES = frozenset({
    ".arrow", ".bin", ".bz2", ".ckpt", ".csv", ".db", ".gguf", ".gz", ".h5", ".journal", ".jsonl", ".log", ".npy",
    ".npz", ".parquet", ".pkl", ".pt", ".pth", ".pyc", ".safetensors", ".sqlite", ".sqlite3", ".tar", ".tgz", ".tsv",
    ".whl", ".xz", ".zip", ".zst",
})  # fmt: skip
_KEY_SUFFIXES = frozenset({".key", ".p12", ".pem", ".pfx"})
_OTHER_DIRECTORIES = frozenset({"__pycache__", "node_modules", "studies", "wandb", "mlruns"})
# A directory that holds one of these: a study, a virtual environment, a model.
_MARKS = (layout.MARKER, "pyvenv.cfg", SAFETENSORS, SAFETENSORS_INDEX, ADAPTERS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserCode:
    """Where the code of a sweep's own trial function lies."""

    directory: Path
    leave_out: tuple[Path, ...] = ()  # what the config names as model and data

    def pack(self, scratch: Path) -> Path:
        """Copy what travels into a directory under `scratch`; return that.

        Raises:
            ConfigError: If it is too much for code.
        """
        place = scratch / PACKAGE
        place.mkdir()
        n_files = n_bytes = 0
        for path in self._files():
            n_files, n_bytes = n_files + 1, n_bytes + path.stat().st_size
            if n_files > _MAX_FILES or n_bytes > _MAX_BYTES:
                raise ConfigError(
                    f"The trial function's code is to travel to the nodes, but {self.directory} holds more than "
                    f"{_MAX_FILES:,} files or {_MAX_BYTES >> 20} MiB beside data, models and studies. Put the module "
                    "into a directory of its own; where the sweep file names the function, `trial.function_dir` names "
                    "the directory."
                )
            copy = place / path.relative_to(self.directory)
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                content = path.read_bytes()
                if holds_password(content.decode(errors="replace")):
                    logger.warning(
                        "%s holds the storage's password, so it does not travel to the nodes.", path
                    )
                    continue
                copy.write_bytes(content)
                # Ray unpacks it with this mode: what is this user's alone stays so on the nodes.
                copy.chmod(0o600 | path.stat().st_mode & 0o100)
            except OSError as error:
                raise _untravelled(path, error) from error
        return place

    def _files(self) -> Iterator[Path]:
        """Yield what travels: nothing hidden, no data, no keys, nothing large, nothing of another kind of directory."""
        for folder, inner, names in os.walk(self.directory, onerror=_unless_closed):
            here = Path(folder)
            inner[:] = sorted(name for name in inner if self._is_code(here / name))
            yield from (here / name for name in sorted(names) if self._travels(here / name))

    def _travels(self, path: Path) -> bool:
        if path.name.startswith(".") and path.name not in _RAYS_OWN:
            return False
        if path.suffix.lower() in _DATA_SUFFIXES | _KEY_SUFFIXES or path in self.leave_out:
            return False
        if path.name.lower().startswith("credentials") and path.suffix != ".py":
            return False
        return is_file(path) and path.stat().st_size <= _MAX_FILE_BYTES

    def _is_code(self, directory: Path) -> bool:
        name = directory.name
        if name.startswith(".") or name in _OTHER_DIRECTORIES or name.endswith(".egg-info"):
            return False
        return directory not in self.leave_out and not any((directory / mark).exists() for mark in _MARKS)


def _unless_closed(error: OSError) -> None:
    """Refuse to leave out what cannot be listed, but for what this user may not list.

    Raises:
        ConfigError: If so.
    """
    if not isinstance(error, PermissionError):
        raise _untravelled(error.filename, error) from error


def _untravelled(path: Path | str, error: OSError) -> ConfigError:
    return ConfigError(
        f"The trial function's code is to travel to the nodes, but {path} cannot be read: {error.strerror}. Make it "
        "readable, or move it elsewhere."
    )


def code_of(config: SweepConfig, function: Callable[..., Any] | None = None) -> UserCode | None:
    """Return where the code of a sweep's trials lies; None where they run nothing but what is installed.

    Args:
        config: The sweep.
        function: Run instead of what the config names.
    """
    trial = config.trial
    directory = _home_of(function) if function is not None else _place_of(trial.function, trial.function_dir)
    if directory is None:
        return None
    sources = [*trial.sources, *trial.eval_data.values()]
    named = [trial.model, *(source.path for source in sources)]
    stays = tuple(Path(path) for path in named if path is not None and path.startswith("/"))
    return UserCode(directory=directory.absolute(), leave_out=stays)


def _place_of(name: str | None, directory: str | None) -> Path | None:
    """Return which of the directories where `module:function` is looked for has the module."""
    top = (name or "").partition(":")[0].partition(".")[0]
    places = [Path(directory)] if directory is not None else []
    for place in (*places, Path.cwd()):
        if top and (is_file(place / f"{top}.py") or is_directory(place / top)):
            return place
    return None


def _home_of(function: Callable[..., Any]) -> Path | None:
    """Return the directory from which a function's module was imported; None where it is installed, or has no file."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__module__", None) or type(function).__module__
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or name.partition(".")[0] == "sweeper":
        return None
    path = Path(file).absolute()
    n_up = name.count(".") + (path.name == "__init__.py")
    home = path.parents[n_up]
    installed = {Path(sysconfig.get_path(key)) for key in ("stdlib", "purelib", "platlib")}
    return None if any(home.is_relative_to(place) for place in installed) else home


def arrived(homes: Sequence[str] = ()) -> Path | None:
    """Return where the code lies that was sent to this process; None where none was.

    Args:
        homes: Where it may lie for the driver. The first of them that holds the same files here too is returned
            instead: what else lies beside them, such as data, is then there as well.
    """
    sent = next((Path(entry) / PACKAGE for entry in sys.path if (Path(entry) / PACKAGE).is_dir()), None)
    if sent is None:
        return None
    return next((Path(home) for home in homes if _is_same(sent, Path(home))), sent)


@functools.cache
def _is_same(sent: Path, directory: Path) -> bool:
    """Whether all that was sent lies in a directory too."""
    files = [path.relative_to(sent) for path in sent.rglob("*") if path.is_file()]
    try:
        return all(filecmp.cmp(sent / file, directory / file, shallow=False) for file in files)
    except OSError:
        return False


def prepare_imports(paths: Sequence[str]) -> None:
    """Let this process find what the driver finds, and what was sent before all else.

    Args:
        paths: The driver's module search path.
    """
    sent = arrived(paths)
    sys.path.extend(path for path in paths if path not in sys.path)
    if sent is not None:
        put_first(sent)  # it is what the driver has; a node may have an older one


def driver_paths() -> list[str]:
    """Return this process's module search path, as far as it can be sent; Ray hands on only a part of it."""
    return [path for path in sys.path if os.path.isdir(path)]


def import_error(
    name: str | None, directory: str | None, pickled: bytes | None, paths: Sequence[str]
) -> str | None:
    """Import a trial function as a worker of this node would; return what went wrong, or None.

    Args:
        name: `module:function`; None: there is none to import.
        directory: Where its module lies for the driver.
        pickled: A function by cloudpickle, instead.
        paths: The driver's module search path.
    """
    prepare_imports(paths)
    homes = [directory] if directory else []
    try:
        if pickled is not None:
            cloudpickle.loads(pickled)
        elif name is not None:
            load_function(name, directory=arrived(homes) or (Path(directory) if directory else None))
    except SweeperError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever a user's module raises is what the node has to say
        return f"the trial function cannot be loaded: {type(error).__name__}: {error}"
    return None
