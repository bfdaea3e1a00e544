"""Python tracebacks, read back from the text that a program printed.

The format is that of CPython's ``traceback`` module, 3.6 to 3.14: carets, notes, colours and exception groups included.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HEADER: Final = "Traceback (most recent call last):"
_FRAME = re.compile(r'  File "(?P<path>.*)", line (?P<line>\d{1,9})(?:, in (?P<function>.*))?')
_EXCEPTION = re.compile(r"(?P<type>[^\W\d][\w.]*(?:<locals>[\w.]*)*)(?::(?: (?P<message>.*))?)?")
_CARETS = re.compile(r"[\s^~]*")
_CAUSED_BY: Final = "The above exception was the direct cause of the following exception:"
# Tracebacks that Python prints while the program goes on: they never explain its end.
_ASIDE = re.compile(
    r"Exception ignored |Exception in thread |Error in atexit\.|--- Logging error ---|future: <|Exception in callback "
)

_TEXT_LIMIT: Final = 4000
_PYTHON = re.compile(r"(?:python|pypy)3(?:\.\d+)?t?")
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_RANK = re.compile(r"(?m)^(?:\[rank\d{1,6}\]: ?|\[\d{1,6},\d{1,6}\]<std(?:err|out)>: ?)")
_GROUP_START = re.compile(r"  \+ Exception Group " + re.escape(_HEADER))
_MARGIN = re.compile(r"\s*[|+] ?")
_SEPARATOR = re.compile(r"\s*\+[-+]{3,}.*")
_SEVERAL = re.compile(r"\(\d+ sub-exceptions\)$")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a traceback.

    Attributes:
        path: The file, as Python printed it.
        line: Its line, from 1.
        function: The function; None where a syntax error is.
        source: The first line of the statement, stripped; empty when Python could not show it.
    """

    path: str
    line: int
    function: str | None
    source: str


@dataclass(frozen=True, slots=True)
class Trace:
    """One exception that was printed with its traceback.

    Attributes:
        type: The exception's qualified name; a builtin's has no module.
        message: The first line of its text.
        frames: From the outermost to the deepest.
        label: The line above the traceback; empty when it is the log's first.
        start: Index of the traceback's first line, the label included when it belongs to it.
        end: Index of the first line after the exception's.
        direct_cause: The exception that this one was raised ``from``; None when there is none.
    """

    type: str
    message: str
    frames: tuple[Frame, ...]
    label: str
    start: int
    end: int
    direct_cause: Trace | None

    @property
    def is_aside(self) -> bool:
        """True when Python printed it without ending the program for it."""
        return _ASIDE.match(self.label) is not None


@dataclass(frozen=True, slots=True)
class Log:
    """The end of a log: its lines as a terminal would have left them, and the tracebacks among them."""

    lines: tuple[str, ...]
    traces: tuple[Trace, ...]


def read_log(tail: bytes, folder: Path) -> Log:
    """Read the end of a log. Never raises, whatever the bytes.

    Args:
        tail: The bytes; they may begin in the middle of a line or of a character.
        folder: The job's working folder; a newline in its name is not taken for the end of a line.
    """
    text = _ANSI.sub("", tail.decode("utf-8", "replace"))
    if "\n" in str(folder):
        text = text.replace(str(folder), _on_one_line(str(folder)))
    lines = tuple(_without_group_margins([_last_drawn(line) for line in _RANK.sub("", text).split("\n")]))
    return Log(lines, tuple(_read_traces(lines)))


def path_in_project(path: str, folder: Path) -> str | None:
    """The project-relative POSIX path of a frame's file; None for what is not the user's own source."""
    if path.startswith("<") or folder == Path(folder.anchor):
        return None
    for root in _spellings(folder):
        file = Path(os.path.normpath(root / path))
        if file.is_relative_to(root) and not _is_library(parts := file.relative_to(root).parts):
            return "/".join(parts)
    return None


def own_frame(trace: Trace, folder: Path) -> Frame | None:
    """The deepest frame in the user's own source, also inside a worker process; None when there is none."""
    remote = trace.direct_cause
    if remote is not None and remote.label == '"""' and remote.type == trace.type:
        found = own_frame(remote, folder)
        if found is not None:
            return found
    return next((frame for frame in reversed(trace.frames) if path_in_project(frame.path, folder) is not None), None)


