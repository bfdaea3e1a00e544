"""A project's parameters get their values, and the command is written with them."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mlflow_azure_backend.errors import ParameterError, ProjectError
from mlflow_azure_backend.project.command import CommandTemplate, quoted
from mlflow_azure_backend.project.marked_yaml import Note
from mlflow_azure_backend.project.spec import EntryPoint, Parameter, ParameterType, is_number
from mlflow_azure_backend.redaction import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Argument:
    """A parameter with its value.

    Attributes:
        given: The value in the user's words, or the default: what is logged.
        value: What the command gets: ``given``, or the absolute path of a local ``path``.
        declared: False for one that the entry point does not know; it is appended as ``--name value``.
        is_secret: True keeps the value out of ``repr``.
        note: What the user should know about it; None when there is nothing.
    """

    name: str
    type: ParameterType
    given: str
    value: str
    declared: bool
    is_secret: bool = False
    note: Note | None = None

    @property
    def logged(self) -> str:
        """What may be written down of it."""
        return HIDDEN if self.is_secret else self.given

    def __repr__(self) -> str:
        value = HIDDEN if self.is_secret else repr(self.value)
        return f"Argument({self.name}={value}, {self.type.value}, declared={self.declared})"


def bind_parameters(
    entry_point: EntryPoint, params: Mapping[str, object], *, client_folder: Path, project_folder: Path | None = None
) -> tuple[Argument, ...]:
    """Give every declared parameter its value, and keep the undeclared ones in their order.

    Args:
        entry_point: Whose parameters they are.
        params: The user's, of any type; ``str()`` makes the value, as in MLflow.
        client_folder: Where a relative path starts: the client's working folder.
        project_folder: Where a *default* path is looked for when the client's folder does not have it; None means
            nowhere. (MLflow fails there when the project is not run from its own folder.)

    Raises:
        ParameterError: Names every parameter that is missing, of the wrong type, or points nowhere.
    """
    given = {str(name): str(value) for name, value in params.items()}
    problems = [*_missing(entry_point, given)]
    arguments: list[Argument] = []
    for parameter in entry_point.parameters:
        if parameter.name not in given and parameter.default is None:
            continue
        try:
            arguments.append(_bind(parameter, given.get(parameter.name), client_folder, project_folder))
        except ParameterError as problem:
            problems.append(problem)
    declared = {parameter.name for parameter in entry_point.parameters}
    for name, text in given.items():
        if name not in declared:
            if "\0" in name + text:
                problems.append(ParameterError(f"'{name}' holds a NUL byte", next_step="no program can be given one"))
            note = _note_on_undeclared(entry_point, name, declared - given.keys())
            arguments.append(Argument(name, ParameterType.STRING, text, text, declared=False, note=note))
    if problems:
        raise _all_problems(entry_point, problems)
    return tuple(arguments)


def _missing(entry_point: EntryPoint, given: Mapping[str, str]) -> Iterable[ParameterError]:
    missing = [one for one in entry_point.parameters if one.default is None and one.name not in given]
    if missing:
        names = ", ".join(f"'{one.name}' ({one.type.value})" for one in missing)
        step = "add " + " ".join(f"-P {shlex.quote(f'{one.name}=VALUE')}" for one in missing)
        yield ParameterError(f"no value is given for {names}", next_step=step)


def _all_problems(entry_point: EntryPoint, problems: Sequence[ParameterError]) -> ParameterError:
    where = f"entry point '{entry_point.name}'"
    if len(problems) == 1:
        return ParameterError(problems[0].what, where=where, next_step=problems[0].next_step)
    return ParameterError("; ".join(f"({n}) {problem}" for n, problem in enumerate(problems, 1)), where=where)


def _bind(parameter: Parameter, given: str | None, client: Path, project: Path | None) -> Argument:
    """One declared parameter with its value; None for ``given`` means the default."""
    name, kind = parameter.name, parameter.type
    text = str(parameter.default) if given is None else given
    argument = Argument(name, kind, text, text, declared=True)
    if "\0" in text:
        raise ParameterError(f"'{name}' holds a NUL byte", next_step="no program can be given one")
    if text == parameter.default and (not text or kind is ParameterType.FLOAT):
        return argument  # the project's own word for "nothing", such as None for a number: MLflow passes it on
    if kind is ParameterType.FLOAT and not is_number(text):
        raise ParameterError(f"'{name}' must be a number, not {text!r}", next_step=f"-P {name}=0.5, for one")
    if kind is ParameterType.URI and not _scheme(text):
        step = f"a local file is {(client.absolute() / text).as_uri()}"
        raise ParameterError(f"'{name}' must be a URI, not {text!r}", next_step=step)
    if kind is ParameterType.PATH and not is_remote(text):
        return _bind_path(argument, given is None, client, project)
    return argument


def _bind_path(argument: Argument, is_default: bool, client: Path, project: Path | None) -> Argument:
    name, text = argument.name, argument.given
    if found := _find_path(text, client):
        return replace(argument, value=found)
    in_project = _find_path(text, project) if project else None
    if in_project and is_default:
        note = Note(f"the default of '{name}' is taken from the project's folder: {client} does not have it")
        return replace(argument, value=in_project, note=note)
    step = f"looked in {client}"
    if in_project:
        step = f"the project has it: -P {shlex.quote(f'{name}={in_project}')}"
    elif is_default and project:
        step += f" and {project}"
    raise ParameterError(f"'{name}' names a path that does not exist: {text!r}", next_step=step)


def _find_path(text: str, folder: Path) -> str | None:
    """The absolute path of an existing file or folder, as MLflow writes it; None when there is none."""
    plain = urlsplit(text).path if _scheme(text) == "file" else text
    for spelling in (plain, unquote(plain)):  # MLflow decodes %20 in plain paths, too
        path = Path(os.path.normpath(folder.absolute() / spelling))
        try:
            if spelling and path.exists():
                return str(path)
        except (OSError, ValueError):  # a name that no file can have
            continue
    return None


def is_remote(text: str) -> bool:
    """Whether the value of a ``path`` parameter has to be downloaded: it has a scheme, and a host if that is file."""
    scheme = _scheme(text)
    if scheme == "file":
        return bool(urlsplit(text).netloc)
    return len(scheme) > 1  # one letter is a Windows drive


def _scheme(text: str) -> str:
    try:
        return urlsplit(text).scheme
    except ValueError:
        return ""


def _note_on_undeclared(entry_point: EntryPoint, name: str, free: Iterable[str]) -> Note | None:
    """A note when the name looks like a slip for a declared one that has not been given."""
    by_spelling = {re.sub(r"[-_.\s]", "", one).lower(): one for one in free}
    near = get_close_matches(re.sub(r"[-_.\s]", "", name).lower(), by_spelling, n=1, cutoff=0.8)
    if not near:
        return None
    what = f"'{name}' is not declared and is passed as --{name}"
    return Note(what, f"entry point '{entry_point.name}'", f"did you mean -P {by_spelling[near[0]]}=…?")


def render_command(
    entry_point: EntryPoint, arguments: Sequence[Argument], values: Mapping[str, str] | None = None
) -> str:
    """The POSIX shell command with every value in its place, quoted so that the program gets it verbatim.

    MLflow quotes each value as if it stood outside quotes (mlflow#6811, #12475); here the template's quotes are seen.

    Args:
        entry_point: Whose template it is.
        arguments: From ``bind_parameters``; undeclared ones are appended as ``--name value``.
        values: Values in place of the arguments' own, by name, for targets where paths differ; None means none.

    Raises:
        ProjectError: The template is wrong, or a placeholder stands where its value cannot be quoted.
    """
    texts = {argument.name: (values or {}).get(argument.name, argument.value) for argument in arguments}
    where = f"entry point '{entry_point.name}'" if entry_point.line is None else f"MLproject:{entry_point.line}"
    template = CommandTemplate(entry_point.command, [one.name for one in arguments if one.declared], where)
    command = ""
    for number, piece in enumerate(template.pieces):
        command += piece.literal
        if piece.name is not None:
            following = template.pieces[number + 1].literal[:1]
            command += quoted(format(texts[piece.name], piece.format), piece, command, following, where)
    appended = [f" --{shlex.quote(one.name)} {shlex.quote(texts[one.name])}" for one in arguments if not one.declared]
    if not appended:
        return command
    if not template.can_be_appended_to:
        names = ", ".join(argument.name for argument in arguments if not argument.declared)
        step = f"declare {names} and write its placeholder"
        raise ProjectError(
            f"the command ends where nothing can be appended, so {names} would be lost", where=where, next_step=step
        )
    trimmed = command.rstrip()  # a block of YAML ends in a newline, which would make the options a command of their own
    return (command if trimmed.endswith("\\") else trimmed) + "".join(appended)
