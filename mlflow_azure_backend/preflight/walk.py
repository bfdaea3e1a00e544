"""Follows a command from its first step to its last, and says where it is going to stumble.

A step is judged only as long as nothing ran before it that could have changed what it finds: a script that makes files,
a ``git clone``, a ``source``. What comes after such a step is left to the run itself.
"""

from __future__ import annotations

import ast
import enum
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mlflow_azure_backend.preflight.programs import (
    BUILTINS,
    SHELLS,
    PythonCall,
    pip_files,
    read_python,
    read_rscript,
    read_shell,
)
from mlflow_azure_backend.preflight.script import parse, syntax_error, usage_error
from mlflow_azure_backend.preflight.shell import HARMLESS, Step, Word
from mlflow_azure_backend.preflight.site import Site, exists, is_importable, is_python, missing_module

_MAX_SCRIPT: Final = 128 * 1024
"""Bytes; a longer script takes too long to compile for a look ahead."""
_ENDS_THE_READING: Final = frozenset(
    (".", "alias", "builtin", "enable", "eval", "exec", "exit", "popd", "pushd", "return", "shopt", "source", "trap")
)
_DECLARING: Final = frozenset(("declare", "export", "local", "readonly", "typeset"))
_INPUT: Final = re.compile(
    r"--?(?!.*(?:out|save|log|dest|result|export|cache))"
    r".*(?:data|input|train|test|valid|csv|conf|source|label|feature)",
    re.IGNORECASE,
)
"""Options that name what a program reads."""
_CORRECT: Final = "correct the command in MLproject, or add what is missing"
_NOT_FOUND: Final = 127
_NOT_RUNNABLE: Final = 126


class Doubt(enum.IntEnum):
    """What may have changed since the command began."""

    NOTHING = 0
    OUTPUTS = 1
    """Scripts of the project ran, which make data and not the next script."""
    ANYTHING = 2


@dataclass(frozen=True, slots=True)
class Stumble:
    """One thing that will go wrong.

    Attributes:
        what: What, in a few words.
        next_step: What to do; None when there is no advice.
        exit_code: What the program would exit with; None when the diagnosis need not be asked for better words.
        last_words: What it would print.
        is_certain: The job is sure to fail for it.
    """

    what: str
    next_step: str | None = None
    exit_code: int | None = None
    last_words: str = ""
    is_certain: bool = True


