"""Which of the exceptions in a log ended the program: the last one, if nothing shows that the program went on.

A printed traceback is no proof: programs also print the exceptions that they survive. One is taken for the end only
when the command exited with 1, as Python does after an uncaught exception, and either

- nothing but known noise follows it, or
- its script could not have caught it: ``python train.py`` is the whole command, and the statement of ``train.py`` that
  failed stands in no ``try`` and no ``with``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlflow_azure_backend.diagnosis.evidence import Evidence
from mlflow_azure_backend.diagnosis.traceback_reader import Frame, Log, Trace, path_in_project

SOURCE_LIMIT: Final = 256 * 1024
"""Bytes: a longer source file is not read."""

_WORDS_LIMIT: Final = 500
_GUARDS: Final = (ast.Try, getattr(ast, "TryStar", ast.Try), ast.With, ast.AsyncWith)
# What other parties print after the program's own last word.
_NOISE = re.compile(
    r"\s*|wandb:.*|COMET .*|\[W\d.*|\[rank\d+\]:\[W.*|.*\d%\|.*|make(?:\[\d+\])?: \*\*\* .*"
    r"|\U0001f3c3 View run .*|\U0001f9ea View experiment .*|\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (?:INFO|WARNING) mlflow.*"
    r"|.*resource_tracker.*UserWarning.*|ERROR conda\.cli\.main_run.*|Execution halted|srun: error: .*|\"\"\""
)
# Exceptions whose text has several lines: how the first begins, and how the last one does.
_LONG_MESSAGES: Final = (
    (re.compile(r"Changing param values is not allowed|INVALID_PARAMETER_VALUE: Changing param"), "tracking store."),
    (re.compile(r"module 'numpy' has no attribute "), "    https://numpy.org/"),
    (re.compile(r"Input (?:X|y)? ?contains NaN"), ""),
    (re.compile(r"Weights only load failed"), "Check the documentation of torch.load"),
    (re.compile(r"CUDA (?:error|out of memory)"), "Compile with `TORCH_USE_CUDA_DSA`"),
)
_NAN_HINT: Final = re.compile(r".* does not accept missing values encoded as NaN natively\..*")
# These exceptions say that another process failed; what that one printed just before is the better answer.
_MESSENGERS: Final = frozenset(
    {"subprocess.CalledProcessError", "torch.distributed.elastic.multiprocessing.errors.ChildFailedError"}
)


@dataclass(frozen=True, slots=True)
class Ending:
    """What ended the program, as far as the log proves it.

    Attributes:
        errors: The exceptions to explain, the first one first: the last that was raised, then what directly caused it.
            Empty when no exception is proven to have ended the program.
        last: The exception to point at; None when there is none, or the program went on after it.
        words: The log's last lines that are not noise, at most fifty.
    """

    errors: tuple[Trace, ...]
    last: Trace | None
    words: tuple[str, ...]


def find_ending(log: Log, evidence: Evidence) -> Ending:
    """Tell what ended the program."""
    words = tuple(line[:_WORDS_LIMIT] for line in log.lines[-400:] if not _is_noise(line))[-50:]
    traces = [trace for trace in log.traces if not trace.is_aside]
    if not traces or evidence.exit_code == 0:
        return Ending((), None, words)
    last = traces[-1]
    is_last_word = _nothing_follows(log, last, len(log.lines))
    if not is_last_word and _may_have_been_caught(last, evidence.project_folder):
        return Ending((), None, words)
    exited_for_it = evidence.exit_code == 1 or any(line.startswith("make: *** ") for line in log.lines[-3:])
    if not exited_for_it or not (is_last_word or _is_whole_command(last, evidence)):
        return Ending((), last, words)
    return Ending(tuple(_with_causes(log, traces)), last, words)


def read_source(folder: Path, relative: str) -> str | None:
    """The text of a source file of the project; None when it is missing, too long or unreadable."""
    try:
        path = folder / relative
        if not path.is_file() or path.stat().st_size > SOURCE_LIMIT:
            return None
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return None


def project_file(folder: Path) -> str:
    """The text of the MLproject, however it is spelt; empty when there is none."""
    texts = (read_source(folder, name) for name in ("MLproject", "MLProject", "mlproject"))
    return next((text for text in texts if text is not None), "")


def _is_noise(line: str) -> bool:
    return len(line) <= _WORDS_LIMIT and _NOISE.fullmatch(line) is not None


def _nothing_follows(log: Log, trace: Trace, until: int) -> bool:
    """True when only noise, and the rest of its own text, stands between an exception and a later line."""
    following = list(log.lines[trace.end : until])
    for aside in log.traces:
        if aside.is_aside and trace.end <= aside.start < until:
            for index in range(aside.start, min(aside.end, until)):
                following[index - trace.end] = ""
    for index, line in enumerate(following):
        if line.startswith("Exception ignored "):  # the exception follows, without a traceback
            following[index : index + 2] = [""] * len(following[index : index + 2])
    index = _skip_long_message(trace, following)
    return all(_is_noise(line) or line.startswith(("  ", "\t")) for line in following[index:])


def _skip_long_message(trace: Trace, following: Sequence[str]) -> int:
    """How many of the lines that follow belong to the exception's own text."""
    if following and _NAN_HINT.fullmatch(following[0]):
        return 1
    if trace.type in _MESSENGERS:
        return next((at + 1 for at in reversed(range(len(following))) if set(following[at]) == {"="}), 0)
    for first, last in _LONG_MESSAGES:
        if last and first.match(trace.message):
            return next((at + 1 for at, line in enumerate(following) if line.startswith(last)), 0)
    return 0


