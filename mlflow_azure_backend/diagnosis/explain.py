"""From evidence to a diagnosis: read the log, find the exception that ended the program, walk the table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from mlflow_azure_backend.diagnosis.case import Case, Finding
from mlflow_azure_backend.diagnosis.causes import CAUSES
from mlflow_azure_backend.diagnosis.ending import Ending, find_ending
from mlflow_azure_backend.diagnosis.evidence import Diagnosis, Evidence
from mlflow_azure_backend.diagnosis.traceback_reader import Trace, own_frame, path_in_project, read_log
from mlflow_azure_backend.redaction import without_credentials

_LINE_LIMIT: Final = 400
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def diagnose(evidence: Evidence) -> Diagnosis:
    """Say what went wrong, or that it is unknown; never raises, whatever the log holds."""
    log = read_log(evidence.log_tail, evidence.project_folder)
    ending = find_ending(log, evidence)
    if evidence.exit_code != 0:
        for case in (Case(evidence, error, ending.words) for error in (None, *ending.errors)):
            for cause_id, match in CAUSES:
                finding = match(case)
                if finding is not None:
                    return _diagnosis(cause_id, finding, _place_of(case, ending))
    return _diagnosis("unknown", Finding(_own_words(evidence, ending)), _at(ending.last, evidence.project_folder))


def locate(log_tail: bytes, project_folder: Path) -> str | None:
    """The user's own deepest frame of the last traceback, ``train.py:31  pd.read_csv(args.data)``; None without one."""
    traces = [trace for trace in read_log(log_tail, project_folder).traces if not trace.is_aside]
    place = _at(traces[-1], project_folder) if traces else None
    return None if place is None else _one_line(place)


def _place_of(case: Case, ending: Ending) -> str | None:
    folder = case.evidence.project_folder
    if case.error is None:
        return _at(ending.last, folder)
    return _at(case.error, folder) or _at(ending.last, folder)


def _at(trace: Trace | None, folder: Path) -> str | None:
    frame = None if trace is None else own_frame(trace, folder)
    if frame is None:
        return None
    return f"{path_in_project(frame.path, folder)}:{frame.line}  {frame.source}".rstrip()


def _own_words(evidence: Evidence, ending: Ending) -> str:
    """What is certain when no cause is: the exception that ended the program, or its exit code."""
    if ending.errors:
        error = ending.errors[0]
        return f"{error.type}: {error.message}" if error.message else error.type
    return f"the command exited with {evidence.exit_code}" if evidence.exit_code is not None else evidence.reason


def _diagnosis(cause_id: str, finding: Finding, at: str | None) -> Diagnosis:
    place = at if finding.at is None else finding.at
    fix = finding.fix
    if fix is not None and _CONTROL.search(fix.replace("\n", "")):
        fix = None  # a line with control characters in it cannot be pasted
    return Diagnosis(
        cause_id,
        _one_line(finding.cause),
        None if place is None else _one_line(place),
        None if fix is None else without_credentials(fix),
    )


def _one_line(text: str) -> str:
    line = without_credentials(_CONTROL.sub(" ", text))
    return line if len(line) <= _LINE_LIMIT else f"{line[: _LINE_LIMIT - 1]}…"
