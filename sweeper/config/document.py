"""YAML 1.2 text to plain data, with the place of every key.

Data only: no tags, no objects, no duplicate keys. Anchors and merge keys are expanded, within a bound.
"""

import dataclasses
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from sweeper.errors import ConfigError, Problem, first_line

KeyPath = tuple[str | int, ...]

MAX_VALUES = 100_000  # after aliases are expanded; the largest sensible sweep file has a few thousand
_MAX_NUMBER = 10**300  # of whole ones; further on, floats end
_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = {_TAG + name for name in ("str", "timestamp", "merge", "value")}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a value was written: a file with its line, or an override."""

    file: str | None = None
    line: int | None = None


@dataclasses.dataclass(kw_only=True)
class Document:
    """A config as plain data, and where each part of it was written."""

    data: Any
    places: dict[KeyPath, Place] = dataclasses.field(default_factory=dict)
    file: str | None = None

    def place(self, path: KeyPath) -> Place:
        """Return the place of the innermost part of `path` that was written somewhere."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return Place(self.file, None if self.file is None else 1)

    def problem(self, message: str, path: KeyPath = ()) -> Problem:
        place = self.place(path)
        return Problem(message, place.file, place.line)

    def get(self, path: KeyPath, default: Any = None) -> Any:
        """Return the value at `path`, or `default` where there is none."""
        value = self.data
        for key in path:
            if not has_item(value, key):
                return default
            value = value[key]
        return value

    def remove(self, path: KeyPath) -> None:
        """Remove a mapping's key with all below it; nothing happens where there is none."""
        parent = self.get(path[:-1])
        if isinstance(parent, dict) and path[-1] in parent:
            del parent[path[-1]]
            self.places = {key: place for key, place in self.places.items() if key[: len(path)] != path}

    def graft(self, path: KeyPath, value: Any, places: dict[KeyPath, Place]) -> None:
        """Put a value read elsewhere at `path`, whose parent exists; `places` are relative to the value."""
        self.places = {key: place for key, place in self.places.items() if key[: len(path)] != path}
        self.get(path[:-1])[path[-1]] = value  # a key that was there keeps its place among the others
        self.places.update({path + below: place for below, place in places.items()})


def has_item(holder: Any, key: str | int) -> bool:
    """Whether a mapping has the key, or a list the index."""
    if isinstance(holder, list):
        return isinstance(key, int) and 0 <= key < len(holder)
    return isinstance(holder, dict) and key in holder


def parse_document(text: str, *, file: str) -> Document:
    """Read YAML 1.2 text.

    Raises:
        ConfigError: If it is no YAML, holds tags, repeated keys or keys that are no text, or is too large.
    """
    document = _read(text, Place(file), count_lines=True)
    document.file = file
    return document


def parse_value(text: str, *, label: str) -> Document:
    """Read one value as YAML 1.2, as it stands in an override; its places are the override itself."""
    return _read(text, Place(label), count_lines=False)


def _read(text: str, origin: Place, *, count_lines: bool) -> Document:
    builder = _Builder(origin, count_lines=count_lines)
    data = builder.build(_compose(text, builder), ())
    if builder.problems:
        raise ConfigError(builder.problems)
    return Document(data=data, places=builder.places)


def _compose(text: str, builder: "_Builder") -> Node | None:
    directive = re.search(r"^%YAML\s+(?!1\.2\b)(\S+)", text, flags=re.MULTILINE)
    if directive:
        line = text.count("\n", 0, directive.start())
        raise ConfigError(
            builder.problem(
                f"The file asks for YAML {directive[1]}; only YAML 1.2 is read. Remove the line.", line
            )
        )
    try:
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        message = f"The YAML cannot be read: {what}. Correct the text at this place."
        raise ConfigError(builder.problem(message, mark.line if mark else None)) from error
    except ReaderError as error:
        line = text.count("\n", 0, text.find(chr(error.character)))
        message = (
            f"The YAML cannot be read: it holds the control character U+{error.character:04X}. Remove it."
        )
        raise ConfigError(builder.problem(message, line)) from error
    except YAMLError as error:
        reason = first_line(error)
        raise ConfigError(builder.problem(f"The YAML cannot be read: {reason}.", None)) from error
    except RecursionError as error:
        raise ConfigError(builder.problem("The YAML is nested too deeply. Flatten it.", None)) from error
    return node


