"""What a project declares: MLproject -> entry point -> typed parameters -> POSIX command.

Input and meaning are MLflow's (``mlflow.projects._project_spec``). What MLflow accepts in silence becomes a ``Note``;
what makes it fail with a traceback becomes a ``ProjectError`` with file and line.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import yaml

from mlflow_azure_backend.errors import ProjectError
from mlflow_azure_backend.project.command import CommandTemplate
from mlflow_azure_backend.project.marked_yaml import Note, YamlDocument, YamlField, is_null, is_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SCRIPT_SUFFIXES: Final = (".py", ".sh", ".R")
_ENTRY_POINT_KEYS: Final = ("parameters", "command")
_PARAMETER_KEYS: Final = ("type", "default")
_DOCKER_KEYS: Final = ("image", "volumes", "environment", "build_context", "dockerfile")


class ParameterType(str, Enum):
    """MLflow's parameter types; MLflow takes every other word for ``string``."""

    STRING = "string"
    FLOAT = "float"
    PATH = "path"
    URI = "uri"


class EnvironmentKind(str, Enum):
    """Which environment a project asks for, in the MLproject's own keys."""

    CONDA = "conda_env"
    PYTHON = "python_env"
    DOCKER = "docker_env"
    NONE = "none"
    """Neither declared nor found under a default name."""


_ENVIRONMENT_KEYS: Final = tuple(kind.value for kind in EnvironmentKind if kind is not EnvironmentKind.NONE)
_TOP_KEYS: Final = ("name", "entry_points", *_ENVIRONMENT_KEYS)
_DEFAULT_FILES: Final = {"python_env.yaml": EnvironmentKind.PYTHON, "conda.yaml": EnvironmentKind.CONDA}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A declared parameter.

    Attributes:
        default: The YAML value as ``str()`` gives it, which is what MLflow passes on (``true`` is ``True``); None means
            that the parameter is required.
        line: Where it stands in the MLproject, from 1; None when it stands in no file.
    """

    name: str
    type: ParameterType = ParameterType.STRING
    default: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """A command with placeholders.

    Attributes:
        command: The template, for ``render_command``.
        line: Where the command stands in the MLproject, from 1; None for a script.
        mistake: Why it cannot run; None when it can. MLflow loads such a project and runs its other entry points.
    """

    name: str
    parameters: tuple[Parameter, ...]
    command: str
    line: int | None = None
    mistake: ProjectError | None = None


@dataclass(frozen=True, slots=True)
class DockerEnvironment:
    """The ``docker_env`` of an MLproject.

    Attributes:
        image: The image's name. MLflow's own backends use it also when there is a ``build_context``, a key of ours.
        volumes: ``host:container`` each, as written.
        environment: Name and value; None means the client's value.
        build_context: The project's folder that the image is built from; None when it is not built.
        dockerfile: The file in the project that says how.
    """

    image: str
    volumes: tuple[str, ...] = ()
    environment: tuple[tuple[str, str | None], ...] = ()
    build_context: str | None = None
    dockerfile: str = "Dockerfile"


@dataclass(frozen=True, slots=True)
class DeclaredEnvironment:
    """The environment that a project asks for.

    Attributes:
        path: The existing conda or python environment file; None for the other kinds.
        docker: None unless the kind is docker.
        line: Where the MLproject names it, from 1; None when it was found under its default name, or not at all.
    """

    kind: EnvironmentKind = EnvironmentKind.NONE
    path: Path | None = None
    docker: DockerEnvironment | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class ProjectSpec:
    """What a project's folder declares.

    Attributes:
        file: The MLproject in whatever case it is written; None when there is none.
        name: None when the MLproject gives none.
        notes: Mistakes that MLflow accepts in silence, in the order in which they are met.
    """

    folder: Path
    file: Path | None
    name: str | None
    entry_points: tuple[EntryPoint, ...]
    environment: DeclaredEnvironment
    notes: tuple[Note, ...] = ()


# The MLproject.


def load_project(folder: Path) -> ProjectSpec:
    """Read the MLproject of a folder; a folder without one is a project too.

    Raises:
        ProjectError: The file is no YAML, too large, of another shape than an MLproject, or names an environment file
            that does not exist.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if path.name.lower() == "mlproject" and path.is_file())
    except OSError as error:
        raise ProjectError(f"the folder cannot be read: {error.strerror}", where=folder) from error
    if not names:
        environment, notes = _default_environment(folder)
        return ProjectSpec(folder, None, None, (), environment, (*_notes_on_missing_file(folder), *notes))
    file = folder / ("MLproject" if "MLproject" in names else names[0])
    document = YamlDocument(file)
    if len(names) > 1:
        others = ", ".join(name for name in names if name != file.name)
        document.note(f"this file is read, {others} is not", None, "keep one")
    return _read_project(document, file)


