"""How many weights a model has, by the headers of its files; none of them is loaded."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

from sweeper.errors import ConfigError
from sweeper.looking import is_file
from sweeper.model_files import SAFETENSORS, SAFETENSORS_INDEX

_LFS = (
    b"version https://git-lfs"  # how the text begins that stands for a large file in a clone without Git LFS
)
_NO_ADAPTERS = ("embed", "lm_head", "wte", "wpe")  # parts of names that `all-linear` leaves out


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightFacts:
    """What checkpoints and adapters are made of."""

    n_parameters: int
    adapter_width: (
        int  # sum of inputs and outputs of all linear layers: a LoRA of rank r has r times as many weights
    )


def count_weights(shapes: Mapping[str, tuple[int, ...]]) -> WeightFacts:
    """Count the weights of a model whose tensors have these shapes, by name."""
    linear = [
        shape
        for name, shape in shapes.items()
        if len(shape) == 2 and not any(part in name for part in _NO_ADAPTERS)
    ]
    return WeightFacts(
        n_parameters=sum(math.prod(shape) for shape in shapes.values()),
        adapter_width=sum(sum(shape) for shape in linear),
    )


def read_weights(path: Path) -> WeightFacts | None:
    """Return what a model directory's safetensors files say; None where there are none.

    Raises:
        ConfigError: If one of them is not whole.
    """
    shapes = {name: shape for file in _weight_files(path) for name, shape in _shapes_in(file).items()}
    return count_weights(shapes) if shapes else None


def read_index(index: Path) -> list[str]:
    """Return the names of the weight files that an index lists.

    Raises:
        ConfigError: If it is no such index.
    """
    try:
        names = {str(name) for name in json.loads(index.read_bytes())["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(_broken(index, "does not say which weight files there are")) from error
    if not names:
        raise ConfigError(_broken(index, "lists no weight file"))
    return sorted(names)


def refuse_pointer(file: Path) -> None:
    """Refuse a file that stands for one which Git LFS has not brought.

    Raises:
        ConfigError: If so.
    """
    with open(file, "rb") as content:
        is_pointer = content.read(len(_LFS)) == _LFS
    if is_pointer:
        raise ConfigError(
            f"`{file}` is a Git LFS pointer, not the file itself. Run `git lfs pull` in `{file.parent}`, or download "
            "the model again."
        )


def _weight_files(path: Path) -> list[Path]:
    """Return the safetensors files that a model directory is read from."""
    whole, index = path / SAFETENSORS, path / SAFETENSORS_INDEX
    if is_file(whole):
        return [whole]
    names = read_index(index) if is_file(index) else []
    return [path / name for name in names if name.endswith(".safetensors") and is_file(path / name)]


def _shapes_in(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a file's tensors, after a look at whether all of them are there."""
    refuse_pointer(file)
    size = file.stat().st_size
    with open(file, "rb") as content:
        begin = 8 + int.from_bytes(content.read(8), "little")
        if not 8 < begin <= size:
            raise ConfigError(_broken(file, f"has {size:,} bytes and no whole header"))
        header = content.read(begin - 8)
    try:
        tensors = {name: one for name, one in json.loads(header).items() if name != "__metadata__"}
        shapes = {name: tuple(int(n) for n in one["shape"]) for name, one in tensors.items()}
        end = begin + max((int(one["data_offsets"][1]) for one in tensors.values()), default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ConfigError(_broken(file, "is no safetensors file")) from error
    if size != end:
        raise ConfigError(_broken(file, f"has {size:,} bytes, but by its header {end:,}"))
    return shapes


def _broken(file: Path, what: str) -> str:
    return f"`{file}` {what}: it was not downloaded whole, or is another kind of file. Download it again."
