"""A model in memory, ready to be measured. Importing this loads no torch."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from sweeper.errors import SweeperError
from sweeper.items import Items
from sweeper.looking import is_there
from sweeper.model_files import ADAPTERS
from sweeper.study.benchmark_records import Score


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A causal language model on its device, and its tokenizer."""

    model: Any
    tokenizer: Any
    autocast_dtype: Any = None  # torch's type that passes are computed in; None: the weights' own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """One benchmark of one model."""

    score: Score
    items: Items | None  # None where there is no one value per row, as for a perplexity


def load_kept(directory: Path, *, trust_remote_code: bool) -> LoadedModel:
    """Load a kept model, or kept adapters on their base, on the GPU where there is one.

    Raises:
        SweeperError: If it cannot be loaded.
    """
    import torch
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
        model = _read(directory, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        raise SweeperError(f"The model in {directory} cannot be loaded: {error}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    model.eval()
    return LoadedModel(model=model, tokenizer=tokenizer)


def _read(directory: Path, *, trust_remote_code: bool) -> Any:
    import transformers

    described = directory / ADAPTERS
    read = transformers.AutoModelForCausalLM.from_pretrained
    if not is_there(described):
        return read(directory, dtype="auto", trust_remote_code=trust_remote_code)
    # The base by hand: transformers takes its newest revision, whatever the adapters say (5.23).
    adapters = json.loads(described.read_text())
    base = read(
        adapters["base_model_name_or_path"], revision=adapters.get("revision"), dtype="auto",
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    base.load_adapter(str(directory))
    if is_there(directory / "generation_config.json"):  # where its answers were scored to end
        base.generation_config = transformers.GenerationConfig.from_pretrained(directory)
    return base
