"""A config as YAML that reads back to the same config."""

import io
import re
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from sweeper.config.models import SweepConfig
from sweeper.config.names import EARLY_DYNAMICS
from sweeper.config.pruner_models import (
    PRUNER_KEYS_FOREIGN,
    PRUNER_KEYS_LEARNED,
    PRUNER_KEYS_OWN,
    PRUNER_KEYS_RANK,
    PrunerSection,
)

_PLAIN_WORD = re.compile(r"/?[A-Za-z_][A-Za-z0-9_./-]*")


def dump_config(config: SweepConfig) -> str:
    """Return the resolved config as YAML 1.2, paths absolute and defaults written out.

    Reading it back gives an equal config. What is not set is left out; `null` inside settings stays.
    """
    writer = YAML(typ="safe", pure=True)
    writer.Representer = _Representer
    writer.default_flow_style = None
    writer.width = 10_000
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    writer.allow_unicode = False
    text = io.StringIO()
    writer.dump(config_to_dict(config), text)
    return text.getvalue()


class _Representer(SafeRepresenter):
    """Quotes every text that is no plain word.

    ruamel.yaml 0.19.1 writes some texts so that they cannot be read back, such as a key that starts with a
    colon.
    """

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal lists out: a file without anchors is easier to read."""
        return True


def _represent_text(representer: SafeRepresenter, text: str) -> ScalarNode:
    style = None if _PLAIN_WORD.fullmatch(text) else '"'
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Representer.add_representer(str, _represent_text)


def config_to_dict(config: BaseModel) -> dict[str, Any]:
    """Return the config, or one section of it, as plain data in the order of its keys."""
    return dict(_plain(config))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = {
            name: getattr(value, name) for name in type(value).model_fields if name not in _unused(value)
        }
        return {name: _plain(item) for name, item in fields.items() if item is not None}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _unused(section: BaseModel) -> tuple[str, ...]:
    """Return the keys that mean nothing in this section and would be refused when read back."""
    if isinstance(section, PrunerSection):
        if section.name != EARLY_DYNAMICS:
            return PRUNER_KEYS_OWN
        other = PRUNER_KEYS_RANK if section.directions == "learned" else PRUNER_KEYS_LEARNED
        return (*PRUNER_KEYS_FOREIGN, *other)
    return ()