class _Builder:
    """Turns nodes into plain data. One per text."""

    def __init__(self, origin: Place, *, count_lines: bool) -> None:
        self.problems: list[Problem] = []
        self.places: dict[KeyPath, Place] = {}
        self._origin = origin
        self._count_lines = count_lines
        self._n_values = 0
        self._open: set[int] = set()  # nodes that are being built; one inside itself has no end

    def problem(self, message: str, line: int | None) -> Problem:
        return Problem(message, *dataclasses.astuple(self._place(line)))

    def build(self, node: Node | None, path: KeyPath) -> Any:
        if node is None:
            return None
        self._count(node)
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise ConfigError(
                self.problem("An alias stands inside its own anchor. Write the value out.", _line(node))
            )
        self._open.add(id(node))
        try:
            if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
                return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
            if isinstance(node, MappingNode) and node.tag == _TAG + "map":
                return self._mapping(node, path)
        finally:
            self._open.discard(id(node))
        return self._bad_tag(node)

    def _item(self, node: Node, path: KeyPath) -> Any:
        self.places[path] = self._place(_line(node))
        return self.build(node, path)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in self._pairs(node):
            key = self._text(key_node)
            self.places[(*path, key)] = self._place(_line(key_node))
            result[key] = self.build(value_node, (*path, key))
        return result

    def _pairs(self, node: MappingNode) -> list[tuple[Node, Node]]:
        """Return a mapping's own entries after those of its merge keys, which they replace."""
        own: dict[str, tuple[Node, Node]] = {}
        merged: dict[str, tuple[Node, Node]] = {}
        for key_node, value_node in node.value:
            self._count(key_node)
            if key_node.tag == _TAG + "merge":
                for pair in self._merged_pairs(value_node):
                    merged.setdefault(pair[0].value, pair)
            elif not isinstance(key_node, ScalarNode) or key_node.tag not in _TEXT_TAGS:
                shown = key_node.value if isinstance(key_node, ScalarNode) else "a list or mapping"
                message = f"A key must be text, but got {shown or 'nothing'}. Put the key in quotes."
                self.problems.append(self.problem(message, _line(key_node)))
            elif key_node.value in own:
                where = f", first in line {_line(own[key_node.value][0]) + 1}" if self._count_lines else ""
                message = (
                    f"The key `{key_node.value}` stands twice in one mapping{where}. Remove one of the two."
                )
                self.problems.append(self.problem(message, _line(key_node)))
            else:
                own[key_node.value] = (key_node, value_node)
        return [pair for key, pair in merged.items() if key not in own] + list(own.values())

    def _merged_pairs(self, node: Node) -> list[tuple[Node, Node]]:
        sources = node.value if isinstance(node, SequenceNode) else [node]
        pairs: list[tuple[Node, Node]] = []
        for source in sources:
            self._count(source)
            if not isinstance(source, MappingNode) or id(source) in self._open:
                message = "A merge key `<<` must name other mappings. Write the keys out instead."
                self.problems.append(self.problem(message, _line(source)))
                continue
            self._open.add(id(source))
            pairs.extend(self._pairs(source))
            self._open.discard(id(source))
        return pairs

    def _scalar(self, node: ScalarNode) -> Any:
        text = node.value
        try:
            if node.tag in _TEXT_TAGS:
                return self._text(node)
            if node.tag == _TAG + "null":
                return None
            if node.tag == _TAG + "bool":
                return {"true": True, "false": False}[text.lower()]
            if node.tag == _TAG + "int":
                return _int(text)
            if node.tag == _TAG + "float":
                return _float(text)
        except (ValueError, KeyError):
            shown = text if len(text) <= 40 else text[:40] + "…"
            kind = str(node.tag).removeprefix(_TAG)
            message = f"`{shown}` cannot be read as {kind}. Correct it, or put it in quotes to make it text."
            self.problems.append(self.problem(message, _line(node)))
            return None
        return self._bad_tag(node)

    def _text(self, node: Node) -> str:
        text = str(node.value)
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            shown = text.encode("ascii", "backslashreplace").decode()
            message = (
                f"The text `{shown}` holds half a character, a surrogate without its pair, which no file can hold. "
                "Write the character itself."
            )
            self.problems.append(self.problem(message, _line(node)))
        return text

    def _bad_tag(self, node: Node) -> None:
        tag = str(node.tag).replace(_TAG, "!!")
        message = f"The tag `{tag}` is not allowed: a sweep file holds plain data only. Remove the tag."
        self.problems.append(self.problem(message, _line(node)))

    def _count(self, node: Node) -> None:
        self._n_values += 1
        if self._n_values > MAX_VALUES:
            message = (
                f"The YAML holds more than {MAX_VALUES:,} values once its aliases are expanded. Write a "
                "smaller file, with fewer aliases inside aliases."
            )
            raise ConfigError(self.problem(message, _line(node)))

    def _place(self, line: int | None) -> Place:
        if line is None or not self._count_lines:
            return self._origin
        return Place(self._origin.file, line + 1)


def _line(node: Node) -> int:
    return int(node.start_mark.line)


def _int(text: str) -> int:
    digits = text.replace("_", "").lower()
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    base = {"0x": 16, "0o": 8, "0b": 2}.get(digits[:2], 10)  # YAML 1.2: 012 is twelve
    number = int(digits, base)
    if number >= _MAX_NUMBER:
        raise ValueError("more than a number of a file can be")
    return sign * number


def _float(text: str) -> float:
    number = text.replace("_", "").lower()
    return float({".nan": "nan", ".inf": "inf", "+.inf": "inf", "-.inf": "-inf"}.get(number, number))
