"""How many weights a model has, by the headers of its files; none of them is loaded."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

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
    """Return what a model directory's safetensors files say; None where there are none."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(path.glob("model*.safetensors")) if path.is_dir() else []:
        with open(file, "rb") as content:
            header = json.loads(content.read(int.from_bytes(content.read(8), "little")))
        shapes |= {name: tuple(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}
    return count_weights(shapes) if shapes else None
