"""The only file that prints. Our lines go to stderr, the job's own bytes to stdout, untouched."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from mlflow_azure_backend import __version__
from mlflow_azure_backend.ci import BEGIN_GROUP, END_GROUP, annotation, error_line, wants_commands, write_outputs
from mlflow_azure_backend.errors import BackendError
from mlflow_azure_backend.redaction import without_credentials
from mlflow_azure_backend.status import JobStatus, TerminationReason

if TYPE_CHECKING:  # the recorder imports MLflow, and commands that only read the journal must not wait for that
    from rich.console import Console as RichConsole
    from rich.text import Text

    from mlflow_azure_backend.recorder import Ending
    from mlflow_azure_backend.status import JobState

_RULE_WIDTH: Final = 54
_LABEL_WIDTH: Final = 12
_ASCII: Final = str.maketrans({"✓": "+", "✗": "x", "─": "-", "·": "-", "…": ".", "→": ">"})


TRACEBACK_VARIABLE: Final = "MLFLOW_AZURE_TRACEBACK"
"""When it is set, a mistake of ours is shown with its traceback."""


_ON_THE_WAY: Final = {
    JobStatus.NOT_STARTED: "accepted",
    JobStatus.STARTING: "starting",
    JobStatus.PREPARING: "preparing",
    JobStatus.QUEUED: "queued",
    JobStatus.PROVISIONING: "provisioning",
    JobStatus.SCHEDULED: "scheduled",
    JobStatus.PAUSED: "paused",
}
"""What a job does before its command runs, in the user's words."""


@dataclass(frozen=True)
class _Awaited:
    """What a job is doing whose command has not said anything yet."""

    since: float
    status: JobStatus | None = None


class Phase:
    """One line of the story: what is being done, then what came of it."""

    def __init__(self, name: str, spinner: Any) -> None:
        self.name = name
        self.summary = ""
        self.details: list[tuple[str, str]] = []
        self._spinner = spinner

    def progress(self, text: str) -> None:
        """Show what a slow step is doing now, on a terminal."""
        if self._spinner is not None:
            self._spinner.update(f"{self.name:<{_LABEL_WIDTH}} {text}")


class Console:
    """What a user sees of a run."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._open = True
        self._at_line_start = True
        self._in_output = False
        self._awaited: _Awaited | None = None
        self.tracking: str | None = None

    @cached_property
    def _rich(self) -> RichConsole:
        """Where our lines go. An answer on stdout needs none of it: importing rich takes longer than a list."""
        from rich.console import Console as RichConsole

        return RichConsole(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def header(self, where: str) -> None:
        """The first line: who we are, where the job runs, and where it is tracked if that is known."""
        tracking = [] if self.tracking is None else [f"tracking {self.tracking}"]
        self._line(" · ".join((f"azureml {__version__}", where, *tracking)), "dim")

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """Time one phase: a spinner on a terminal while it lasts, then one line if there is something to say."""
        started = time.monotonic()
        if self._rich.is_terminal:
            with self._rich.status(name, spinner="dots") as spinner:
                phase = Phase(name, spinner)
                yield phase
        else:
            phase = Phase(name, None)
            yield phase
        seconds = f"{time.monotonic() - started:.2f}s"
        if phase.summary:
            self._mark("✓", "green", f"{name:<{_LABEL_WIDTH}} {phase.summary:<46} {seconds}")
        for label, text in phase.details:
            self.detail(label, text)

    def detail(self, label: str, text: str, width: int = _LABEL_WIDTH) -> None:
        """An indented line that belongs to the one above."""
        self._line(f"  {label:<{width}} {text}", "dim")

    def note(self, text: str) -> None:
        """Something that the user should know, and need not act upon."""
        self._mark("·", "yellow", text)

    def error(self, text: str) -> None:
        """A mistake, in one line."""
        self._mark("✗", "red", text)
        self.annotate(text)

    def annotate(self, text: str) -> None:
        """A mistake that somebody else prints, for a CI system."""
        self._command(error_line(text))

    def begin_output(self, *, when_it_comes: bool = False) -> None:
        """Draw the rule above the job's own lines.

        Args:
            when_it_comes: Not before there are any: the job has a way to go until its command runs.
        """
        if when_it_comes:
            self._awaited = _Awaited(time.monotonic())
            return
        self._awaited = None
        self._in_output = True
        self._line("─" * _RULE_WIDTH, "dim")
        self._command(BEGIN_GROUP)

    def job_state(self, state: JobState) -> None:
        """Say each phase of a job on its way to its command once it is over, with its time."""
        awaited = self._awaited
        if awaited is None or state.status is awaited.status:
            return
        seconds = time.monotonic() - awaited.since
        if awaited.status is not None and (word := _ON_THE_WAY.get(awaited.status)) is not None:
            self._mark("✓", "green", f"{word:<{_LABEL_WIDTH}} {'':<46} {seconds:.0f}s")
        self._awaited = _Awaited(time.monotonic(), state.status)

    def job_output(self, chunk: bytes) -> None:
        """Pass on what the job wrote. A stdout that is gone is no reason to stop watching the job."""
        if not self._open or not chunk:
            return
        if self._awaited is not None:
            self.begin_output()
        self._at_line_start = chunk.endswith(b"\n")
        try:
            _write(sys.stdout, chunk, self._decoder)
        except (OSError, ValueError):
            self._open = False
            _point_at_nothing(sys.stdout)

    def ending(self, run_id: str, ending: Ending, folder: Path | None = None) -> None:
        """The rule below the job's lines and how it ended, with the cause and what to do.

        Args:
            run_id: MLflow's run id.
            ending: How it ended.
            folder: The folder that places in the project start from; None when it is not on this machine.
        """
        if self._in_output:
            if not self._at_line_start:
                self._line("", "")  # to stderr: on a terminal it is the same, and stdout stays what the job wrote
            self._command(END_GROUP)
            self._line("─" * _RULE_WIDTH, "dim")
        good = ending.run_status == "FINISHED"
        self._mark("✓" if good else "✗", "green" if good else "red", _verdict(ending))
        for label, text in _explanation(run_id, ending):
            self.detail(label, text, width=7)
        if ending.diagnosis is not None:
            self._command(annotation(ending.diagnosis.cause, ending.diagnosis.at, folder, os.environ))
        elif not good:
            self._command(error_line(ending.state.message or _verdict(ending)))
        self._write_outputs(run_id, ending.run_status, ending.state.exit_code)

    def detached(self, run_id: str) -> None:
        """The job goes on without us."""
        self.note(f"detached; follow it with `mlflow-azure attach {run_id[:8]}`")
        self._write_outputs(run_id, "RUNNING", None)

    def finding(self, good: bool, name: str, found: str, fix: str | None) -> None:
        """One thing that ``doctor`` looked at."""
        self._mark("✓" if good else "✗", "green" if good else "red", f"{name:<{_LABEL_WIDTH}} {found}")
        if fix is not None:
            self.detail("", f"fix: {fix}")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str | None]]) -> None:
        """Rows below a head, on stdout, each column as wide as it must be."""
        lines = [[cell or "" for cell in row] for row in (head, *rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        for line in lines:
            self.plain("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def plain(self, text: str) -> None:
        """An answer, on stdout."""
        self.job_output((text + "\n").encode("utf-8", "surrogateescape"))

    def _mark(self, sign: str, style: str, text: str) -> None:
        from rich.text import Text

        self._print(Text.assemble((self._legible(sign), style), " ", self._legible(text)))

    def _write_outputs(self, run_id: str, status: str, exit_code: int | None) -> None:
        try:
            write_outputs(os.environ, run_id=run_id, status=status, exit_code=exit_code)
        except OSError as error:
            self.note(f"GITHUB_OUTPUT cannot be written: {error.strerror or error}")

    def _command(self, line: str) -> None:
        """A workflow command: on stdout, so that it keeps its place among the job's lines."""
        if wants_commands(os.environ):
            self.plain(line)

    def _line(self, text: str, style: str) -> None:
        from rich.text import Text

        self._print(Text(self._legible(text), style))

    def _legible(self, text: str) -> str:
        return text if self._rich.encoding.lower().startswith("utf") else text.translate(_ASCII)

    def _print(self, text: Text) -> None:
        with contextlib.suppress(OSError, ValueError):
            text.rstrip()
            self._rich.print(text, no_wrap=True, overflow="ignore", crop=False)


