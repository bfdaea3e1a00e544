"""Causes that the job's end itself proves, whatever its log says: the reason, the signal, the kernel."""

from __future__ import annotations

import re
import signal
from typing import Final

from mlflow_azure_backend.diagnosis.case import Case, Finding, on_error, set_config, set_parameter, set_variable
from mlflow_azure_backend.diagnosis.ending import read_source
from mlflow_azure_backend.diagnosis.traceback_reader import path_in_project
from mlflow_azure_backend.status import TerminationReason

_SIGKILL: Final = 9
_SIGSEGV: Final = 11
_SIGNAL_OFFSET: Final = 128
"""A shell reports signal n as exit code 128 + n."""

# How a shell reports the death of a command: "bash: line 1: 14075 Killed   python train.py", or the word alone.
_SHELL_REPORT = re.compile(
    r"(?:\S[^:]*: (?:line \d+: *)?(?:\d+ )?)?(?P<word>[A-Z][A-Za-z ]{3,30}?)(?: \(core dumped\))?(?:  .*)?"
)
_SHELL_WORDS: Final = {
    "Killed": "SIGKILL",
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Floating point exception": "SIGFPE",
    "Terminated": "SIGTERM",
    "Alarm clock": "SIGALRM",
    "CPU time limit exceeded": "SIGXCPU",
    "File size limit exceeded": "SIGXFSZ",
    "Hangup": "SIGHUP",
}
_MEANING: Final = {
    "SIGABRT": "it gave up by itself: native code called abort()",
    "SIGALRM": "an alarm that the program had set with signal.alarm or setitimer rang, and nothing handled it",
    "SIGBUS": "a file or shared memory that it had mapped could not be read",
    "SIGFPE": "native code divided an integer by zero",
    "SIGHUP": "its terminal was closed",
    "SIGILL": "native code was compiled for another kind of processor",
    "SIGINT": "it was interrupted, as by Ctrl-C",
    "SIGKILL": "another process, an administrator or the kernel ended it",
    "SIGTERM": "another process or an administrator asked it to end",
    "SIGXCPU": "it reached the limit of CPU time (ulimit -t)",
    "SIGXFSZ": "it reached the limit of a file's size (ulimit -f)",
}
_FATAL_ERROR: Final = "Fatal Python error: "
_FAULT_FRAME = re.compile(r'  File "(.*)", line (\d{1,9}) in .*')


def timed_out(case: Case) -> Finding | None:
    """The supervisor ended it at its limit."""
    limit = case.evidence.timeout
    if case.evidence.reason != TerminationReason.TIMEOUT.value:
        return None
    if limit is None:
        return Finding("it ran longer than its timeout")
    return Finding(
        f"it ran longer than its timeout of {limit:g} s", f"allow more:  {set_config('timeout', f'{2 * limit:g}s')}"
    )


def ended_from_outside(case: Case) -> Finding | None:
    """Somebody or something else than the program ended it."""
    said = {
        TerminationReason.CANCELED.value: Finding("it was cancelled"),
        TerminationReason.CLIENT_DIED.value: Finding(
            "the client that it was attached to died",
            f"let it go on without a client:  {set_config('detach', value=True)}",
        ),
        TerminationReason.LOST.value: Finding(
            case.evidence.message or "its supervisor or its machine died before the command ended"
        ),
    }
    return said.get(case.evidence.reason)


def never_started(case: Case) -> Finding | None:
    """The command never ran; the target's message says why."""
    if case.evidence.reason != TerminationReason.START_FAILED.value:
        return None
    message = case.evidence.message
    return Finding("the command never started" if message is None else f"the command never started: {message}")


def out_of_memory(case: Case) -> Finding | None:
    """The kernel's own word that it killed a process of the job, and the program ended for that."""
    if not case.evidence.oom:
        return None
    lost_worker = case.error is not None and case.error.type.endswith(("BrokenProcessPool", "TerminatedWorkerError"))
    if _signal_of(case) != _SIGKILL and not lost_worker:
        return None
    if case.evidence.memory_limit is not None:
        return _over_the_limit(case, case.evidence.memory_limit)
    peak = case.evidence.memory_peak or case.evidence.max_rss
    seen = "" if peak is None else f"; the most that was seen in one process is {_amount(peak)}"
    return Finding(f"out of memory: the kernel ended it{seen}", less_at_a_time(case))


