"""Causes around files: missing, left out, forbidden, full, or not in the format that the program reads."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
from pathlib import PurePosixPath
from typing import Final

from mlflow_azure_backend.diagnosis.case import (
    Case,
    Finding,
    nearest_file,
    on_error,
    on_last_words,
    replace_line,
    set_config,
    set_parameter,
    set_variable,
)
from mlflow_azure_backend.diagnosis.ending import read_source
from mlflow_azure_backend.diagnosis.names import COMMAND_PACKAGES

# How a statement of the user's or of a library tells that it writes.
_WRITES = re.compile(
    r"""["'][wax]b?\+?b?["']|\.(?:to_\w+|savefig|save\w*|dump|write_\w+|mkdir)\(|\b(?:savefig|makedirs|save|dump)\("""
)
_NO_SUCH_FILE: Final = (
    r"^\[Errno 2\] [^:]+: (?P<path>b?['\"].+)$|^(?P<plain>\S+) not found\.$|name = (?P<h5>'[^']+'), errno = 2,"
)
_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - named, never used
_OUTPUT_FOLDER: Final = "outputs"
"""The folder that the backend collects."""
_POINTER: Final = b"version https://git-lfs.github.com/spec/v1"
"""How a file begins that Git LFS has not fetched (github.com/git-lfs/git-lfs, docs/spec.md)."""


@on_error("FileNotFoundError", _NO_SUCH_FILE)
def left_out_file(case: Case, found: re.Match[str]) -> Finding | None:
    """The file exists in the user's folder, and the snapshot left it out."""
    path = _path(found)
    relative = _relative(case, path)
    if relative is None or case.exists(relative):
        return None
    out = case.left_out((relative, *(str(parent) for parent in PurePosixPath(relative).parents if parent.name)))
    if out is None:
        return None
    cause = f"{out[0]} exists here but was left out by {out[1]}"
    cause += "" if out[0] == relative else f", and {path} would be in it"
    name = case.parameter_with_value(path)
    if name is not None:
        return Finding(cause, f"declare it in MLproject:  {name}: {{type: path, default: {path}}}")
    return Finding(cause, f"take it into the snapshot:  {set_config('snapshot', {'include': [out[0]]})}")


@on_error("FileNotFoundError", _NO_SUCH_FILE)
def missing_command(case: Case, found: re.Match[str]) -> Finding | None:
    """The program started another one that is not there."""
    name = _path(found)
    if not case.went_through("/subprocess.py") or "/" in name or case.exists(name) or "cwd" in case.statement():
        return None  # the message is the same for a missing cwd
    return Finding(f"the command {name} is not on this machine", install_command(name))


@on_error(
    "FileNotFoundError OSError RuntimeError",
    r"^Cannot save file into a non-existent directory: '(.+)'$|^Parent directory (.+) does not exist\.$"
    rf"|{_NO_SUCH_FILE}",
)
def missing_folder(case: Case, found: re.Match[str]) -> Finding | None:
    """A file was to be written into a folder that does not exist."""
    named = found[1] or found[2]
    folder = str(PurePosixPath(_path(found)).parent) if named is None else named
    relative = _relative(case, folder)
    if relative is None or case.exists(relative) or (named is None and not _writes(case)):
        return None
    cause = f"the folder {folder} does not exist, and {case.place} writes into it"
    if case.evidence.working_folder_is_snapshot:
        return Finding(cause, f"make it first, before {case.place}:  os.makedirs({folder!r}, exist_ok=True)")
    return Finding(cause, f"mkdir -p {shlex.quote(folder)}")


