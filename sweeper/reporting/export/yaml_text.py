"""YAML that every reader understands alike. Pure.

The other tools read with PyYAML, which follows YAML 1.1: `1e-05` is a text to it and `no` is false.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_NOT_A_TEXT = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}  # to YAML 1.1, in any case


def yaml_text(content: Mapping[str, Any]) -> str:
    """Return a mapping as YAML, one key a line, lists of plain values on one line.

    >>> print(yaml_text({"rate": 1e-05, "save": "no", "files": ["a b"], "data": [{"path": "x"}]}), end="")
    rate: 1.0e-05
    save: "no"
    files: ["a b"]
    data:
      - path: x
    """
    return "".join(f"{line}\n" for line in _mapping_lines(content))


def scalar(value: Any) -> str:
    """Return one value as a YAML scalar."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, str):
        is_plain = _PLAIN.fullmatch(value) and value.lower() not in _NOT_A_TEXT
        return value if is_plain else json.dumps(value, ensure_ascii=False)
    return str(value)


def _float(value: float) -> str:
    mantissa, e, exponent = repr(value).partition("e")
    return repr(value) if not e or "." in mantissa else f"{mantissa}.0e{exponent}"


def _mapping_lines(content: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, value in content.items():
        name = scalar(key)
        if isinstance(value, Mapping) and value:
            lines += [f"{name}:", *(f"  {line}" for line in _mapping_lines(value))]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines.append(f"{name}:")
            for item in value:
                first, *rest = _mapping_lines(item)
                lines += [f"  - {first}", *(f"    {line}" for line in rest)]
        elif isinstance(value, Mapping):
            lines.append(f"{name}: {{}}")
        elif isinstance(value, list):
            lines.append(f"{name}: [{', '.join(scalar(item) for item in value)}]")
        else:
            lines.append(f"{name}: {scalar(value)}")
    return lines
