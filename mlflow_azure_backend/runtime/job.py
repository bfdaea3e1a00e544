"""The runner of a job: ``python3 -I .mlflow-azure/runtime.zip COMMAND [NAME=VALUE]...`` is what Azure ML runs.

It makes the environment, sets what must hold in the command, runs it, and reports its end. It needs Python 3.8 and
nothing else, and writes one line into the log, when an environment had to be made ready. The variables that follow the
command are those whose values only Azure ML knows: ``AZURE_ML_INPUT_data=${{inputs.data}}``.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import ranks, report
from .checkpoints import attempt_and_folder
from .command import Command, Stopped, stoppable
from .environment import Ready, ensure, python_version, variables_in
from .memory import memory_now
from .node import CannotRun, node_folder
from .order import ORDER_VARIABLE, JobOrder, LockedEnvironment, MalformedOrder, from_json
from .packer import Packer
from .places import link_places
from .project_files import unpack_code
from .saying import say

CHECKPOINTS_VARIABLE = "MLFLOW_AZURE_CHECKPOINTS"
"""A folder that all attempts at the run share."""
ATTEMPT_VARIABLE = "MLFLOW_AZURE_ATTEMPT"
"""Which attempt at the run this is, from 1."""
RUN_VARIABLE = "MLFLOW_AZURE_RUN_ID"
"""The package's ``job.RUN_VARIABLE``; this room stands apart."""
_OUTPUT = "AZURE_ML_OUTPUT_"
"""Begins the variables by which Azure ML says where an output is mounted."""
_AZURES_OWN = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID")
"""What Azure ML sets for its own tracking server, and no other one must be given."""
_FAILED = 1
_CANNOT_START = 126


def main(arguments: Sequence[str]) -> None:
    """Run a job's command, and exit as it did."""
    zip_file = Path(os.path.abspath(__file__)).parents[1]  # noqa: PTH100 - links must not be followed
    code = Job(arguments, dict(os.environ), zip_file, Path.cwd()).run()
    os._exit(code)


