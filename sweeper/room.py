"""How many trials a cluster's nodes hold at a time, and what is missing where they hold none. Pure."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

_ROUNDING = 1e-9  # of sums of fractions of a GPU


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """One machine of a cluster, with all that it has, whoever uses it now."""

    name: str
    resources: Mapping[str, float]  # Ray's names: "CPU", "GPU", "accelerator_type:A100", …

    def holds(self, share: Mapping[str, float]) -> int:
        """Return how many workers fit, each with a share.

        >>> Node(name="a", resources={"CPU": 8, "GPU": 2}).holds({"CPU": 1, "GPU": 0.4})
        4
        """
        return min(
            (_times(self.resources.get(name, 0.0), name, amount) for name, amount in _needed(share)),
            default=0,
        )

    def lacks(self, share: Mapping[str, float]) -> list[str]:
        """Return the resources of which there is not enough for one worker."""
        return [
            name
            for name, amount in _needed(share)
            if _times(self.resources.get(name, 0.0), name, amount) == 0
        ]


def room_for(nodes: Sequence[Node], share: Mapping[str, float], n_workers: int) -> int:
    """Return how many trials fit at a time; a trial's workers may lie on several nodes, one worker may not.

    >>> room_for([Node(name="a", resources={"CPU": 3}), Node(name="b", resources={"CPU": 1})], {"CPU": 2}, 1)
    1
    """
    return sum(node.holds(share) for node in nodes) // n_workers


def missing(nodes: Sequence[Node], share: Mapping[str, float], n_workers: int) -> str:
    """Say why not even one trial fits: what it needs, and what each node has of it."""
    fitting = sum(node.holds(share) for node in nodes)
    each = "; ".join(_node_in_words(node, share) for node in nodes)
    return f"It needs {workers_in_words(share, n_workers)}, and there is room for {fitting}. The nodes have: {each}."


def trials_in_words(number: int) -> str:
    """Return for example "1 trial" or "2 trials"."""
    return f"{number} trial{'' if number == 1 else 's'}"


def workers_in_words(share: Mapping[str, float], n_workers: int) -> str:
    """Return for example "2 workers with 1 CPU and 1 GPU each"."""
    amounts = [f"{amount:g} {name}" for name, amount in _needed(share)]
    text = " and ".join([", ".join(amounts[:-1]), amounts[-1]] if len(amounts) > 1 else amounts)
    return f"{n_workers} workers with {text} each" if n_workers > 1 else text


def _node_in_words(node: Node, share: Mapping[str, float]) -> str:
    has = ", ".join(f"{node.resources.get(name, 0.0):g} {name}" for name, _ in _needed(share))
    lacks = node.lacks(share)
    return f"{node.name} {has}" + (f" (too little {' and '.join(lacks)})" if lacks else "")


def _needed(share: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(name, amount) for name, amount in share.items() if amount > 0]


def _times(has: float, name: str, amount: float) -> int:
    if name == "GPU" and amount < 1:  # a fraction is taken of one GPU, never of two
        return int(has + _ROUNDING) * math.floor(1 / amount + _ROUNDING)
    return math.floor(has / amount + _ROUNDING)
