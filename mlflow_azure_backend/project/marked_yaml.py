"""YAML with its lines, read within limits, with notes on what should be mended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from mlflow_azure_backend.errors import ProjectError

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE_BYTES: Final = 1 << 20
"""Bytes that an MLproject may have."""
_MAX_DEPTH: Final = 50
_TOO_MUCH: Final = "nested too deeply or too large"
_MAX_WEIGHT: Final = 2_000_000  # characters after the expansion of aliases
_NODE_WEIGHT: Final = 64  # characters that a node counts for
_Loader: Final[type[Any]] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Note:
    """A mistake that MLflow accepts in silence; the fields are those of ``BackendError``."""

    what: str
    where: str | None = None
    next_step: str | None = None

    def __str__(self) -> str:
        return str(ProjectError(self.what, where=self.where, next_step=self.next_step))


@dataclass(frozen=True, slots=True)
class YamlField:
    """The value of a key, and the key's line, from 1."""

    node: yaml.Node
    line: int


class YamlDocument:
    """One YAML file: its nodes, their lines, and the notes taken while it is read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._mappings: dict[int, dict[str, YamlField]] = {}
        self.notes: list[Note] = []
        text = self._read_text()
        try:
            _check_weight(text)
            self._loader = _Loader(text)
            self.root: yaml.Node | None = self._loader.get_single_node()
        except yaml.YAMLError as error:
            raise self._no_yaml(error, text) from None

    def where(self, line: int | None) -> str:
        """The file's name, with the line if there is one."""
        return self._file.name if line is None else f"{self._file.name}:{line}"

    def error(self, what: str, line: int | None, next_step: str | None = None) -> ProjectError:
        """An error at a line of this file, to be raised."""
        return ProjectError(what, where=self.where(line), next_step=next_step)

    def note(self, what: str, line: int | None, next_step: str | None = None) -> None:
        """Take a note at a line of this file."""
        self.notes.append(Note(what, self.where(line), next_step))

    def mapping(self, node: yaml.Node | None, what: str) -> dict[str, YamlField]:
        """The fields of a mapping by the text of their keys, merge keys resolved; null is an empty mapping."""
        if node is None or is_null(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise self.error(f"{what} must be a mapping (key: value)", _line(node))
        if id(node) not in self._mappings:
            self._mappings[id(node)] = self._read_mapping(node, what)
        return self._mappings[id(node)]

    def _read_mapping(self, node: yaml.MappingNode, what: str) -> dict[str, YamlField]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.error(f"{what} has a key that is no text", _line(key), "quote text that starts with { or [")
            if key.value in first and key.value != "<<":
                self.note(f"the key '{key.value}' stands here again: line {first[key.value]} is ignored", _line(key))
            first.setdefault(key.value, _line(key))
        try:
            self._loader.flatten_mapping(node)
        except yaml.YAMLError as error:
            raise self._no_yaml(error, "") from None
        return {
            key.value: YamlField(value, _line(key)) for key, value in node.value if isinstance(key, yaml.ScalarNode)
        }

    def value(self, node: yaml.Node) -> Any:
        """The Python value that MLflow sees."""
        try:
            return self._loader.construct_object(node, deep=True)
        except yaml.YAMLError as error:
            raise self._no_yaml(error, "") from None
        except (ValueError, OverflowError, TypeError) as error:  # 2021-99-99 is a date to YAML
            raise self.error(f"a value cannot be read: {error}", _line(node), "put it in quotes") from None

    def text(self, node: yaml.Node) -> str | None:
        """The text that MLflow makes of a value; None for null."""
        value = self.value(node)
        try:
            return None if value is None else str(value)
        except ValueError as error:  # an integer of more than 4,300 digits
            raise self.error(f"a value cannot be read: {error}", _line(node), "put it in quotes") from None

    def _read_text(self) -> str:
        try:
            with self._file.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror}", None) from error
        if len(data) > MAX_FILE_BYTES:
            raise self.error(f"is larger than {MAX_FILE_BYTES >> 20} MB", None, "keep data in files of their own")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise self.error("is not UTF-8", line, "save it with the encoding UTF-8") from None

    def _no_yaml(self, error: yaml.YAMLError, text: str) -> ProjectError:
        step = "put text that holds ': ' or '#', or starts with '{', in quotes"
        line = None
        what = str(error)
        if isinstance(error, yaml.MarkedYAMLError):
            mark = error.problem_mark or error.context_mark
            line = None if mark is None else mark.line + 1
            what = error.problem or error.context or what
            if "nesting depth" in what:  # newer libyaml's own limit, met by its scanner before there are events
                return self.error(f"is no valid YAML: {_TOO_MUCH}", line)
        elif isinstance(error, _TooHeavy):
            line = error.line
        elif isinstance(error, yaml.reader.ReaderError):
            line = text.encode().count(b"\n", 0, error.position) + 1
            code = (
                error.character if isinstance(error.character, int) else ord(error.character)
            )  # libyaml gives the number
            what = f"a character that YAML does not allow: {chr(code)!r}"
        if "'\\t'" in what or "tab character" in what:
            step = "indent with spaces, not with tabs"
        return self.error(f"is no valid YAML: {what}", line, step)


def _check_weight(text: str) -> None:
    """Refuse what takes too much room or depth once its aliases are expanded.

    The events are looked at, before there are nodes: libyaml's composer overflows the stack on deep nesting.
    """
    weight = 0
    opened: list[_Opened] = []
    anchors: dict[str | None, tuple[int, int] | None] = {}  # weight and height; None while the node is still open
    for event in yaml.parse(text, Loader=_Loader):
        height = 0
        if isinstance(event, yaml.CollectionStartEvent):
            weight += _NODE_WEIGHT
            opened.append(_Opened(event.anchor, weight))
            anchors[event.anchor] = None
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = opened.pop()
            height = closed.height + 1
            anchors[closed.anchor] = weight - closed.weight, height
        elif isinstance(event, yaml.ScalarEvent):
            weight += _NODE_WEIGHT + len(event.value)
            anchors[event.anchor] = _NODE_WEIGHT + len(event.value), 0
        elif isinstance(event, yaml.AliasEvent):
            known = anchors.get(event.anchor, (0, 0))
            if known is None:
                raise _TooHeavy(f"&{event.anchor} holds itself", event)
            weight, height = weight + known[0], known[1]
        if opened:
            opened[-1].height = max(opened[-1].height, height)
        if weight > _MAX_WEIGHT or len(opened) + height > _MAX_DEPTH:
            raise _TooHeavy(_TOO_MUCH, event)


class _TooHeavy(yaml.YAMLError):
    def __init__(self, problem: str, event: yaml.Event) -> None:
        super().__init__(problem)
        self.line = None if event.start_mark is None else event.start_mark.line + 1


@dataclass(slots=True)
class _Opened:
    """A collection whose end is still to come."""

    anchor: str | None
    weight: int
    height: int = 0


def is_null(node: yaml.Node) -> bool:
    """True for null, written or left out."""
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def is_text(node: yaml.Node) -> bool:
    """True for what YAML reads as a string."""
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str"


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line + 1