class Walk:
    """The state of a command's shell, as far as it is known.

    Attributes:
        program: The source of the Python script that the last step runs; None when it runs none, or not for certain.
        knows_options: That script's options are known, so that its arguments are judged already.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._folder: str | None = str(site.folder)
        self._doubt = Doubt.NOTHING
        self._path_is_known = True
        self._changed: set[str] = set()
        self._made: set[str] = set()
        self._exits_on_error = False
        self._pipes_fail = False
        self.program: str | None = None
        self.knows_options = False

    def follow(self, steps: tuple[Step, ...]) -> Iterator[Stumble]:
        """What goes wrong on the way, in order."""
        for step in steps:
            self.program, self.knows_options = None, False
            if step.runs_more:
                self._doubt, self._path_is_known = Doubt.ANYTHING, False
            is_fatal = (
                self._doubt is Doubt.NOTHING
                and (step.ends_pipe or self._pipes_fail)
                and (step.in_last_list or (self._exits_on_error and step.ends_list))
            )
            if not step.is_forgiven and self._doubt is not Doubt.ANYTHING:
                for found in self._judge(step):
                    yield replace(found, is_certain=found.is_certain and is_fatal)
            if not self._pass(step):
                return

    # What a step does to those after it.

    def _pass(self, step: Step) -> bool:
        """Take note of what a step changes; False when nothing can be said of what follows."""
        for written in step.writes:
            self._make(written)
        if not step.words:
            self._assign(step.assigned)
            return True
        words = _unwrapped(step.words)
        name = words[0].text
        if name is None:
            self._folder, self._doubt, self._path_is_known = None, Doubt.ANYTHING, False
        elif name in _ENDS_THE_READING or step.words[0].text == "exec":
            return False
        elif name == "cd":
            if not step.in_pipe:
                self._folder = self._target_of_cd(words)
        elif name in HARMLESS or name == "mkdir":
            self._note_setting(name, words)
        elif _is_pip(words):
            self._path_is_known, self._changed = False, {*self._changed, "modules"}
        else:
            self._path_is_known = False
            runs_script = is_python(name) or name in SHELLS or name == "Rscript"
            self._doubt = max(self._doubt, Doubt.OUTPUTS if runs_script else Doubt.ANYTHING)
        return True

    def _note_setting(self, name: str, words: tuple[Word, ...]) -> None:
        texts = [word.text for word in words[1:]]
        if name == "mkdir":
            for text in texts:
                self._make(text)
        elif name in _DECLARING or name == "unset":
            self._assign(frozenset((text or "PATH").partition("=")[0] for text in texts))
        elif name == "set":
            options = " ".join(text or "" for text in texts)
            is_off = re.search(r"(^| )\+", options) is not None  # which of them is not worth knowing
            self._exits_on_error = not is_off and (
                self._exits_on_error or re.search(r"(^| )-\w*e|errexit", options) is not None
            )
            self._pipes_fail = not is_off and (self._pipes_fail or "pipefail" in options)

    def _assign(self, names: frozenset[str]) -> None:
        self._changed |= names
        self._path_is_known = self._path_is_known and "PATH" not in names

    def _make(self, path: str | None) -> None:
        if path is None or self._folder is None:
            self._doubt = Doubt.ANYTHING
        else:
            made = os.path.normpath(os.path.join(self._folder, path))  # noqa: PTH118 - ".." is the shell's to resolve
            self._made.add(made)
            self._made.update(map(str, Path(made).parents) if len(made) < 4096 else ())

    def _target_of_cd(self, words: tuple[Word, ...]) -> str | None:
        """The folder that is changed to; None when that is not certain, or it is not there."""
        target = words[1].text if len(words) == 2 else None
        if self._folder is None or not target or target.startswith("-") or self._is_missing(target):
            return None
        is_searched = "CDPATH" in {*self._site.variables, *self._changed}
        return None if is_searched else os.path.join(self._folder, target)  # noqa: PTH118

    # What is wrong with a step.

    def _judge(self, step: Step) -> Iterator[Stumble]:
        for read in step.reads:
            if read is not None and self._is_missing(read):
                yield from self._missing(read, f"the file {read}, which < reads, does not exist")
                return
        words = _unwrapped(step.words)
        name = words[0].text if words else None
        if name is None:
            return
        if name == "cd":
            yield from self._judge_cd(words)
        elif name not in BUILTINS:
            found = list(self._judge_program(name, step))
            yield from found or self._judge_arguments(name, step, words[1:])
            yield from self._judge_inputs(words[1:])

    def _judge_cd(self, words: tuple[Word, ...]) -> Iterator[Stumble]:
        target = words[1].text if len(words) == 2 else None
        is_searched = "CDPATH" in {*self._site.variables, *self._changed}
        if target and not target.startswith("-") and not is_searched and self._is_missing(target):
            yield from self._missing(target, f"the folder {target} does not exist")

    def _judge_program(self, name: str, step: Step) -> Iterator[Stumble]:
        """Whether bash can start it."""
        if "/" in name:
            yield from self._judge_path(name)
        elif self._path_is_known and "PATH" not in step.assigned and self._doubt is Doubt.NOTHING:
            if not self._site.finds(name):
                said = f"bash: line 1: {name}: command not found"
                yield Stumble(f"the command {name} is not on this machine", None, _NOT_FOUND, said)
            elif self._site.path is None and (meant := _meant_interpreter(name)) and not self._is_on_path(name):
                yield Stumble(f"there is probably no command {name}", f"did you mean {meant}?", is_certain=False)

    def _judge_path(self, name: str) -> Iterator[Stumble]:
        if self._is_missing(name):
            said = f"bash: line 1: {name}: No such file or directory"
            yield from self._missing(name, f"the program {name} does not exist", _NOT_FOUND, said)
        elif self._folder is not None and self._doubt is Doubt.NOTHING:
            path = Path(os.path.join(self._folder, name))  # noqa: PTH118
            if not path.is_file() or str(path) in self._made:
                return
            if not path.stat().st_mode & 0o111:
                said = f"bash: line 1: {name}: Permission denied"
                yield Stumble(f"{name} is not executable", f"chmod +x {shlex.quote(name)}", _NOT_RUNNABLE, said)
            elif re.match(rb"#! *(/\S+|/usr/bin/env +[^\s-]\S*)\r\n", _head(path)):
                said = f"bash: line 1: {name}: cannot execute: required file not found"
                yield Stumble(f"the lines of {name} end as on Windows", None, _NOT_FOUND, said)

    def _judge_arguments(self, name: str, step: Step, rest: tuple[Word, ...]) -> Iterator[Stumble]:
        if _is_pip((Word(name, False), *rest)):
            for file in pip_files(rest):
                if self._is_missing(file):
                    yield from self._missing(file, f"{file}, which pip reads, does not exist")
        elif is_python(name):
            call = read_python(rest)
            if call is not None and call.is_module:
                yield from self._judge_module(name, step, call)
            elif call is not None:
                yield from self._judge_script(name, step, call)
        elif name in SHELLS or name == "Rscript":
            script = read_rscript(rest) if name == "Rscript" else read_shell(rest)
            if script is None or not self._is_missing(script):
                return
            if name == "Rscript" or "/" in script or not (self._is_on_path(script) or not self._path_is_known):
                yield from self._missing(script, f"the script {script} does not exist")

    def _is_on_path(self, name: str) -> bool:
        """Whether bash finds a file there; it looks there for a script, too, if its name has no slash."""
        return any(exists(f"{folder}/{name}") for folder in self._site.path_folders())

    def _judge_inputs(self, words: tuple[Word, ...]) -> Iterator[Stumble]:
        """Data that the user has here, and that the job in its snapshot will not have."""
        if self._site.snapshot is None or self._doubt is not Doubt.NOTHING:
            return
        texts = [word.text or "" for word in words]
        for option, value in zip(texts, [*texts[1:], ""], strict=False):
            name, joined, given = option.partition("=")
            path = given if joined else value
            if not _INPUT.match(name) or not path or path.startswith(("/", "-")) or not self._is_missing(path):
                continue
            rule = self._rule(path)
            if rule is not None:
                step = f"declare it in MLproject as a parameter of type path, or include {path} in the snapshot"
                yield Stumble(f"{path} exists here but was left out by {rule}", step, is_certain=False)

    def _rule(self, text: str) -> str | None:
        path = f"{self._folder}/{text}"
        return None if text.startswith("/") else self._site.rule(os.path.relpath(path, self._site.folder))

    def _judge_script(self, name: str, step: Step, call: PythonCall) -> Iterator[Stumble]:
        script = call.target
        if self._is_missing(script):
            path = os.path.join(self._folder or "", script)  # noqa: PTH118
            said = f"{name}: can't open file {path!r}: [Errno 2] No such file or directory"
            yield from self._missing(script, f"the script {script} does not exist", 2, said)
            return
        source = self._source(script)
        if source is None or "x" in call.flags:
            return
        data, place = source
        if self._is_our_python(name, step):
            refused = syntax_error(data, str(place))
            if refused is not None:
                reason = refused.splitlines()[-1]
                step_text = f"see it:  python -m py_compile {shlex.quote(script)}"
                yield Stumble(f"{script} is not valid Python: {reason}", step_text, 1, refused)
                return
        self.program = data.decode("utf-8", "replace")
        texts = [word.text for word in call.arguments if word.text is not None]
        if self._is_our_python(name, step) and len(texts) == len(call.arguments) and b"argparse" in data:
            yield from self._judge_options(parse(data), place.name, texts)

    def _judge_options(self, tree: ast.Module | None, name: str, arguments: list[str]) -> Iterator[Stumble]:
        if tree is None:
            return
        self.knows_options, said = usage_error(tree, name, arguments)
        if said is not None:
            reason = said.splitlines()[-1].partition(" error: ")[2]
            yield Stumble(f"{name} will refuse its arguments: {reason}", None, 2, said)

    def _judge_module(self, name: str, step: Step, call: PythonCall) -> Iterator[Stumble]:
        """Only regular packages of the project are certain, and modules that neither it nor our interpreter has."""
        variables = {*self._site.variables, *self._changed, *step.assigned}
        isolated = call.flags & {"I", "P"} or "PYTHONSAFEPATH" in variables or "modules" in self._changed
        if self._folder is None or isolated or not re.fullmatch(r"[A-Za-z_][\w.]{0,200}", call.target):
            return
        package, *inner = call.target.split(".")
        if inner or (Path(self._folder) / package).is_dir():
            missing = missing_module(Path(self._folder) / package, inner)
            if missing is not None and self._doubt is Doubt.NOTHING:
                yield Stumble(f"there is no module {call.target} to run: {missing}", _CORRECT)
            return
        if not (self._site.has_our_packages and self._is_our_python(name, step) and self._doubt is Doubt.NOTHING):
            return
        if "PYTHONPATH" in {*self._changed, *step.assigned} or is_importable(package, Path(self._folder)):
            return
        near = self._site.near(f"{self._folder}/{package}.py")
        meant = None if near is None else f"did you mean python -m {near.removesuffix('.py')}?"
        yield Stumble(f"there is no module {package}", meant, None if near else 1, f"{name}: No module named {package}")

    # Files.

    def _is_our_python(self, name: str, step: Step) -> bool:
        """Whether a ``python`` is of our own version."""
        return name in self._site.our_pythons and "PATH" not in {*self._changed, *step.assigned}

    def _is_missing(self, text: str) -> bool:
        if self._folder is None or "://" in text or not text:
            return False
        path = os.path.join(self._folder, text)  # noqa: PTH118 - an absolute text stands for itself
        if os.path.normpath(path) in self._made:
            return False
        return not self._site.holds(path, is_absolute=text.startswith("/"))

    def _missing(self, text: str, what: str, exit_code: int | None = None, last_words: str = "") -> Iterator[Stumble]:
        """A missing file; after other scripts only one that looks like a slip, for they may make what is missing."""
        rule = self._rule(text)
        near = None if text.startswith("/") else self._site.near(f"{self._folder}/{text}")
        if rule is not None:
            what, advice = f"{text} exists here but was left out by {rule}", "take it into the snapshot"
        elif near is not None:
            advice = f"did you mean {Path(text).with_name(near)}?"
        elif self._doubt is Doubt.NOTHING:
            advice = _CORRECT
        else:
            return
        yield Stumble(what, advice, exit_code, last_words)

    def _source(self, script: str) -> tuple[bytes, Path] | None:
        """A Python script's text and place; None when it cannot be read now, or is none."""
        if self._folder is None or not script.endswith(".py"):
            return None
        path = Path(os.path.normpath(os.path.join(self._folder, script)))  # noqa: PTH118
        if str(path) in self._made:
            return None
        try:
            if not path.is_file() or path.stat().st_size > _MAX_SCRIPT:
                return None
            return path.read_bytes(), path
        except (OSError, ValueError):
            return None


def _unwrapped(words: tuple[Word, ...]) -> tuple[Word, ...]:
    """A command without ``exec``, ``time`` and the like in front, where those have no options of their own."""
    while len(words) > 1 and words[0].text in ("command", "env", "exec", "nohup", "time"):
        rest = words[1:]
        while words[0].text == "env" and rest and re.match(r"[A-Za-z_]\w*=", rest[0].text or ""):
            rest = rest[1:]
        if not rest or rest[0].text is None or rest[0].text.startswith("-"):
            break
        words = rest
    return words


def _is_pip(words: tuple[Word, ...]) -> bool:
    texts = [word.text or "" for word in words[:3]]
    return re.fullmatch(r"pip3?(\.\d+)?", texts[0]) is not None or (is_python(texts[0]) and texts[1:3] == ["-m", "pip"])


def _meant_interpreter(name: str) -> str | None:
    """The interpreter of which a name is a slip with the same letters."""
    return next((one for one in ("python", "Rscript") if name != one and sorted(one) == sorted(name)), None)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.readline(200)
    except OSError:
        return b""
