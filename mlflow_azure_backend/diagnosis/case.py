"""A failure as the table of causes sees it, and the vocabulary of its entries."""

from __future__ import annotations

import difflib
import functools
import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from mlflow_azure_backend.diagnosis.ending import read_source
from mlflow_azure_backend.diagnosis.evidence import Evidence
from mlflow_azure_backend.diagnosis.traceback_reader import Frame, Trace, own_frame, path_in_project

_ENTRIES_LIMIT: Final = 5000
_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages", "mlruns", "mlartifacts", "venv", "env"})
_LITERAL = re.compile(r"'([^'\n]{1,200})'|\"([^\"\n]{1,200})\"")


class Finding(NamedTuple):
    """A cause that is certain.

    Attributes:
        cause: One line in the user's words.
        fix: One or two lines; what can be pasted follows the last ``":  "`` of a line. None when there is none to give.
        at: Where, if not at the user's own deepest frame.
    """

    cause: str
    fix: str | None = None
    at: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One failure to explain.

    Attributes:
        evidence: All that is known.
        error: The exception that ended the program; None when none did, or its end is looked at without it.
        words: The log's last lines that are not noise.
    """

    evidence: Evidence
    error: Trace | None
    words: tuple[str, ...]

    @property
    def frame(self) -> Frame | None:
        """The user's own deepest frame; None when there is none."""
        return None if self.error is None else own_frame(self.error, self.evidence.project_folder)

    @property
    def source(self) -> str:
        """The user's own statement that failed; empty when it is not known."""
        return "" if self.frame is None else self.frame.source

    @property
    def file(self) -> str | None:
        """The project-relative path of the user's file that failed; None when it is not known."""
        return None if self.frame is None else path_in_project(self.frame.path, self.evidence.project_folder)

    @property
    def place(self) -> str:
        """``train.py:31``, or words that stand for it."""
        return "your code" if self.frame is None else f"{self.file}:{self.frame.line}"

    def statement(self) -> str:
        """The failing statement and ten more lines, from the file; what the log shows of it when that is gone."""
        if self.frame is None or self.file is None:
            return ""
        text = read_source(self.evidence.project_folder, self.file) or ""
        return "\n".join(text.split("\n")[self.frame.line - 1 : self.frame.line + 10]) or self.source

    def went_through(self, *files: str) -> bool:
        """True when one of the exception's frames is in a file whose path ends so."""
        return self.error is not None and any(frame.path.endswith(files) for frame in self.error.frames)

    def exists(self, relative: str) -> bool:
        """True when the project's folder has such a file or folder now; False for what lies outside of it."""
        folder = self.evidence.project_folder
        path = Path(os.path.normpath(folder / relative))
        try:
            return path.is_relative_to(folder) and path.exists()
        except (OSError, ValueError):
            return False

    def lacks_exec_bit(self, relative: str) -> bool:
        """True for a file of the project that nobody may execute."""
        path = self.evidence.project_folder / relative
        return self.exists(relative) and path.is_file() and not path.stat().st_mode & 0o111

    def parameter_with_value(self, value: str) -> str | None:
        """The name of the one parameter that has this value; None when none or several have."""
        names = [name for name, given in self.evidence.parameters.items() if given == value]
        return names[0] if len(names) == 1 else None

    def left_out(self, paths: Iterable[str]) -> tuple[str, str] | None:
        """The first of these paths that the snapshot left out, with the rule; None when it left out none."""
        for path in paths:
            rule = self.evidence.left_out(path)
            if rule is not None:
                return path, rule
        return None

    def files(self) -> tuple[str, ...]:
        """The project's files, relative; hidden folders, environments and what comes after 5,000 entries left out."""
        folder = self.evidence.project_folder
        return tuple(_walk(folder)) if folder != Path(folder.anchor) else ()

    def named_files(self) -> tuple[str, ...]:
        """Files of the project that the parameters or the failing source file name."""
        text = None if self.file is None else read_source(self.evidence.project_folder, self.file)
        literals = (single or double for single, double in _LITERAL.findall(text or ""))
        names = dict.fromkeys((*self.evidence.parameters.values(), *literals))
        return tuple(name for name in names if "." in name and self.exists(name))


