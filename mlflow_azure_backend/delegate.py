"""Our backend inside an environment that has MLflow but not this package.

One file that imports nothing of ours and nothing that MLflow does not bring. ``environment/plugin.py`` lays it in a zip
at the end of a job's PYTHONPATH, where MLflow finds its entry points. It hands every submission to the interpreter that
this package is installed in; ``children.py`` says what happens there.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Any

import click
import mlflow
from mlflow.exceptions import ExecutionException
from mlflow.projects import SubmittedRun
from mlflow.projects.backend.abstract_backend import AbstractBackend

if TYPE_CHECKING:
    from collections.abc import Mapping

PYTHON_VARIABLE = "MLFLOW_AZURE_PYTHON"
"""Holds the interpreter that has this package, for the jobs of environments that have it not."""

# Without PYTHONPATH and the working folder, which are made for the project's interpreter, not for ours.
_HOST = "import sys; sys.path.remove(''); from mlflow_azure_backend.children import main; sys.exit(main(sys.argv[1]))"


class DelegatingBackend(AbstractBackend):
    """What MLflow loads for ``backend="azureml"`` in such an environment."""

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: Mapping[str, Any] | None,
        version: str | None,
        backend_config: Mapping[str, Any],
        tracking_uri: str,
        experiment_id: str,
    ) -> DelegatedRun:
        """Submit a project through our own interpreter; see MLflow's ``AbstractBackend.run`` for the arguments.

        Raises:
            ExecutionException: The project could not be run, in one line; under ``mlflow run`` also: the job failed.
        """
        context = click.get_current_context(silent=True)
        command = context if context is not None and context.command_path.endswith("mlflow run") else None
        active = mlflow.active_run()
        submitted = DelegatedRun(
            {
                "project_uri": project_uri,
                "entry_point": entry_point,
                "parameters": dict(params or {}),
                "version": version,
                "backend_config": dict(backend_config),
                "tracking_uri": tracking_uri,
                "experiment_id": str(experiment_id),
                "run_name": None if command is None else command.params.get("run_name"),
                "parent_run_id": None if active is None else active.info.run_id,
                "waits": command is not None or bool(backend_config.get("SYNCHRONOUS", True)),
                "prefix": sys.prefix,
            }
        )
        if command is not None and not submitted.is_detached and not submitted.wait():
            raise ExecutionException(f"Run (ID '{submitted.run_id}') {submitted.get_status().lower()}")
        return submitted


class DelegatedRun(SubmittedRun):
    """A run that our own interpreter submitted and follows; one that this process waits for ends with it."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        reports, far_end = os.pipe()
        try:
            self._host = subprocess.Popen(
                [os.environ[PYTHON_VARIABLE], "-E", "-c", _HOST, str(far_end)],
                stdin=subprocess.PIPE,
                pass_fds=[far_end],
                text=True,
                encoding="utf-8",
            )
        except (OSError, KeyError) as error:
            os.close(reports)
            raise ExecutionException(f"the backend's own interpreter cannot be started: {error}") from None
        finally:
            os.close(far_end)
        self._reports = open(reports, encoding="utf-8")  # noqa: PTH123, SIM115 - a descriptor, closed by wait
        self._status = None
        # The other end of its standard input is its leash, so it stays open.
        self._leash: IO[str] = self._host.stdin  # type: ignore[assignment]  # it is a pipe
        self._tell(json.dumps(order, default=str) + "\n")
        answer = self._next_report()
        if "run_id" not in answer:
            self._finish()
            raise ExecutionException(answer.get("error") or "the backend's own interpreter died")
        self._run_id = answer["run_id"]
        self.is_detached = answer["detached"]

    @property
    def run_id(self) -> str:
        """MLflow's run id."""
        return str(self._run_id)

    def wait(self) -> bool:
        """Return when the job has ended and its end is written down; True when it succeeded.

        Raises:
            ExecutionException: It was asked to be left alone.
        """
        if self.is_detached:
            raise ExecutionException(
                f"run {self.run_id} goes on; follow it with `mlflow-azure attach {self.run_id[:8]}`"
            )
        self._finish()
        return self.get_status() == "FINISHED"

    def get_status(self) -> str:
        """The word of MLflow's ``RunStatus`` for it."""
        if self.is_detached or self._host.poll() is None:
            return "RUNNING"
        self._finish()
        return self._status or "FAILED"

    def cancel(self) -> None:
        """End the job; when this returns, its end is written down."""
        if not self.is_detached:
            self._host.send_signal(signal.SIGTERM)
            self._finish()

    def _finish(self) -> None:
        while answer := self._next_report():
            self._status = answer.get("status", self._status)
        self._host.wait()
        with contextlib.suppress(OSError):  # what it did not take is of no use any more
            self._leash.close()

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # it died, which the report that does not come will say
            self._leash.write(line)
            self._leash.flush()

    def _next_report(self) -> dict[str, Any]:
        line = self._reports.readline()
        return json.loads(line) if line else {}
