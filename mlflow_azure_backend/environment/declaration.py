"""What an environment file says: python_env.yaml, and conda.yaml as far as a virtual environment can follow it.

Both formats are MLflow's: ``_PythonEnv`` in ``mlflow/utils/environment.py`` (read in 3.17.2). MLflow takes unknown keys
for a ``TypeError`` and drops conda packages with a warning; here the first is one line with the nearest key, the second
a note.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import yaml

from mlflow_azure_backend.environment.requirements import read_text
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LARGEST_FILE: Final = 64_000  # bytes; YAML costs 10 ms for each 1,000 of them
_TEXT: Final = "tag:yaml.org,2002:str"
_NOTHING: Final = "tag:yaml.org,2002:null"
_NUMBERS: Final = frozenset({"tag:yaml.org,2002:float", "tag:yaml.org,2002:int"})
_PYTHON_ENV_KEYS: Final = ("python", "build_dependencies", "dependencies")
# What MLflow carries over from conda to pip besides python itself.
_BUILD_PACKAGES: Final = frozenset({"pip", "setuptools", "wheel"})
_CONDA_SPEC: Final = re.compile(r"^(?:[\w./:-]+::)?(?P<name>[A-Za-z0-9_.-]+?)\s*(?P<version>[=<>!~ ].*)?$")


@dataclass(frozen=True, slots=True)
class Declaration:
    """An environment file's content, not yet followed to other files.

    Attributes:
        python: The version wanted, as written; None means the current interpreter's.
        python_origin: ``file:line`` of that; None when nobody asked.
        lines: Requirement lines with their line numbers.
        notes: What was left out.
    """

    python: str | None = None
    python_origin: str | None = None
    lines: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()


def read_python_env(file: Path, shown: str) -> Declaration:
    """Read a python_env.yaml.

    Args:
        file: The file.
        shown: Its name in messages.

    Raises:
        EnvironmentUnavailable: it is missing, no YAML, or says what python_env.yaml cannot say.
    """
    entries, _ = read_entries(file, shown)
    for key, node in entries.items():
        if key not in _PYTHON_ENV_KEYS:
            close = difflib.get_close_matches(key, _PYTHON_ENV_KEYS, n=1)
            step = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(_PYTHON_ENV_KEYS)}"
            raise wrong(shown, node, f"unknown key '{key}'", step)
    python, python_origin, notes = _python(entries.get("python"), shown)
    lines = [
        line
        for key in ("build_dependencies", "dependencies")
        for item in read_items(entries.get(key), shown, key)
        for line in text_lines(item, shown, key)
    ]
    return Declaration(python, python_origin, tuple(lines), notes)


def read_conda_env_as_python(file: Path, shown: str) -> Declaration:
    """Read of a conda.yaml what ``--env-manager virtualenv`` and ``uv`` take from it: python, pip's part, build tools.

    Raises:
        EnvironmentUnavailable: it is missing, no YAML, or no conda environment file.
    """
    entries, _ = read_entries(file, shown)
    python: str | None = None
    python_origin: str | None = None
    lines: list[tuple[int, str]] = []
    dropped: list[str] = []
    for item in read_items(entries.get("dependencies"), shown, "dependencies"):
        if isinstance(item, yaml.MappingNode):
            lines += _pip_section(item, shown)
            continue
        spec = read_scalar(item, shown, "dependencies")
        match = _CONDA_SPEC.match(spec)
        name, version = (match["name"], (match["version"] or "").strip()) if match else (spec, "")
        if name == "python":
            python, python_origin = _python_of_conda(version) or None, f"{shown}:{item.start_mark.line + 1}"
        elif name in _BUILD_PACKAGES:
            lines.append((item.start_mark.line + 1, name + _specifier(version)))
        else:
            dropped.append(spec)
    notes = (
        (f"{shown}: left out, because a virtual environment has no conda packages: {', '.join(dropped)}",)
        if dropped
        else ()
    )
    return Declaration(python, python_origin, tuple(lines), notes)


def read_entries(file: Path, shown: str) -> tuple[dict[str, yaml.Node], list[str]]:
    """The top-level mapping, its values still nodes that know their lines, and the file's lines.

    Raises:
        EnvironmentUnavailable: it is missing, too large, empty, or no mapping in YAML.
    """
    text = read_text(file, shown, largest=_LARGEST_FILE)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise EnvironmentUnavailable(f"not YAML: {error.problem or error.context}", where=shown + line) from None
    except (yaml.YAMLError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise EnvironmentUnavailable(f"not YAML: {reason}", where=shown) from None
    if root is None:
        raise EnvironmentUnavailable("the file is empty", where=shown, next_step="list the packages, or remove it")
    if not isinstance(root, yaml.MappingNode):
        raise wrong(shown, root, "expected 'key: value' lines")
    entries: dict[str, yaml.Node] = {}
    for name, value in read_mapping(root, shown, "the file"):
        if name in entries:
            raise wrong(shown, value, f"'{name}' stands here twice", "keep one")
        entries[name] = value
    return entries, text.split("\n")


def read_mapping(node: yaml.Node | None, shown: str, key: str) -> Iterator[tuple[str, yaml.Node]]:
    """The pairs of a mapping; none when it is empty."""
    if node is None or node.tag == _NOTHING:
        return
    if not isinstance(node, yaml.MappingNode):
        raise wrong(shown, node, f"{key} must be 'name: value' lines")
    for name, value in node.value:
        yield read_scalar(name, shown, key), value


def _python(node: yaml.Node | None, shown: str) -> tuple[str | None, str | None, tuple[str, ...]]:
    if node is None or node.tag == _NOTHING:
        return None, None, ()
    if not isinstance(node, yaml.ScalarNode) or node.tag not in (_TEXT, *_NUMBERS):
        raise wrong(shown, node, "python must be a version", 'for example  python: "3.11"')
    origin = f"{shown}:{node.start_mark.line + 1}"
    note = f'{origin}: python: {node.value} is a number in YAML, which MLflow itself refuses; write "{node.value}"'
    return str(node.value).strip(), origin, (note,) if node.tag in _NUMBERS else ()


def read_items(node: yaml.Node | None, shown: str, key: str) -> list[yaml.Node]:
    """The entries of a list; none when it is empty."""
    if node is None or node.tag == _NOTHING:
        return []
    if not isinstance(node, yaml.SequenceNode):
        raise wrong(shown, node, f"{key} must be a list", f"put '- ' before each entry of {key}")
    return list(node.value)


def read_scalar(node: yaml.Node, shown: str, key: str) -> str:
    """An entry that is text."""
    if isinstance(node, yaml.ScalarNode) and node.tag == _TEXT:
        return str(node.value)
    if isinstance(node, yaml.MappingNode) and node.value and isinstance(node.value[0][0], yaml.ScalarNode):
        name = node.value[0][0].value
        step = f"write {name}==VERSION" if re.fullmatch(r"[\w.-]*\w", name) else "put the entry in quotes"
        raise wrong(shown, node, f"'{name}:' opens a mapping, but entries of {key} are text", step)
    raise wrong(shown, node, f"entries of {key} must be text", "put it in quotes")


def text_lines(node: yaml.Node, shown: str, key: str) -> Iterator[tuple[int, str]]:
    """The lines of an entry with their numbers in the file."""
    first = node.start_mark.line + 1
    # A block scalar's text begins on the line after its `|`.
    first += isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
    for offset, line in enumerate(read_scalar(node, shown, key).splitlines()):
        yield first + offset, line


def _pip_section(node: yaml.MappingNode, shown: str) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []
    for key, value in node.value:
        name = read_scalar(key, shown, "dependencies")
        if name != "pip":
            raise wrong(shown, key, f"'{name}:' is not a section of dependencies", "the only one is pip:")
        for item in read_items(value, shown, "pip"):
            lines += text_lines(item, shown, "pip")
    return lines


def _specifier(version: str) -> str:
    """A conda version as pip writes it: one ``=`` is ``==``, which MLflow does too; a build string goes."""
    version = version.strip()
    if version.startswith("=") and not version.startswith("=="):
        return "==" + version[1:].split("=")[0].strip()
    return version.replace(" ", "") if version else ""


def _python_of_conda(version: str) -> str:
    """``=3.11`` (conda: any 3.11) is ``3.11``; ``==3.11.7`` is ``3.11.7``; ranges stay ranges."""
    match = re.fullmatch(r"={0,2}\s*([\d.]+?)(\.\*)?(\s*=.*)?", version)
    return match[1] if match else version


def wrong(shown: str, node: yaml.Node, what: str, next_step: str | None = None) -> EnvironmentUnavailable:
    """An error at a node's line, to be raised."""
    return EnvironmentUnavailable(what, where=f"{shown}:{node.start_mark.line + 1}", next_step=next_step)