@on_error("FileNotFoundError", _NO_SUCH_FILE)
def missing_file(case: Case, found: re.Match[str]) -> Finding | None:
    """Python could not open a file, and it is not there."""
    path = _path(found)
    relative = _relative(case, path)
    if case.went_through("/subprocess.py") or (relative is not None and case.exists(relative)):
        return None
    where = "on this machine" if PurePosixPath(path).is_absolute() else "in the working folder"
    meant = nearest_file(case, relative if relative is not None else path)
    name = case.parameter_with_value(path)
    if meant is None:
        fix = None if name is None else f"name a file that exists:  -P {name}=<path>"
        return Finding(f"{path} does not exist {where}", fix)
    source = case.source.replace(f'"{path}"', f'"{meant}"').replace(f"'{path}'", f"'{meant}'")
    cause = f"{path} does not exist {where}; the nearest is {meant}"
    if name is not None:
        return Finding(cause, set_parameter(name, meant))
    return Finding(cause, replace_line(case, source) if source != case.source else f"use {meant} in {case.place}")


@on_last_words((2,), r"\S*python[\d.]*: can't open file (?P<path>'.+'|\".+\"): \[Errno 2\] .*")
def missing_script(case: Case, found: re.Match[str]) -> Finding:
    """Python's own word that there is no such script."""
    path = _relative(case, _path(found)) or _path(found)
    out = case.left_out([path])
    if out is not None:
        fix = f"take it into the snapshot:  {set_config('snapshot', {'include': [path]})}"
        return Finding(f"the script {path} exists here but was left out by {out[1]}", fix)
    meant = nearest_file(case, path)
    correction = None if meant is None else f"in the command of MLproject, write:  {meant}"
    return Finding(f"the script {path} does not exist", correction)


@on_error("IsADirectoryError", r"^\[Errno 21\] [^:]+: (?P<path>b?['\"].+)$")
def folder_instead_of_file(case: Case, found: re.Match[str]) -> Finding:
    """A folder's path was given where a file is read or written."""
    path = _path(found)
    cause = f"{path} is a folder, and {case.place} opens it as a file"
    name = case.parameter_with_value(path)
    if name is None:
        return Finding(cause)
    folder = PurePosixPath(_relative(case, path) or path)
    inside = [file for file in case.files() if PurePosixPath(file).parent == folder]
    value = set_parameter(name, inside[0]) if len(inside) == 1 else f"-P {name}=<file>"
    return Finding(cause, f"name a file in it:  {value}")


@on_error("PermissionError", r"^\[Errno 13\] [^:]+: (?P<path>b?['\"].+)$")
def not_executable(case: Case, found: re.Match[str]) -> Finding | None:
    """A script of the project was started that lacks the exec bit."""
    path = _relative(case, _path(found))
    if path is None or not case.went_through("/subprocess.py") or not case.lacks_exec_bit(path):
        return None
    return Finding(f"{path} is not executable", f"chmod +x {shlex.quote(path)}")


@on_error("PermissionError OSError", r"^\[Errno (?:1|13|30)\] [^:]+: (?P<path>b?['\"].+)$")
def permission_denied(case: Case, found: re.Match[str]) -> Finding:
    """The operating system refused."""
    path = _path(found)
    read_only = found[0].startswith("[Errno 30]")
    cause = f"{path} is on a file system that is read-only" if read_only else f"no permission for {path}"
    name = case.parameter_with_value(path)
    better = f"{_OUTPUT_FOLDER}/{PurePosixPath(path).name}"
    source = case.source.replace(f'"{path}"', f'"{better}"').replace(f"'{path}'", f"'{better}'")
    if not _writes(case):
        fix = f"see who may:  ls -ld {shlex.quote(path)}"
    elif name is not None:
        fix = f"write it where outputs are collected:  {set_parameter(name, better)}"
    elif source != case.source:
        fix = replace_line(case, source)
    else:
        fix = f"write it into ./{_OUTPUT_FOLDER} instead"
    return Finding(cause, fix)


@on_error("OSError sqlite3.OperationalError", r"^\[Errno (?:28|122)\] (?!inotify)|^database or disk is full$")
def disk_full(case: Case, found: re.Match[str]) -> Finding:
    """The kernel's ENOSPC or EDQUOT, which stand for a limit of inotify too."""
    if case.went_through("multiprocessing/synchronize.py", "multiprocessing/heap.py"):
        fix = f"give it more:  {set_config('resources', {'shm_size': '8g'})}"
        return Finding(f"no space left in {SHARED_MEMORY}, which the processes of {case.place} share", fix)
    quota = " (the user's quota is used up)" if "122" in found[0] else ""
    return Finding(f"no space left where {case.place} writes{quota}", "df -h . && mlflow-azure prune")