def _with_causes(log: Log, traces: Sequence[Trace]) -> Iterator[Trace]:
    error: Trace | None = traces[-1]
    while error is not None:
        yield error
        error = error.direct_cause or _message_of(error, log, traces)


def _message_of(messenger: Trace, log: Log, traces: Sequence[Trace]) -> Trace | None:
    """What the process printed last whose failure ``messenger`` reports; None when that is not certain."""
    if messenger.type not in _MESSENGERS or "exit status" in messenger.message.removesuffix("exit status 1."):
        return None
    earlier = [trace for trace in traces if trace.end <= messenger.start]
    return earlier[-1] if earlier and _nothing_follows(log, earlier[-1], messenger.start) else None


def _outermost(trace: Trace) -> Frame | None:
    """The first frame that is not Python's own way to a module's code."""
    return next((frame for frame in trace.frames if "runpy" not in frame.path), None)


def _may_have_been_caught(trace: Trace, folder: Path) -> bool:
    """False when the exception left its script's outermost statement, and that stands in no ``try`` or ``with``.

    A printed traceback begins at the frame that caught the exception, so the outermost frame alone decides.
    """
    frame = _outermost(trace)
    if frame is None or frame.function not in ("<module>", None):
        return True
    relative = path_in_project(frame.path, folder)
    source = None if relative is None else read_source(folder, relative)
    if source is None:
        return True
    if frame.function is None:
        return False  # a script that does not parse never ran
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    return any(_guards(statement, frame.line) for statement in statements)


def _guards(statement: ast.stmt, line: int) -> bool:
    """True when ``line`` lies in a ``try`` or ``with`` of this statement of a module."""
    if not statement.lineno <= line <= (statement.end_lineno or statement.lineno):
        return False
    return any(
        isinstance(node, _GUARDS) and node.lineno <= line <= (node.end_lineno or node.lineno)
        for node in ast.walk(statement)
    )


def _is_whole_command(trace: Trace, evidence: Evidence) -> bool:
    """True when the entry point does nothing but run the script that the exception left."""
    frame = _outermost(trace)
    script = None if frame is None else path_in_project(frame.path, evidence.project_folder)
    if script is None:
        return False
    if evidence.entry_point == script:
        return True
    commands = [
        line
        for line in project_file(evidence.project_folder).split("\n")
        if re.search(rf"(?<![\w./-]){re.escape(script)}(?![\w./-])", line)
    ]
    simple = re.compile(rf"\s*command:\s*[\"']?python[\w.]*(?: -[A-Za-z]+)* {re.escape(script)}(?: [^;|&<>`$()]*)?")
    return bool(commands) and all(simple.fullmatch(command) for command in commands)