def _read_project(document: YamlDocument, file: Path) -> ProjectSpec:
    fields = document.mapping(document.root, "an MLproject")
    spark = fields.get("databricks_spark_job")
    if spark is not None and not is_null(spark.node):
        raise document.error(
            "databricks_spark_job is for MLflow's databricks backend only",
            spark.line,
            "run it with --backend databricks",
        )
    for key, field in fields.items():
        if key not in (*_TOP_KEYS, "databricks_spark_job"):
            document.note(f"the key '{key}' is unknown and ignored", field.line, _advice_on_top_key(key, field))
    entries = fields.get("entry_points")
    entry_points: dict[str, YamlField] = {} if entries is None else document.mapping(entries.node, "entry_points")
    name = document.text(fields["name"].node) if "name" in fields else None
    points = tuple(_read_entry_point(document, name, field) for name, field in entry_points.items())
    environment = _read_environment(document, fields, file.parent)
    return ProjectSpec(file.parent, file, name, points, environment, tuple(dict.fromkeys(document.notes)))


def _notes_on_missing_file(folder: Path) -> Iterable[Note]:
    for path in sorted(folder.iterdir()):
        if _is_file(path / "MLproject"):
            yield Note(f"there is no MLproject here, but one in '{path.name}'", None, f"add #{path.name} to the URI")
        elif path.stem.lower() == "mlproject" and path.suffix in (".yaml", ".yml", ".txt"):
            yield Note("is not read: the file's name must be MLproject", path.name, f"mv '{path.name}' MLproject")


def _advice_on_top_key(key: str, field: YamlField) -> str:
    if key in _ENTRY_POINT_KEYS:
        return f"move '{key}' into an entry point"
    if re.fullmatch(r"(?i)env(ironment)?s?|conda|docker|dependencies|requirements", key):
        return "name an environment file with 'conda_env' or 'python_env', or an image with 'docker_env'"
    if _has_key(field.node, ("command",)):
        return f"move '{key}' under 'entry_points'"
    return _nearest_key(key, _TOP_KEYS)


def _has_key(node: yaml.Node, names: Sequence[str]) -> bool:
    return isinstance(node, yaml.MappingNode) and any(key.value in names for key, _ in node.value)