Matcher = Callable[[Case], Finding | None]
"""Recognises one cause; None when it is not certain."""
ErrorMatcher = Callable[[Case, re.Match[str]], Finding | None]


def on_error(types: str, pattern: str) -> Callable[[ErrorMatcher], Matcher]:
    """An entry for an exception: its exact type names, separated by spaces, and a pattern for its text's first line.

    What the user's own ``raise`` says is not looked at: whoever wrote it has named the cause better than we can.
    """
    names = frozenset(types.split())
    text = re.compile(pattern)

    def decorate(matcher: ErrorMatcher) -> Matcher:
        @functools.wraps(matcher)
        def match(case: Case) -> Finding | None:
            if case.error is None or case.error.type not in names:
                return None
            found = text.search(case.error.message)
            return None if found is None or _is_raised_by_user(case) else matcher(case, found)

        return match

    return decorate


def on_last_words(exit_codes: tuple[int, ...], pattern: str) -> Callable[[ErrorMatcher], Matcher]:
    """An entry for a program that ended without a traceback: its exit codes, and a pattern for its whole last line."""
    text = re.compile(pattern)

    def decorate(matcher: ErrorMatcher) -> Matcher:
        @functools.wraps(matcher)
        def match(case: Case) -> Finding | None:
            if case.error is not None or case.evidence.exit_code not in exit_codes or not case.words:
                return None
            found = text.fullmatch(case.words[-1])
            return None if found is None else matcher(case, found)

        return match

    return decorate


def closest(word: str, possible: Iterable[str]) -> str | None:
    """The one word that this was probably meant to be; None when none is near or two are as near."""
    near = difflib.get_close_matches(word, sorted(set(possible) - {word}), n=2, cutoff=0.7)
    if len(near) == 2:
        first, second = (difflib.SequenceMatcher(None, word, other).ratio() for other in near)
        return near[0] if first > second else None
    return near[0] if near else None


def nearest_file(case: Case, path: str) -> str | None:
    """The file of the project that ``path`` was probably meant to be; None when that is not clear."""
    wanted = PurePosixPath(path)
    files = case.files()
    same_name = [file for file in files if PurePosixPath(file).name == wanted.name]
    if same_name:
        return same_name[0] if len(same_name) == 1 else None
    folder = PurePosixPath(os.path.normpath(wanted.parent))
    beside = {PurePosixPath(file).name: file for file in files if PurePosixPath(file).parent == folder}
    name = closest(wanted.name, beside)
    return None if name is None else beside[name]


def set_parameter(name: str, value: str) -> str:
    """The option of ``mlflow run`` that sets a parameter."""
    return f"-P {shlex.quote(f'{name}={value}')}"


def set_config(key: str, value: object) -> str:
    """The option of ``mlflow run`` that sets one key of the backend configuration."""
    return f"--backend-config {shlex.quote(json.dumps({key: value}))}"


def set_variable(name: str, value: str) -> str:
    """The option of ``mlflow run`` that sets an environment variable."""
    return set_config("environment_variables", {name: value})


def replace_line(case: Case, source: str) -> str:
    """The advice to write another line in the user's file."""
    return f"in {case.place} write:  {source}"


def add_requirement(evidence: Evidence, requirement: str) -> str:
    """The advice to add a distribution to the project's environment."""
    file = evidence.environment_file
    if evidence.image is not None:
        return f"add to the Dockerfile of {evidence.image}:  RUN python -m pip install {shlex.quote(requirement)}"
    if file is None:
        return f"install it into this environment:  python -m pip install {shlex.quote(requirement)}"
    if file.endswith((".yaml", ".yml")):
        return f"add to the dependencies in {file}:  - {requirement}"
    return f"add to {file}:  {requirement}"


def _is_raised_by_user(case: Case) -> bool:
    if case.error is None or not case.error.frames:
        return False
    frame = case.error.frames[-1]
    return frame == case.frame and re.match(r"raise\b", frame.source) is not None


def _walk(folder: Path) -> Iterator[str]:
    seen = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        seen += len(folders) + len(files)
        if seen > _ENTRIES_LIMIT:
            return
        relative = Path(parent).relative_to(folder)
        yield from ((relative / name).as_posix() for name in sorted(files))
