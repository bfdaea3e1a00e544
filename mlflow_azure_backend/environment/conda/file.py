"""What a conda.yaml asks for, line by line.

The format is conda's (https://docs.conda.io/projects/conda/en/stable/user-guide/tasks/manage-environments.html), with
two things that conda-lock added: ``platforms:`` and selectors in comments (``# [linux64]``), which conda passes over.
Match specifications are looked at here only as far as their names; the solver understands the rest of them.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import yaml

from mlflow_azure_backend.environment.declaration import (
    read_entries,
    read_items,
    read_mapping,
    read_scalar,
    text_lines,
    wrong,
)
from mlflow_azure_backend.environment.spec import CondaRequirement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_KEYS: Final = ("name", "channels", "dependencies", "platforms", "variables", "prefix", "category")
_NAME: Final = re.compile(r"^(?:(?P<channel>[\w./:-]+)::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)(?=$|[\s=<>!~\[])")
_SELECTOR: Final = re.compile(r"#[^\[\]]*\[([^\[\]]+)\][^\[\]()]*$")
_SELECTORS: Final = {
    "linux-64": ("linux64", "linux", "unix"),
    "linux-aarch64": ("aarch64", "linux", "unix"),
    "linux-ppc64le": ("ppc64le", "linux", "unix"),
    "osx-64": ("osx64", "osx", "unix"),
    "osx-arm64": ("arm64", "osx", "unix"),
    "win-64": ("win64", "win"),
}
"""conda-lock's, of ``src_parser/selectors.py`` (read in 4.0.3)."""
_MARKERS: Final = {
    "linux-64": "sys_platform == 'linux' and platform_machine == 'x86_64'",
    "linux-aarch64": "sys_platform == 'linux' and platform_machine == 'aarch64'",
    "linux-ppc64le": "sys_platform == 'linux' and platform_machine == 'ppc64le'",
    "osx-64": "sys_platform == 'darwin' and platform_machine == 'x86_64'",
    "osx-arm64": "sys_platform == 'darwin' and platform_machine == 'arm64'",
    "win-64": "sys_platform == 'win32'",
}
PLATFORMS: Final = tuple(_SELECTORS)
"""The platforms that can be locked, in conda's names."""


@dataclass(frozen=True, slots=True)
class CondaDeclaration:
    """A conda.yaml's content, its pip lines not yet followed to other files.

    Attributes:
        requirements: The conda packages.
        channels: As written, each with its ``file:line``.
        pip_lines: Requirement lines of the ``pip:`` section with their line numbers; None without such a section.
        platforms: Those of ``platforms:``; empty when the file names none.
        variables: Those of ``variables:``.
        notes: What was passed over.
    """

    requirements: tuple[CondaRequirement, ...]
    channels: tuple[tuple[str, str], ...]
    pip_lines: tuple[tuple[int, str], ...] | None
    platforms: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def read_conda_env(file: Path, shown: str) -> CondaDeclaration:
    """Read a conda.yaml.

    Args:
        file: The file.
        shown: Its name in messages.

    Raises:
        EnvironmentUnavailable: it is missing, no YAML, or says what a conda.yaml cannot say.
    """
    entries, lines = read_entries(file, shown)
    notes = [f"{shown}: '{key}' is ignored" for key in ("prefix", "category") if key in entries]
    for key, node in entries.items():
        if key not in _KEYS:
            if close := difflib.get_close_matches(key, _KEYS, n=1):
                raise wrong(shown, node, f"unknown key '{key}'", f"did you mean {close[0]}?")
            notes.append(f"{shown}:{node.start_mark.line + 1}: '{key}' is ignored, as conda does")
    requirements: list[CondaRequirement] = []
    pip: list[tuple[int, str]] | None = None
    for item in read_items(entries.get("dependencies"), shown, "dependencies"):
        if isinstance(item, yaml.MappingNode):
            pip = [*(pip or ()), *_pip_lines(item, shown, lines)]
        else:
            requirements.append(_requirement(item, shown, lines))
    channels = tuple(
        (read_scalar(item, shown, "channels"), f"{shown}:{item.start_mark.line + 1}")
        for item in read_items(entries.get("channels"), shown, "channels")
    )
    return CondaDeclaration(
        tuple(requirements),
        channels,
        None if pip is None else tuple(pip),
        tuple(_platforms(entries.get("platforms"), shown)),
        tuple(_variables(entries.get("variables"), shown)),
        tuple(notes),
    )


def _requirement(node: yaml.Node, shown: str, lines: list[str]) -> CondaRequirement:
    spec = " ".join(read_scalar(node, shown, "dependencies").split())
    if ("://" in spec and "::" not in spec) or spec.endswith((".conda", ".tar.bz2")):
        raise wrong(
            shown, node, f"'{spec}' is a file, which no channel vouches for", "name the package and its version"
        )
    match = _NAME.match(spec)
    if match is None:
        raise wrong(shown, node, f"'{spec}' is not a conda package", 'write NAME or "NAME >=VERSION"')
    return CondaRequirement(
        spec, match["name"].lower(), f"{shown}:{node.start_mark.line + 1}", _only(node, shown, lines)
    )


def _only(node: yaml.Node, shown: str, lines: list[str]) -> tuple[str, ...] | None:
    """The platforms of the selector behind an entry; None without one."""
    match = _SELECTOR.search(lines[node.end_mark.line][node.end_mark.column :]) if _is_plain(node) else None
    if match is None:
        return None
    word = match[1].strip()
    platforms = tuple(platform for platform, names in _SELECTORS.items() if word in (platform, *names))
    if not platforms:
        known = ", ".join(dict.fromkeys(name for names in _SELECTORS.values() for name in names))
        raise wrong(shown, node, f"'[{word}]' is no platform", f"the selectors are {known}")
    return platforms


def _is_plain(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style not in ("|", ">")


def _pip_lines(section: yaml.MappingNode, shown: str, lines: list[str]) -> Iterator[tuple[int, str]]:
    for key, value in section.value:
        name = read_scalar(key, shown, "dependencies")
        if name != "pip":
            raise wrong(shown, key, f"'{name}:' is not a section of dependencies", "the only one is pip:")
        for item in read_items(value, shown, "pip"):
            only = _only(item, shown, lines)
            for number, line in text_lines(item, shown, "pip"):
                yield number, line if only is None else _marked(item, shown, line, only)


def _marked(node: yaml.Node, shown: str, line: str, platforms: tuple[str, ...]) -> str:
    """A selector as the marker that pip knows."""
    if line.lstrip().startswith("-"):
        raise wrong(shown, node, f"a selector beside '{line}' has no meaning", "move it to the requirements themselves")
    text, _, marker = (part.strip() for part in line.partition(" ;" if " ;" in line else ";"))
    ours = " or ".join(f"({_MARKERS[platform]})" for platform in platforms)
    return f"{text} ; ({marker}) and ({ours})" if marker else f"{text} ; {ours}"


def _platforms(node: yaml.Node | None, shown: str) -> Iterator[str]:
    for item in read_items(node, shown, "platforms"):
        name = read_scalar(item, shown, "platforms")
        if name not in PLATFORMS:
            raise wrong(shown, item, f"'{name}' is no platform", f"the platforms are {', '.join(PLATFORMS)}")
        yield name


def _variables(node: yaml.Node | None, shown: str) -> Iterator[tuple[str, str]]:
    for name, value in read_mapping(node, shown, "variables"):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise wrong(shown, value, f"'{name}' is no name for an environment variable")
        if not isinstance(value, yaml.ScalarNode):
            raise wrong(shown, value, "a variable's value must be text", "put it in quotes")
        yield name, str(value.value)