def _nearest_key(key: str, valid: Sequence[str]) -> str:
    near = get_close_matches(key.lower(), valid, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"valid here: {', '.join(valid)}"


def _read_entry_point(document: YamlDocument, name: str, entry: YamlField) -> EntryPoint:
    if isinstance(entry.node, yaml.ScalarNode) and not is_null(entry.node):
        step = f'write {name}: {{command: "…"}}'
        raise document.error(f"the entry point '{name}' must hold a command, not be one", entry.line, step)
    fields = document.mapping(entry.node, f"the entry point '{name}'")
    parameters: tuple[Parameter, ...] = ()
    if "parameters" in fields:
        declared = document.mapping(fields["parameters"].node, f"the parameters of '{name}'")
        parameters = tuple(_read_parameter(document, key, field) for key, field in declared.items())
    for key, field in fields.items():
        if key not in _ENTRY_POINT_KEYS:
            step = _nearest_key(key, _ENTRY_POINT_KEYS)
            if field.node.value in list(ParameterType) or _has_key(field.node, _PARAMETER_KEYS):
                step = f"move '{key}' under 'parameters'"
            document.note(f"the key '{key}' in the entry point '{name}' is unknown and ignored", field.line, step)
    command = fields.get("command")
    if command is None or not is_text(command.node) or not command.node.value.strip():
        line = entry.line if command is None else command.line
        mistake = document.error(
            f"the entry point '{name}' has no command, which must be a text", line, 'add command: "python …"'
        )
        document.note(mistake.what, line, mistake.next_step)
        return EntryPoint(name, parameters, "", line, mistake)
    return _checked_entry_point(document, EntryPoint(name, parameters, command.node.value, command.line))


def _checked_entry_point(document: YamlDocument, entry_point: EntryPoint) -> EntryPoint:
    """The same entry point with its template's mistake, if any, and notes on parameters that it does not use."""
    declared = [parameter.name for parameter in entry_point.parameters]
    try:
        template = CommandTemplate(entry_point.command, declared, document.where(entry_point.line))
    except ProjectError as mistake:
        document.note(mistake.what, entry_point.line, mistake.next_step)
        return replace(entry_point, mistake=mistake)
    used = {piece.name for piece in template.pieces}
    for parameter in entry_point.parameters:
        if parameter.name not in used:
            document.note(
                f"the parameter '{parameter.name}' never reaches the program: the command of '{entry_point.name}' does "
                "not name it",
                parameter.line,
                f"write {{{parameter.name}}} into the command",
            )
    return entry_point


def _read_parameter(document: YamlDocument, name: str, field: YamlField) -> Parameter:
    if is_text(field.node):
        return Parameter(name, _read_type(document, name, field), None, field.line)
    if not isinstance(field.node, yaml.MappingNode):
        step = f"write {name}: {{type: float, default: …}}"
        raise document.error(f"the parameter '{name}' must be a type or hold one", field.line, step)
    fields = document.mapping(field.node, f"the parameter '{name}'")
    for key, inner in fields.items():
        if key not in _PARAMETER_KEYS:
            step = _nearest_key(key, _PARAMETER_KEYS)
            if " " in key and is_null(inner.node):  # {type path, default x}
                step = f"did you mean '{key.replace(' ', ': ', 1)}'?"
            document.note(f"the key '{key}' of the parameter '{name}' is unknown and ignored", inner.line, step)
    kind = _read_type(document, name, fields["type"]) if "type" in fields else ParameterType.STRING
    default = document.text(fields["default"].node) if "default" in fields else None
    if default is not None:
        _note_default(document, name, kind, default, fields["default"])
    return Parameter(name, kind, default, field.line)


def _read_type(document: YamlDocument, name: str, field: YamlField) -> ParameterType:
    word = document.text(field.node)
    try:
        return ParameterType(word)
    except ValueError:
        known = ", ".join(kind.value for kind in ParameterType)
        document.note(
            f"the type '{word}' of the parameter '{name}' is unknown: taken as string", field.line, f"use {known}"
        )
        return ParameterType.STRING


def _note_default(document: YamlDocument, name: str, kind: ParameterType, default: str, field: YamlField) -> None:
    if not isinstance(field.node, yaml.ScalarNode):
        step = "write it in quotes, as JSON"
        document.note(f"the default of '{name}' is a list or mapping: the program gets {default:.80}", field.line, step)
    elif kind is ParameterType.FLOAT and not is_number(default):
        step = "give a number, or the type string"
        document.note(f"the default of '{name}' is no number: {default!r} is passed as it is", field.line, step)


# The environment that it names.


def _read_environment(document: YamlDocument, fields: Mapping[str, YamlField], folder: Path) -> DeclaredEnvironment:
    declared = [key for key in fields if key in _ENVIRONMENT_KEYS]
    if len(declared) > 1:
        step = f"keep one of: {', '.join(declared)}"
        raise document.error("a project has one environment, not several", fields[declared[1]].line, step)
    for key in declared:
        field = fields[key]
        if document.value(field.node):
            return _read_declared(document, EnvironmentKind(key), field, folder)
        document.note(f"{key} is empty and ignored", field.line, "name the environment, or take the key away")
    environment, notes = _default_environment(folder)
    document.notes.extend(notes)
    return environment


def _read_declared(
    document: YamlDocument, kind: EnvironmentKind, field: YamlField, folder: Path
) -> DeclaredEnvironment:
    if kind is EnvironmentKind.DOCKER:
        return DeclaredEnvironment(kind, None, _read_docker(document, field), field.line)
    if not is_text(field.node):
        step = f"put it into a file and write {kind.value}: FILE"
        raise document.error(f"{kind.value} must name a file", field.line, step)
    path = folder / field.node.value
    if not _is_file(path):
        near = get_close_matches(path.name, _files_in(path.parent), n=1)
        step = (
            f"did you mean '{Path(field.node.value).with_name(near[0])}'?"
            if near
            else "create it, or take the key away"
        )
        raise document.error(f"there is no environment file '{field.node.value}'", field.line, step)
    return DeclaredEnvironment(kind, path, None, field.line)


def _read_docker(document: YamlDocument, field: YamlField) -> DockerEnvironment:
    fields = document.mapping(field.node, "docker_env")
    for key, inner in fields.items():
        if key not in _DOCKER_KEYS:
            document.note(
                f"the key '{key}' of docker_env is unknown and ignored", inner.line, _nearest_key(key, _DOCKER_KEYS)
            )
    values = {key: document.value(fields[key].node) for key in _DOCKER_KEYS if key in fields}
    if not isinstance(values.get("image"), str) or not values["image"]:
        raise document.error("docker_env has no image", field.line, "add image: NAME")
    volumes = values.get("volumes") or []
    if not isinstance(volumes, list) or not all(isinstance(volume, str) for volume in volumes):
        line = fields["volumes"].line
        raise document.error("the volumes of docker_env must be a list", line, 'write volumes: ["/host:/container"]')
    variables = values.get("environment") or []
    if not isinstance(variables, list) or not all(_is_variable(variable) for variable in variables):
        line, step = fields["environment"].line, 'write environment: [["NAME", "value"], "NAME_TO_COPY"]'
        raise document.error("the environment of docker_env must be a list of names and pairs", line, step)
    pairs = tuple((name, None) if isinstance(name, str) else (name[0], str(name[1])) for name in variables)
    return DockerEnvironment(values["image"], tuple(volumes), pairs, *_read_build(document, fields))


def _read_build(document: YamlDocument, fields: Mapping[str, YamlField]) -> tuple[str | None, str]:
    """The context's folder and the Dockerfile, both relative to the project; a Dockerfile is in its context."""
    paths: dict[str, str] = {}
    for key in ("build_context", "dockerfile"):
        if key not in fields:
            continue
        value = document.value(fields[key].node)
        if not isinstance(value, str) or not value or value.startswith("/") or ".." in value.split("/"):
            step = f"write {key}: {'.' if key == 'build_context' else 'Dockerfile'}, relative to the MLproject"
            raise document.error(f"{key} must name something in the project", fields[key].line, step)
        paths[key] = value
    context = paths.get("build_context")
    if "dockerfile" not in paths:
        return context, posixpath.join(context or "", "Dockerfile")
    return context or ".", paths["dockerfile"]


def _is_variable(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str))