def our_mistake(error: Exception) -> BackendError:
    """A mistake of ours as one line: nobody can mend it from its traceback but us."""
    what = " ".join(without_credentials(f"{type(error).__name__}: {error}").split())
    return BackendError(
        f"a mistake of mlflow-azure itself ({what})",
        next_step=f"run it with {TRACEBACK_VARIABLE}=1 to see where, and report it",
    )


def _verdict(ending: Ending) -> str:
    state = ending.state
    word = {JobStatus.COMPLETED: "finished", JobStatus.CANCELED: "cancelled"}.get(state.status, "failed")
    if ending.run_status == "FAILED":
        word = "failed"
    parts = [word]
    if state.started_at is not None and state.ended_at is not None:
        parts[0] += f" after {state.ended_at - state.started_at:.1f}s"
    if state.signal is not None and state.reason is TerminationReason.SIGNAL:
        parts.append(f"signal {state.signal}")
    elif state.exit_code is not None and state.status is JobStatus.FAILED:
        parts.append(f"exit {state.exit_code}")
    if state.reason is TerminationReason.TIMEOUT:
        parts.append("timeout")
    return " · ".join(parts)


def _explanation(run_id: str, ending: Ending) -> Iterator[tuple[str, str]]:
    if ending.remark is not None:
        yield "note", ending.remark
    if ending.diagnosis is not None:
        yield "cause", ending.diagnosis.cause
        if ending.diagnosis.at is not None:
            yield "at", ending.diagnosis.at
        for line in (ending.diagnosis.fix or "").splitlines():
            yield "fix", line
    elif ending.state.message is not None:
        yield "cause", ending.state.message
    if ending.undelivered is not None:
        yield "store", f"not told yet: {ending.undelivered}"
        yield "fix", "mlflow-azure sync"
    if ending.run_status != "FINISHED":
        yield "logs", f"mlflow-azure logs {run_id[:8]} --tail 200"


def _write(stream: IO[str], chunk: bytes, decoder: codecs.IncrementalDecoder) -> None:
    binary = getattr(stream, "buffer", None)
    if binary is not None:
        stream.flush()
        binary.write(chunk)
        binary.flush()
    else:  # a notebook's stream knows text only
        stream.write(decoder.decode(chunk))
        stream.flush()


def _point_at_nothing(stream: IO[str]) -> None:
    """Keep Python's own flush at exit from failing on a stream that is gone."""
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