@on_error("OSError", r"^\[Errno 24\] (?!inotify)")
def too_many_files(case: Case, _found: re.Match[str]) -> Finding:
    """The kernel's EMFILE, which stands for a limit of inotify too."""
    fix = "close them after use, or begin the command in MLproject with:  ulimit -n $(ulimit -Hn);"
    return Finding(f"too many files are open at once at {case.place}", fix)


@on_error("UnicodeDecodeError", r"^'([\w-]+)' codec can't decode bytes? (?:0x([0-9a-f]{2}) )?in position (\d+)")
def wrong_encoding(case: Case, found: re.Match[str]) -> Finding | None:
    """A file is in another encoding than the one it is read with."""
    codec, byte, position = found.groups()
    if (byte, position) == ("8b", "1"):
        return Finding(
            f"{case.place} reads a file as text that is compressed with gzip", "open it with gzip.open(path, 'rt')"
        )
    encoding = (
        "utf-8" if codec in ("ascii", "charmap") else "utf-16" if byte in ("ff", "fe") and position == "0" else "cp1252"
    )
    cause = f"a file that {case.place} reads is not {codec}"
    return Finding(cause, _with_encoding(case, codec, encoding))


@on_error("UnicodeEncodeError", r"^'(ascii|latin-1|charmap|cp\d+)' codec can't encode ")
def unprintable_text(case: Case, found: re.Match[str]) -> Finding:
    """Text does not fit into the encoding that it is written with."""
    cause = f"{case.place} writes text that does not fit into {found[1]}"
    if re.search(r"\bprint\(|\bstdout\b|\blogging\b|\blog(?:ger)?\.", case.source):
        return Finding(cause, f"write UTF-8:  {set_variable('PYTHONIOENCODING', 'utf-8')}")
    return Finding(cause, _with_encoding(case, found[1], "utf-8"))


@on_last_words(
    (1,), r"SyntaxError: Non-UTF-8 code starting with '\\x..' in file (.+) on line (\d+), but no encoding .*"
)
def source_not_utf8(case: Case, found: re.Match[str]) -> Finding | None:
    """The script itself is not UTF-8."""
    file = _relative(case, found[1])
    if file is None:
        return None
    lines = (read_source(case.evidence.project_folder, file) or "").split("\n")
    number = next((number for number, line in enumerate(lines, start=1) if "\ufffd" in line), int(found[2]))
    where = "1a" if lines[0].startswith("#!") else "1i"
    fix = f"say which encoding it has:  sed -i '{where} # coding: cp1252' {shlex.quote(file)}"
    return Finding(f"{file} holds characters that are not UTF-8", fix, f"{file}:{number}")


@on_error("_pickle.UnpicklingError json.decoder.JSONDecodeError", r"^invalid load key, 'v'|line 1 column 1 \(char 0\)$")
def unfetched_file(case: Case, _found: re.Match[str]) -> Finding | None:
    """A file that Git LFS has not fetched: what lies there is a note of three lines."""
    pointers = [name for name in case.named_files() if _first_bytes(case, name).startswith(_POINTER)]
    if len(pointers) != 1:
        return None
    return Finding(f"{pointers[0]} was not fetched by Git LFS", f"git lfs pull --include {shlex.quote(pointers[0])}")


@on_error("json.decoder.JSONDecodeError", r": line \d+ column \d+ \(char \d+\)$")
def broken_json(case: Case, found: re.Match[str]) -> Finding | None:
    """A JSON file or parameter that really is none, in the line that the program stumbled over."""
    for name, value in case.evidence.parameters.items():
        problem = _json_problem(value, found.string) if value[:1] in ("{", "[") else None
        if problem is not None:
            return Finding(f"the parameter {name} is not JSON: {problem}", f"write it as JSON:  -P {name}=<JSON>")
    for name in case.named_files():
        text = read_source(case.evidence.project_folder, name) if name.endswith(".json") else None
        problem = None if text is None else _json_problem(text, found.string)
        if problem is not None:
            return Finding(f"{name} is not JSON: {problem}", f"see where:  python -m json.tool {shlex.quote(name)}")
    return None