def _default_environment(folder: Path) -> tuple[DeclaredEnvironment, list[Note]]:
    """The environment file that MLflow finds by its name; near misses are noted."""
    for name, kind in _DEFAULT_FILES.items():
        if _is_file(folder / name):
            return DeclaredEnvironment(kind, folder / name), []
    files = _files_in(folder)
    notes = [
        Note("is no environment to MLflow unless the MLproject names it", name, f"add {key}: {name} to the MLproject")
        for name, key in (
            ("conda.yml", "conda_env"),
            ("environment.yml", "conda_env"),
            ("environment.yaml", "conda_env"),
            ("python_env.yml", "python_env"),
        )
        if name in files
    ]
    if not notes and "requirements.txt" in files:
        step = r"printf 'dependencies:\n  - -r requirements.txt\n' > python_env.yaml"
        notes = [Note("is no environment to MLflow: a python_env.yaml must name it", "requirements.txt", step)]
    return DeclaredEnvironment(), notes


def _files_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_file())
    except (OSError, ValueError):
        return []


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


# Entry points.


def find_entry_point(spec: ProjectSpec, name: str) -> EntryPoint:
    """The declared entry point of that name, or a script of the project's that has it as its path.

    Raises:
        ProjectError: There is none, or it cannot run.
    """
    for entry_point in spec.entry_points:
        if entry_point.name == name:
            if entry_point.mistake is not None:
                raise entry_point.mistake
            return entry_point
    path = Path(os.path.relpath(spec.folder / name, spec.folder))
    if path.suffix in _SCRIPT_SUFFIXES and ".." not in path.parts and _is_file(spec.folder / path):
        return EntryPoint(name, (), _script_command(PurePosixPath(path)))
    raise _no_entry_point(spec, name)


def _script_command(path: PurePosixPath) -> str:
    script = path.as_posix()
    if path.suffix == ".R":
        # MLflow's R package runs the script, and hands it the parameters; JSON's strings are R's too.
        text = script.replace("\\", "\\\\").replace('"', '\\"')
        command = f"""Rscript -e {shlex.quote(f'mlflow::mlflow_source("{text}")')} --args"""
    else:
        program = "python" if path.suffix == ".py" else os.environ.get("SHELL") or "bash"
        command = f"{shlex.quote(program)} {shlex.quote(f'./{script}' if script.startswith('-') else script)}"
    return command.replace("{", "{{").replace("}", "}}")


def _no_entry_point(spec: ProjectSpec, name: str) -> ProjectError:
    scripts = [file for file in _files_in(spec.folder) if file.endswith(_SCRIPT_SUFFIXES)]
    names = [*(entry_point.name for entry_point in spec.entry_points), *scripts]
    near = get_close_matches(name, names, n=1)
    step = "write an MLproject that has one"
    if names:
        step = f"did you mean -e {shlex.quote(near[0])}?" if near else "give one with -e."
        step += f" There are: {', '.join(names[:20])}"
    where = None if spec.file is None else spec.file.name
    return ProjectError(f"there is no entry point '{name}'", where=where, next_step=step)


def is_number(text: str) -> bool:
    """True for what Python reads as a float."""
    try:
        float(text)
    except ValueError:
        return False
    return True
