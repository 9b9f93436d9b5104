"""What a driver records before it starts trials: its machine, the user's code, and hashes of what the trials read."""

import fnmatch
import functools
import hashlib
import logging
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import DataSource, TrialSection
from sweeper.errors import ConfigError
from sweeper.looking import files_below, is_directory, is_file, names_in, patiently
from sweeper.study.clock import utc_now
from sweeper.study.machine import machine_facts
from sweeper.training.data_identity import named_sources
from sweeper.training.sources import is_local, local_files

logger = logging.getLogger(__name__)

WHOLE_BYTES = 64 << 20  # larger files are sampled: to read a 14 GB model takes longer than many a trial
_SLICES, _SLICE_BYTES = 32, 1 << 20
_TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
)
_GIT_WAIT_S = 10.0


def capture_environment(config: SweepConfig) -> dict[str, Any]:
    """Return one session's record, JSON-able."""
    return {
        "at": utc_now(),
        "machine": machine_facts(),
        "code": code_state(Path(config.trial.function_dir or Path.cwd())),
        "inputs": input_hashes(config),
    }


def code_state(directory: Path) -> dict[str, Any] | None:
    """Return the commit of the git repository that a directory lies in, and a hash of what differs from it.

    None where it lies in none.
    """
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = (_git(directory, "diff", "HEAD") or "") + (_git(directory, "status", "--porcelain") or "")
    root = _git(directory, "rev-parse", "--show-toplevel") or ""
    return {
        "repository": root.strip(),
        "commit": commit.strip(),
        "changes": hashlib.sha256(changes.encode()).hexdigest()[:16] if changes else None,
    }


def input_hashes(config: SweepConfig) -> dict[str, str | None]:
    """Return a hash each of model, tokenizer, chat template and data, as far as there are any.

    Where models are swept, each one's are named by it: `model[org/a]`. Files of more than 64 MB are sampled: their size
    and 32 slices. Of what lies on the hub, the commit that is cached.
    """
    trial = config.trial
    swept = config.search_space.get("model") if trial.function is None else None
    names = [name for name in (swept.listed or []) if name is not None] if swept is not None else []
    found = _model_hashes(trial)
    for name in names:
        of_one = _model_hashes(trial.with_model(name))
        found |= {f"{what}[{name}]": hashed for what, hashed in of_one.items()}
    if trial.chat_template is not None:
        found["chat_template"] = _template_hash(trial)
    for place, source in named_sources(trial).items():
        found[place] = _data_hash(source)
    return found


def input_hash(trial: TrialSection, place: str) -> str | None:
    """Return the hash of what one place in the `trial` section names, as `input_hashes` has it."""
    if place == "model":
        return _model_hashes(trial)["model"]
    if place == "chat_template":
        return _template_hash(trial)
    return _data_hash(named_sources(trial)[place])


def _model_hashes(trial: TrialSection) -> dict[str, str | None]:
    """Return a hash each of a model, its tokenizer, and its chat template where no other one replaces it."""
    if trial.model is None:
        return {}
    path = Path(trial.model)
    found = patiently(path, functools.partial(_directory_hashes, path, trial))
    return found or {"model": _hub_commit(trial.model, trial.revision, "config.json", "model")}


def _directory_hashes(path: Path, trial: TrialSection) -> dict[str, str | None]:
    """Return the hashes of a model's directory; none where there is no such directory."""
    if not is_directory(path):
        return {}
    names = names_in(path)
    of_tokenizer = {name for kind in _TOKENIZER_FILES for name in fnmatch.filter(names, kind)}
    found: dict[str, str | None] = {
        "model": _hash(files_below(path, skips_closed=True), path),
        "tokenizer": _hash((path / name for name in of_tokenizer), path),
    }
    template = path / "chat_template.jinja"
    if trial.chat_template is None and is_file(template):
        found["chat_template"] = _hash([template], path)
    return found


def _template_hash(trial: TrialSection) -> str:
    path = Path(trial.chat_template or "")
    return patiently(path, lambda: _hash([path], path.parent))


def _data_hash(source: DataSource) -> str | None:
    if not is_local(source):
        return _hub_commit(source.path, source.revision, "README.md", "dataset")
    path = Path(source.path)
    try:
        return patiently(
            path, lambda: _hash(local_files(source), path if is_directory(path) else path.parent)
        )
    except ConfigError as error:  # preflight has told of it already, unless the trial is a function
        logger.debug("No hash of %s: %s", path, error)
        return None


def _hub_commit(name: str, revision: str | None, file: str, kind: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, file, revision=revision, repo_type=kind)
    return f"commit {Path(cached).parent.name}" if isinstance(cached, str) else revision


def _hash(files: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted({file for file in files if is_file(file)}):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(root)}\n{size}\n".encode())
        with open(file, "rb") as opened:
            if size <= WHOLE_BYTES:
                digest.update(opened.read())
                continue
            for index in range(_SLICES):
                opened.seek(index * (size - _SLICE_BYTES) // (_SLICES - 1))
                digest.update(opened.read(_SLICE_BYTES))
    return digest.hexdigest()[:32]


def _git(directory: Path, *words: str) -> str | None:
    """Return what git says; None where there is no git, no repository, or no commit yet."""
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *words],
            capture_output=True,
            text=True,
            timeout=_GIT_WAIT_S,
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("git could not be asked: %s", error)
        return None
    return done.stdout if done.returncode == 0 else None
