"""The tokenizer of a trial, kept in the process between trials."""

from pathlib import Path
from typing import Any

import transformers

from sweeper.config.trial_models import TrialSection
from sweeper.errors import ConfigError, first_line
from sweeper.looking import is_file, is_there

_tokenizers: dict[tuple[Any, ...], Any] = {}


def load_tokenizer(trial: TrialSection) -> Any:
    """Return the trial's tokenizer, with a pad token and the sweep's chat template if it names one.

    Raises:
        ConfigError: If it cannot be loaded.
    """
    template = trial.chat_template
    stamp = Path(template).stat().st_mtime_ns if template and is_there(Path(template)) else None
    key = (trial.model, trial.revision, trial.trust_remote_code, template, stamp)
    if key not in _tokenizers:
        _tokenizers[key] = _read_tokenizer(trial)
    return _tokenizers[key]


def _read_tokenizer(trial: TrialSection) -> Any:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            trial.model, revision=trial.revision, trust_remote_code=trial.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"The tokenizer of `{trial.model}` could not be loaded: {first_line(error)} Correct "
            "`trial.model`."
        ) from error
    if trial.chat_template:
        path = Path(trial.chat_template)
        if not is_file(path):
            raise ConfigError(f"The chat template `{path}` does not exist. Correct `trial.chat_template`.")
        try:
            tokenizer.chat_template = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"The chat template `{path}` is no readable UTF-8 text: {error}. Save it as UTF-8, or correct "
                "`trial.chat_template`."
            ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ConfigError(
            f"The tokenizer of `{trial.model}` has neither a pad nor an end token. Give it one."
        )
    return tokenizer