@functools.lru_cache(maxsize=16)
def _spellings(folder: Path) -> tuple[Path, ...]:
    """The folder as the log may name it: as it was given, and with its links followed."""
    return tuple(dict.fromkeys(Path(_on_one_line(str(path))) for path in (folder, os.path.realpath(folder))))


def _is_library(parts: Sequence[str]) -> bool:
    if not parts or not {"site-packages", "dist-packages", "node_modules"}.isdisjoint(parts):
        return True
    return any(above == "lib" and _PYTHON.fullmatch(below) for above, below in itertools.pairwise(parts))


def _on_one_line(path: str) -> str:
    return path.replace("\n", "\\n")


def _last_drawn(line: str) -> str:
    """What a terminal shows of a line that was drawn over and over with carriage returns."""
    return line.rstrip("\r").rpartition("\r")[2]


def _without_group_margins(lines: list[str]) -> Iterator[str]:
    """Take the ``|`` margins off exception groups; of a group with several members only its own traceback stays."""
    in_group = dropping = False
    for line in lines:
        if not in_group and _GROUP_START.fullmatch(line):
            in_group, dropping = True, False
        in_group = in_group and _MARGIN.match(line) is not None
        if not in_group:
            yield line
            continue
        if _SEPARATOR.fullmatch(line):
            yield ""
            continue
        yield "" if dropping else _MARGIN.sub("", line, count=1)
        dropping = dropping or _SEVERAL.search(line) is not None


def _read_traces(lines: Sequence[str]) -> Iterator[Trace]:
    index = 0
    last: Trace | None = None
    while index < len(lines):
        trace = None
        if lines[index].endswith(_HEADER):
            trace, index = _read_trace(lines, index, index + 1, last)
        elif _FRAME.fullmatch(lines[index]) and _may_begin_without_header(lines, index):
            trace, index = _read_trace(lines, index, index, last)
        else:
            index += 1
        if trace is not None:
            last = trace
            yield trace


def _may_begin_without_header(lines: Sequence[str], index: int) -> bool:
    """A script that does not parse is shown without a header, and a long traceback's may have been cut off."""
    match = _FRAME.fullmatch(lines[index])
    if match is None or match["function"] is None:
        return match is not None
    return index <= 2 and not any(line.endswith("(most recent call last):") for line in lines[:index])


def _read_trace(lines: Sequence[str], start: int, index: int, last: Trace | None) -> tuple[Trace | None, int]:
    """Read frames and the exception from ``index`` on; also return where to go on reading."""
    frames = []
    while index < len(lines):
        match = _FRAME.fullmatch(lines[index])
        if match is None and not lines[index].startswith("  [Previous line repeated "):
            break
        index += 1
        if match is not None:
            source_at = index
            while index < len(lines) and lines[index].startswith("    "):
                index += 1
            shown = lines[source_at] if index > source_at else ""
            source = "" if _CARETS.fullmatch(shown) else shown.strip()[:_TEXT_LIMIT]
            frames.append(Frame(match["path"], int(match["line"]), match["function"], source))
    match = _EXCEPTION.fullmatch(lines[index]) if frames and index < len(lines) else None
    if match is None:
        return None, max(index, start + 1)
    label, label_at, caused = _above(lines, start)
    cause = last if caused else None
    trace = Trace(
        match["type"], (match["message"] or "")[:_TEXT_LIMIT], tuple(frames), label, label_at, index + 1, cause
    )
    return trace, index + 1


def _above(lines: Sequence[str], start: int) -> tuple[str, int, bool]:
    """The line that labels a traceback, where both begin, and whether the exception before is its direct cause."""
    above = start - 1
    while above >= 0 and not lines[above].strip():
        above -= 1
    label = lines[above] if above >= 0 else ""
    if label == _CAUSED_BY:
        return label, above, True
    if above < start - 1 and not _ASIDE.match(label):
        return "", start, False
    return label, (above if _ASIDE.match(label) else start), False