def _over_the_limit(case: Case, limit: int) -> Finding:
    peak = case.evidence.memory_peak
    seen = "" if peak is None else f", and it had {_amount(peak)} at the most"
    more = set_config("resources", {"memory": f"{-(-limit * 2 // 2**20)}MiB"})
    fix = "\n".join(filter(None, (less_at_a_time(case), f"allow more:  {more}")))
    return Finding(f"out of memory: the container may have {_amount(limit)}{seen}", fix)


@on_error("MemoryError numpy.core._exceptions._ArrayMemoryError numpy._core._exceptions._ArrayMemoryError", "")
def memory_refused(case: Case, _found: re.Match[str]) -> Finding:
    """The machine would not give so much memory at once."""
    message = "" if case.error is None else case.error.message
    asked = re.search(r"Unable to allocate ([\d.]+ \w+)", message)
    amount = "" if asked is None else f" for {asked[1]} at once"
    return Finding(f"out of memory: {case.place} asks{amount or ' for more'} than there is", less_at_a_time(case))


def segmentation_fault(case: Case) -> Finding | None:
    """SIGSEGV is unambiguous; only Python's own fault handler knows the line."""
    if _signal_of(case) != _SIGSEGV:
        return None
    cause = "segmentation fault: native code, not Python, used memory that is not its own"
    if any(word.startswith(_FATAL_ERROR) for word in case.words):
        return Finding(cause, at=_faulting_line(case))
    return Finding(cause, f"see the line that calls it:  {set_variable('PYTHONFAULTHANDLER', '1')}")


def killed_by_signal(case: Case) -> Finding | None:
    """Any other signal."""
    number = _signal_of(case)
    if number is None:
        return None
    name = _name(number)
    meaning = f": {_MEANING[name]}" if name in _MEANING else ""
    fix = "see whether it was the kernel:  dmesg -T | tail -n 20" if number == _SIGKILL else None
    return Finding(f"killed by {name}{meaning}", fix)


def less_at_a_time(case: Case) -> str | None:
    """Advice on memory: the parameters that steer the amount, if their names or the failing statement tell."""
    named = [name for name in case.evidence.parameters if re.search(rf"\b{re.escape(name)}\b", case.source)]
    batches = [name for name in case.evidence.parameters if re.fullmatch(r"(?:\w+[_-])?batch[_-]?size", name)]
    for name in (*batches, *named):
        value = case.evidence.parameters[name]
        if value.isdecimal() and len(value) < 30 and int(value) > 1:
            return f"ask for less at a time:  {set_parameter(name, str(int(value) // 2))}"
    return None


def _signal_of(case: Case) -> int | None:
    """The signal that ended the command, seen by us or reported by its shell; an exit code alone proves nothing."""
    code = case.evidence.exit_code
    if case.evidence.signal is not None or code is None or code <= _SIGNAL_OFFSET or not case.words:
        return case.evidence.signal
    found = _SHELL_REPORT.fullmatch(case.words[-1])
    number = code - _SIGNAL_OFFSET
    return number if found is not None and _SHELL_WORDS.get(found["word"]) == _name(number) else None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _faulting_line(case: Case) -> str | None:
    """The user's first line in what Python's fault handler printed, which begins with the deepest frame."""
    for match in filter(None, map(_FAULT_FRAME.fullmatch, case.words)):
        file = path_in_project(match[1], case.evidence.project_folder)
        if file is not None:
            lines = (read_source(case.evidence.project_folder, file) or "").split("\n")
            line = int(match[2])
            return f"{file}:{line}  {lines[line - 1].strip() if 0 < line <= len(lines) else ''}".rstrip()
    return None


def _amount(count: int) -> str:
    gigabytes = count / 1e9
    return f"{gigabytes:.1f} GB" if gigabytes >= 1 else f"{count / 1e6:.0f} MB"
