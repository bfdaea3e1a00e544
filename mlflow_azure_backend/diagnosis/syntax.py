"""Causes in the text of the user's code: what no version of Python parses."""

from __future__ import annotations

import re
import shlex

from mlflow_azure_backend.diagnosis.case import Case, Finding, on_error, replace_line
from mlflow_azure_backend.diagnosis.ending import read_source


@on_error("SyntaxError IndentationError", "")
def merge_conflict(case: Case, _found: re.Match[str]) -> Finding | None:
    """Git's marks of a conflict."""
    if not _is_in_users_file(case) or not re.match(r"<{7} |={7}$|>{7} ", case.source):
        return None
    return Finding(
        f"{case.file} holds a merge conflict that is not resolved", f"git mergetool {shlex.quote(case.file or '')}"
    )


@on_error(
    "SyntaxError", r"^invalid (?:non-printable )?character (?:'(?P<character>.)' )?\(?U\+(?P<code>[0-9A-F]{4})\)?$"
)
def strange_character(case: Case, found: re.Match[str]) -> Finding | None:
    """A character of a word processor: a space that does not break, or quotes that curl."""
    if not _is_in_users_file(case):
        return None
    plain = {
        "00A0": " ",
        "2007": " ",
        "202F": " ",
        "FEFF": "",
        "200B": "",
        "2018": "'",
        "2019": "'",
        "201C": '"',
        "201D": '"',
    }
    code, file = found["code"], case.file or ""
    cause = f"{case.place} holds the character U+{code}, which Python does not read as code"
    if code not in plain:
        return Finding(cause)
    family = {"'": "\u2018\u2019", '"': "\u201c\u201d"}.get(plain[code], chr(int(code, 16)))
    command = ";".join(f"s/{character}/{plain[code]}/g" for character in family)
    return Finding(cause, f"sed -i {shlex.quote(command)} {shlex.quote(file)}")


@on_error("IndentationError TabError", "")
def wrong_indentation(case: Case, found: re.Match[str]) -> Finding | None:
    """Python's own word on the indentation."""
    if not _is_in_users_file(case) or case.frame is None:
        return None
    cause = f"the indentation of {case.place} is wrong: {found.string}"
    file = shlex.quote(case.file or "")
    if found.string.startswith("expected an indented block"):
        indent = _indent_above(case) + "    "
    elif found.string == "unexpected indent":
        indent = _indent_above(case)
    else:
        return Finding(cause, f"see where tabs and spaces differ:  cat -A {file} | sed -n {case.frame.line}p")
    return Finding(cause, f"sed -i '{case.frame.line}s/^[[:space:]]*/{indent}/' {file}")


@on_error("SyntaxError", "")
def broken_syntax(case: Case, found: re.Match[str]) -> Finding | None:
    """Anything else in the user's own file that Python cannot parse."""
    if not _is_in_users_file(case):
        return None
    fix = None
    if found.string == "expected ':'" and re.fullmatch(r"[^#'\"]*[^#'\":\s]", case.source):
        fix = replace_line(case, f"{case.source}:")
    return Finding(f"{case.place} is not valid Python: {found.string}", fix)


def _is_in_users_file(case: Case) -> bool:
    """True when the place that does not parse, always a traceback's last, is in the user's own file."""
    return case.error is not None and case.frame == case.error.frames[-1] and case.error.frames[-1].function is None


def _indent_above(case: Case) -> str:
    """The indentation of the nearest line above that is not blank."""
    text = None if case.file is None else read_source(case.evidence.project_folder, case.file)
    above = (text or "").split("\n")[: 0 if case.frame is None else case.frame.line - 1]
    line = next((line for line in reversed(above) if line.strip()), "")
    return line[: len(line) - len(line.lstrip())]
