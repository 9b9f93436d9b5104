"""The params of a point: values by the names of the search space's dimensions."""

import json
from collections.abc import Mapping
from typing import Any, TypeGuard

SEED = "seed"  # the param that only says which chance, not which point


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a param's value has a place on an axis; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def but_seed(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a point's params without its seed."""
    return {name: value for name, value in params.items() if name != SEED}


def params_key(params: Mapping[str, Any]) -> str:
    """Return text that is equal for equal params; 1 and 1.0 are, 1 and true are not.

    >>> params_key({"x": 1.0, "y": [2.0, 0.5]}), params_key({"x": True})
    ('{"x": 1, "y": [2, 0.5]}', '{"x": true}')
    """
    return json.dumps(_whole(dict(params)), sort_keys=True)


def _whole(value: Any) -> Any:
    """Return a value with whole floats as integers, as far as floats tell integers apart."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list | tuple) else value