@on_error("yaml.scanner.ScannerError yaml.parser.ParserError", "")
def broken_yaml(case: Case, found: re.Match[str]) -> Finding | None:
    """PyYAML names the file and the line itself."""
    mark = next(
        (mark for word in reversed(case.words) if (mark := re.match(r' +in "([^"<]+)", line (\d+), column', word))),
        None,
    )
    if mark is None:
        return None
    name = _relative(case, mark[1]) or mark[1]
    return Finding(
        f"line {mark[2]} of {name} is not YAML: {found.string}", f"see it:  sed -n {mark[2]}p {shlex.quote(name)}"
    )


@on_error("git.exc.InvalidGitRepositoryError", "")
def no_repository(case: Case, _found: re.Match[str]) -> Finding | None:
    """The snapshot holds no ``.git``."""
    if not case.evidence.working_folder_is_snapshot:
        return None
    cause = f"{case.place} asks for the git repository, and the job runs in a snapshot, which has none"
    return Finding(cause, f"run it in the project folder:  {set_config('workdir', 'project')}")


def install_command(command: str) -> str:
    """How a command is installed, where we know it."""
    return COMMAND_PACKAGES.get(command, f"install {command} on the compute target")


def _path(found: re.Match[str]) -> str:
    """The path that an OSError names, out of Python's quotes; the first, where it names two."""
    named = found.groupdict()
    text = named.get("path") or named.get("h5") or named.get("plain") or ""
    literal = _LITERAL.match(text.removeprefix("b"))
    try:
        return text if literal is None else str(ast.literal_eval(literal[0]))
    except (SyntaxError, ValueError):
        return text


def _relative(case: Case, path: str) -> str | None:
    """``path`` relative to the working folder; None when it leads out of it."""
    folder = str(case.evidence.project_folder)
    relative = os.path.relpath(os.path.normpath(PurePosixPath(folder) / path), folder) if "\0" not in path else ".."
    return None if relative.split("/")[0] == ".." else relative


def _writes(case: Case) -> bool:
    """True when the user's statement, or a library's below it, opens a file to write."""
    frames = () if case.error is None else case.error.frames
    below = frames[frames.index(case.frame) :] if case.frame in frames else frames[-1:]
    return any(_WRITES.search(frame.source) for frame in below)


def _with_encoding(case: Case, codec: str, encoding: str) -> str:
    """The user's line with the right encoding, or how to say it."""
    spelt = re.search(r"encoding=([\"'])" + re.escape(codec) + r"\1", case.source)
    if spelt is not None:
        return replace_line(case, case.source.replace(spelt[0], f'encoding="{encoding}"'))
    call = re.search(r"\b(?:open|read_csv|read_text|read_table|write_text)\(([^()]*)\)", case.source)
    if call is not None and "encoding" not in call[1]:
        argument = f'encoding="{encoding}"' if not call[1] else f'{call[1]}, encoding="{encoding}"'
        return replace_line(case, case.source[: call.start(1)] + argument + case.source[call.end(1) :])
    return f'open it with:  encoding="{encoding}"'


def _first_bytes(case: Case, name: str) -> bytes:
    try:
        with (case.evidence.project_folder / name).open("rb") as stream:
            return stream.read(len(_POINTER))
    except OSError:
        return b""


def _json_problem(text: str, said: str) -> str | None:
    """Why ``text`` is not JSON, if that is what the job's Python said of it; None otherwise.

    Versions differ in the column that they name, and in the line where a comma is one too many.
    """
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        comma = "Illegal trailing comma"
        same = f": line {error.lineno} column " in said or said.startswith(comma) or error.msg.startswith(comma)
        return str(error) if same else None
    except RecursionError:
        return None
    return None
