"""Causes that a program without a traceback names in its last line: argument parsers, shells, R."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath
from typing import Final

from mlflow_azure_backend.diagnosis.case import Case, Finding, closest, on_last_words, set_parameter
from mlflow_azure_backend.diagnosis.data import wrong_parameter
from mlflow_azure_backend.diagnosis.files import install_command

_USAGE_ERROR: Final = (2,)
_NOT_FOUND: Final = (127,)
_NOT_RUNNABLE: Final = (126,)
_TYPES: Final = {"integer": "int", "float": "float", "int": "int", "boolean": "bool", "bool": "bool"}
_ARGPARSE: Final = r"\S+: error: "
_CLICK: Final = r"Error: "
# How a shell begins its own error, in any language, and how GNU's env does: "bash: line 1: ", "./run.sh: line 3: ".
_SHELL: Final = r"(?:(?:\S*/)?(?:[abdkz]{0,2}sh|[^/:\s]*\.sh): (?:[^:]*\d+: )?|[^:\s]+: line \d+: )"
_QUOTE: Final = r"['\u2018\u2019]"
_ENV: Final = rf".*env: {_QUOTE}"
_COMMANDS: Final = ("Rscript", "accelerate", "bash", "jupyter", "mlflow", "python", "python3", "torchrun")


@on_last_words(
    _USAGE_ERROR,
    rf"{_ARGPARSE}argument (?P<option>[^:]+): invalid (?P<kind>\w+) value: '(?P<value>.*)'"
    rf"|{_CLICK}Invalid value for (?P<click>.+?): '(?P<given>.*)' is not a valid (?P<type>\w+)\.",
)
def wrong_type(case: Case, found: re.Match[str]) -> Finding | None:
    """An option's value is of another type than the program wants."""
    kind = _TYPES.get(found["kind"] or found["type"])
    value = found["value"] if found["value"] is not None else found["given"]
    name = _parameter(case, found["option"] or found["click"], value)
    if kind is None:
        return None
    if name is None:
        option = (found["option"] or found["click"]).strip("'")
        return Finding(f"{option} is {value!r}, which is not of type {kind}", "correct it in the command of MLproject")
    return wrong_parameter(name, kind, value)


@on_last_words(
    _USAGE_ERROR,
    rf"{_ARGPARSE}argument (?P<option>[^:]+): invalid choice: '?(?P<value>.*?)'? \(choose from (?P<choices>.*)\)"
    rf"|{_CLICK}Invalid value for (?P<click>.+?): '(?P<given>.*)' is not one of (?P<among>.*)\.",
)
def invalid_choice(case: Case, found: re.Match[str]) -> Finding:
    """An option's value is none of those that the program knows."""
    value = found["value"] if found["value"] is not None else found["given"]
    choices = [choice.strip().strip("'") for choice in (found["choices"] or found["among"]).split(",")]
    option = found["option"] or found["click"]
    name = _parameter(case, option, value)
    meant = closest(value, choices)
    possible = " or ".join(choices) if len(choices) <= 8 else f"{', '.join(choices[:8])} …"
    cause = f"{option if name is None else f'the parameter {name}'} is {value!r}, and must be {possible}"
    if name is None:
        return Finding(cause, "correct it in the command of MLproject")
    return Finding(cause, set_parameter(name, meant) if meant is not None else f"-P {name}=<{'|'.join(choices[:8])}>")


@on_last_words(
    _USAGE_ERROR,
    rf"{_ARGPARSE}unrecognized arguments: (?P<option>--?[^\s=]+)(?:[ =].*)?"
    rf"|{_CLICK}No such option:? '?(?P<click>--?[\w-]+)'?(?:[. ].*)?",
)
def unknown_option(case: Case, found: re.Match[str]) -> Finding:
    """MLflow appends a parameter that MLproject does not declare as an option, which the program does not know."""
    option = found["option"] or found["click"]
    name = _parameter(case, option, None)
    known = {word for line in case.words[-12:] for word in re.findall(r"(?<![\w-])--[\w-]+", line)} - {option}
    meant = closest(option, known)
    cause = f"the program knows no option {option}"
    if name is None:
        return Finding(cause, "correct it in the command of MLproject" + (f":  {meant}" if meant is not None else ""))
    cause += f", which the undeclared parameter {name} became"
    if meant is None:
        return Finding(cause, f"leave the parameter {name} out, or teach it to the program")
    return Finding(cause, f"in place of -P {name}:  {set_parameter(meant.lstrip('-'), case.evidence.parameters[name])}")


@on_last_words(
    _USAGE_ERROR,
    rf"{_ARGPARSE}the following arguments are required: (?P<options>.+)"
    rf"|{_CLICK}Missing (?:option|argument|parameter) (?P<click>.+?)\.?",
)
def missing_option(_case: Case, found: re.Match[str]) -> Finding:
    """The program wants what the command does not give it."""
    wanted = (found["options"] or found["click"]).replace("'", "")
    first = re.split(r"[,/ ]", wanted)[0]
    cause = f"the program wants {wanted}, which the command does not give it"
    if not first.startswith("--"):
        return Finding(cause, "add it to the command in MLproject")
    return Finding(cause, f"give it as a parameter:  -P {first.lstrip('-')}=<value>")