@dataclass
class Job:
    """One rank of one job.

    Attributes:
        arguments: The command, a POSIX shell text, and variables for it.
        environ: The job's variables.
        runtime: The zip that we came in.
        working: The job's working folder.
    """

    arguments: Sequence[str]
    environ: dict[str, str]
    runtime: Path
    working: Path
    _report: report.JobReport = field(init=False)

    def run(self) -> int:
        """Run it to its end; returns the exit code."""
        place = ranks.place_of(self.environ)
        self._report = report.JobReport(
            rank=place.rank,
            node=place.node,
            attempt=1,
            started_at=time.time(),
            python=platform.python_version(),
            folder=str(self.working),
        )
        packer: Packer | None = None
        try:
            with stoppable():
                order = self._order()
                ready, variables = self._prepare(order)
                packer = self._packer(order.environment, ready)
        except (CannotRun, OSError) as error:
            disk = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else ""
            problem = f"this node's disk refuses: {disk}" if disk else str(error)
            say(problem, error=True)
            return self._end(exit_code=_FAILED, problem=problem)
        except Stopped as stop:
            return self._end(
                exit_code=128 + stop.signal, stopped_by=stop.signal, problem="ended before the command ran"
            )
        return self._run(order, variables, packer)

    def _order(self) -> JobOrder:
        text = self.environ.pop(ORDER_VARIABLE, None)
        if text is None or not self.arguments or not all("=" in one for one in self.arguments[1:]):
            raise CannotRun(f"this is started by jobs that mlflow-azure submits, with a command and {ORDER_VARIABLE}")
        try:
            return from_json(text)
        except MalformedOrder as error:
            raise CannotRun(str(error)) from None

    def _prepare(self, order: JobOrder) -> tuple[Ready | None, dict[str, str]]:
        """The environment, and the command's variables in it."""
        unpack_code(self.working)
        attempt, checkpoints = attempt_and_folder(order, self._output(order.checkpoints), self._report.rank)
        self._report = replace(self._report, attempt=attempt, environment="image")
        prefix, ready = None if order.prefix is None else Path(order.prefix), None
        if order.environment is not None:
            self._report = replace(self._report, environment=None)
            kept = self._output(order.environment.kept_in)
            ready = ensure(order.environment, files=self.runtime.parent, kept=kept, environ=self.environ)
            prefix = ready.prefix
            self._report = replace(self._report, environment=ready.source, environment_seconds=ready.seconds)
        if prefix is not None:
            self._report = replace(self._report, python=python_version(prefix) or self._report.python)
        if ready is not None and order.environment is not None:
            say(_said(order.environment, ready, self._report.python))
        variables = command_variables(order, variables_in(prefix, self.environ) if prefix else self.environ)
        variables.update(dict(one.split("=", 1) for one in self.arguments[1:]))
        link_places(order.places, variables)
        ours = {ranks.RANK_VARIABLE: str(self._report.rank), ATTEMPT_VARIABLE: str(attempt)}
        if checkpoints is not None:
            ours[CHECKPOINTS_VARIABLE] = str(checkpoints)
        path = [part for part in variables.get("PYTHONPATH", "").split(os.pathsep) if part]
        # Last, and MLflow takes the last that it finds: what the environment itself has for azureml:// goes first.
        ours["PYTHONPATH"] = os.pathsep.join((*path, str(self.runtime)))
        return ready, {"PYTHONUNBUFFERED": "1", **variables, **ours}

    def _packer(self, order: LockedEnvironment | None, ready: Ready | None) -> Packer | None:
        """On the first node; that the ranks of a node make an environment once, the key's lock sees to."""
        if order is None or ready is None or ready.source != "installed" or self._report.node != 0:
            return None
        folder = self._output(order.kept_in)
        if folder is None:
            return None
        try:
            return Packer(ready.prefix, folder, order.key, node_folder(self.environ), ready.seconds)
        except OSError as error:
            say(f"the environment is not kept for later jobs: {error}")
            return None

    def _run(self, order: JobOrder, variables: Mapping[str, str], packer: Packer | None) -> int:
        before = memory_now()
        self._write()
        shell = shutil.which("bash", path=variables.get("PATH")) or "/bin/sh"
        command = Command([shell, "-c", self.arguments[0]], variables, order.grace)
        try:
            ended = command.run(spared=() if packer is None else (packer.pid,))
        except OSError as error:
            problem = f"{shell} cannot be started: {error.strerror}"
            say(problem, error=True)
            return self._end(exit_code=_CANNOT_START, problem=problem)
        memory = memory_now()
        kills = None if memory.oom_kills is None else memory.oom_kills - (before.oom_kills or 0)
        kept = None if packer is None else packer.finish(unless=lambda: command.asked is not None)
        return self._end(
            exit_code=ended.exit_code,
            signal=ended.signal,
            stopped_by=ended.stopped_by,
            oom_kills=kills,
            memory_peak=memory.peak,
            memory_limit=memory.limit,
            largest_process=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
            kept=kept,
        )

    def _end(self, *, exit_code: int, **facts: Any) -> int:
        self._report = replace(self._report, ended_at=time.time(), exit_code=exit_code, **facts)
        self._write()
        return exit_code

    def _write(self) -> None:
        """The report says why a job ended; that it cannot be written must not be why."""
        path = self.working / report.report_name(self._report.rank)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._report.to_json(), encoding="utf-8")

    def _output(self, name: str | None) -> Path | None:
        """Where an output of the job is mounted; None: it is not."""
        place = self.environ.get(f"{_OUTPUT}{name}") if name is not None else None
        return Path(place) if place else None


def command_variables(order: JobOrder, environ: Mapping[str, str]) -> dict[str, str]:
    """What must hold in the command, over what Azure ML set: which of the two wins outside of it is not documented."""
    variables = dict(environ)
    if order.tracking_uri is not None:
        # Azure ML's token opens the workspace: it is not sent to another server.
        for name in _AZURES_OWN:
            variables.pop(name, None)
        variables["MLFLOW_TRACKING_URI"] = order.tracking_uri
    if order.run_id is not None:
        variables["MLFLOW_RUN_ID"] = order.run_id
    if "MLFLOW_RUN_ID" in variables:
        variables[RUN_VARIABLE] = variables["MLFLOW_RUN_ID"]
    variables.update(order.variables)
    for name, source in order.renamed.items():
        if source in variables:
            variables[name] = variables.pop(source)
    return variables


def _said(order: LockedEnvironment, ready: Ready, python: str | None) -> str:
    how = {"node": "was on the node", "kept": "unpacked from the workspace", "installed": "installed"}[ready.source]
    with_python = "" if python is None else f", python {python}"
    return f"environment {order.key[:12]} {how} in {ready.seconds:.1f} s{with_python}"
