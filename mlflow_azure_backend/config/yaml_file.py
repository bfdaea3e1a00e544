"""Read ``mlflow-azure.yaml``: bounded, with the line of every key, and with keys and numbers as they are written.

The only importer of PyYAML in this folder; it is imported when a file exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from mlflow_azure_backend.config.problems import quoted
from mlflow_azure_backend.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_FILE: Final = 64 * 1024
_MOST_VALUES: Final = 10_000
_DEEPEST: Final = 20
_TEXT: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"
_NULL: Final = "tag:yaml.org,2002:null"
_NUMBERS: Final = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"
_AS_WRITTEN: Final = frozenset({"environment_variables", "tags", "virtual_packages"})


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The mapping that a YAML file holds, and the line of each of its keys, by the keys that lead there.

    Raises:
        ConfigError: The file cannot be read, is no YAML, too large, or no mapping; names the line.
    """
    text = _text_of(path)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return {}, {}
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError("expected keys and values such as compute: docker", where=f"{path}:1")
        survey = _Survey(path)
        survey.visit(node, ())
        return dict(loader.construct_document(node)), survey.lines
    except yaml.YAMLError as error:
        raise _not_yaml(path, error) from None
    except RecursionError:
        raise ConfigError("is nested too deeply", where=path) from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
        # What PyYAML's constructors raise for a value that does not fit its explicit tag, such as `!!int x`.
        raise ConfigError("holds a value that does not fit its tag (!!…)", where=path) from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which does not go on scanning what is nested beyond all sense (it is quadratic there)."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803 - PyYAML's name
        if self.flow_level >= _DEEPEST:
            raise yaml.scanner.ScannerError(None, None, "nested too deeply", self.get_mark())
        super().fetch_flow_collection_start(TokenClass)


class _Survey:
    """One walk over the composed nodes, aliases expanded, before any value is made of them."""

    def __init__(self, path: Path) -> None:
        self.lines: dict[tuple[str, ...], int] = {}
        self._path = path
        self._visited = 0

    def visit(self, node: yaml.Node, keys: tuple[str, ...]) -> None:
        """Note the lines of the keys below ``node`` and settle how its scalars are read."""
        self._visited += 1
        if self._visited > _MOST_VALUES:
            raise self._error(node, f"holds more than {_MOST_VALUES} values, aliases expanded")
        if len(keys) > _DEEPEST:
            raise self._error(node, f"is nested more than {_DEEPEST} levels deep, or contains itself")
        if isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, keys)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self.visit(item, (*keys, "[]"))
        elif isinstance(node, yaml.ScalarNode):
            _settle(node, keys)

    def _visit_mapping(self, node: yaml.MappingNode, keys: tuple[str, ...]) -> None:
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, "a key must be text")
            if key.tag == _MERGE:
                self.visit(value, keys)
                continue
            # YAML 1.1 takes `on`, `no` and `1.10` for other things than text, also where they are keys.
            key.tag = _TEXT
            if key.value in seen:
                raise self._error(key, f"the key {quoted(key.value)} is there twice")
            seen.add(key.value)
            self.lines.setdefault((*keys, key.value), key.start_mark.line + 1)
            self.visit(value, (*keys, key.value))

    def _error(self, node: yaml.Node, what: str) -> ConfigError:
        return ConfigError(what, where=f"{self._path}:{node.start_mark.line + 1}")


def _settle(node: yaml.ScalarNode, keys: tuple[str, ...]) -> None:
    """Keep as text what is text to its reader: dates, ``1:30`` (90 in YAML 1.1), and the values of variables."""
    sexagesimal = node.tag in _NUMBERS and ":" in node.value
    written = len(keys) > 1 and keys[-2] in _AS_WRITTEN and node.style is None and node.tag != _NULL
    if sexagesimal or written or node.tag == _TIMESTAMP:
        node.tag = _TEXT


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=path) from None
    if len(content) > _LARGEST_FILE:
        raise ConfigError(f"is larger than {_LARGEST_FILE // 1024} KiB", where=path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError("is not UTF-8", where=f"{path}:{line}", next_step="save it as UTF-8") from None


def _not_yaml(path: Path, error: yaml.YAMLError) -> ConfigError:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = path if mark is None else f"{path}:{mark.line + 1}:{mark.column + 1}"
        return ConfigError(f"is not YAML: {error.problem or error.context}", where=place)
    return ConfigError("is not YAML: it holds a control character", where=path)