@on_last_words(_USAGE_ERROR, rf"{_ARGPARSE}argument (?P<option>[^:]+): expected (?:one|at least one) argument")
def value_taken_for_option(case: Case, found: re.Match[str]) -> Finding | None:
    """A value that begins with a dash was taken for the next option."""
    name = _parameter(case, found["option"], None)
    if name is None or not case.evidence.parameters[name].startswith("-"):
        return None
    option = next((word for word in found["option"].split("/") if word.startswith("--")), None)
    if option is None:
        return None
    cause = f"the parameter {name} is {case.evidence.parameters[name]!r}, which the program takes for another option"
    return Finding(cause, f"in the command of MLproject, join them:  {option}={{{name}}}")


@on_last_words(_NOT_FOUND, rf"{_SHELL}(?:exec: )?(?P<name>[^:/\s]+): [^:]*|{_ENV}(?P<env>[^\s\\]+){_QUOTE}: .*")
def missing_command(case: Case, found: re.Match[str]) -> Finding:
    """A shell, or ``env``, found no such command."""
    name = found["name"] or found["env"]
    if case.exists(name):
        start = {".sh": "bash ", ".py": "python "}.get(PurePosixPath(name).suffix, "./")
        cause = f"{name} is a file of the project, not a command"
        return Finding(cause, f"in the command of MLproject, write:  {start}{name}")
    near = closest(name, _COMMANDS)
    fix = f"in the command of MLproject, write:  {near}" if near is not None else install_command(name)
    return Finding(f"the command {name} is not on this machine", fix)


@on_last_words(_NOT_FOUND, rf"{_SHELL}(?:exec: )?(?P<path>[^:\s]*/[^:\s]*): (?P<why>[^:]*)(?P<more>:.*)?")
def missing_program(case: Case, found: re.Match[str]) -> Finding | None:
    """A shell was told the path of a program that does not exist, or whose interpreter does not."""
    path = found["path"]
    if case.exists(path):
        interpreter = _shebang(case, path)[2:].split()
        if not interpreter:
            return None
        return Finding(
            f"{path} is to be run by {interpreter[0].decode('utf-8', 'replace')}, which is not on this machine"
        )
    if found["more"] is not None:
        return None  # the program is there, and something that it needs is not
    name = PurePosixPath(path).name
    same = [file for file in case.files() if PurePosixPath(file).name == name]
    fix = f"in the command of MLproject, write:  ./{same[0]}" if len(same) == 1 else None
    return Finding(f"the program {path} does not exist", fix)


@on_last_words(
    (*_NOT_FOUND, *_NOT_RUNNABLE),
    rf"{_SHELL}(?P<path>[^:\s]+): .*|{_ENV}\w+\\r{_QUOTE}: .*|.*env: use -\[v\]S to pass options in shebang lines",
)
def windows_line_endings(case: Case, found: re.Match[str]) -> Finding | None:
    """A script whose first line ends as on Windows, so that its interpreter's name ends with a carriage return."""
    scripts = [found["path"]] if found["path"] else [file for file in case.files() if file.endswith((".sh", ".py"))]
    broken = [name for name in scripts if _shebang(case, name).endswith(b"\r\n")]
    if len(broken) != 1:
        return None
    name = str(PurePosixPath(broken[0]))
    cause = f"the lines of {name} end as on Windows, and Linux finds no such interpreter"
    return Finding(cause, f"sed -i 's/\\r$//' {shlex.quote(name)}")


@on_last_words(_NOT_RUNNABLE, rf"{_SHELL}(?P<path>[^:\s]+): .*")
def not_executable(case: Case, found: re.Match[str]) -> Finding | None:
    """A shell found a file that it may not run."""
    path = found["path"]
    if not case.lacks_exec_bit(path):
        return None
    return Finding(f"{path} is not executable", f"chmod +x {shlex.quote(path)}")


@on_last_words((1,), r"Error in (?:library|loadNamespace|require)\(.*there is no package called .(\w[\w.]*).")
def missing_r_package(_case: Case, found: re.Match[str]) -> Finding:
    """R found no such package."""
    command = f'install.packages("{found[1]}", repos="https://cloud.r-project.org")'
    return Finding(f"R has no package {found[1]}", f"Rscript -e {shlex.quote(command)}")


def _parameter(case: Case, option: str, value: str | None) -> str | None:
    """The project's parameter that an option stands for: by name, or else by its value."""
    words = [re.sub("-", "_", word.strip(" '").lstrip("-")) for word in option.split("/")]
    for name in case.evidence.parameters:
        if name.replace("-", "_") in words or name.replace("-", "_") in [word.lower() for word in words]:
            return name
    return None if value is None else case.parameter_with_value(value)


def _shebang(case: Case, name: str) -> bytes:
    """The first line of a script, if it names an interpreter; else empty."""
    try:
        with (case.evidence.project_folder / name).open("rb") as stream:
            line = stream.readline(200)
    except (OSError, ValueError):
        return b""
    return line if line.startswith(b"#!") else b""
