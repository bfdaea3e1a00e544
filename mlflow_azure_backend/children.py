"""Runs that a job starts: whose children they are, and the other side of ``delegate.py``.

A program that runs in an environment without this package reaches us through ``delegate.py``: it starts this
interpreter, writes one order on our standard input, and reads our reports, one JSON document a line::

    {"run_id": ..., "detached": ...}   the job is submitted; or {"error": ...}: it is not
    {"status": ...}                    the job has ended, and its end is written down

The log and our own lines go to the streams that we inherit. While the program waits for the job, our standard input is
its leash: when it closes, because the program died, the job ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_azure_backend import tracking_store
from mlflow_azure_backend.console import Console
from mlflow_azure_backend.environment.lock import EnvironmentLock
from mlflow_azure_backend.environment.resolving import recorded_lock
from mlflow_azure_backend.environment.spec import EnvironmentSpec
from mlflow_azure_backend.environment.store import find_prefix
from mlflow_azure_backend.errors import BackendError, EnvironmentUnavailable
from mlflow_azure_backend.interrupts import command_line_signals
from mlflow_azure_backend.job import RUN_VARIABLE, TrackingContext
from mlflow_azure_backend.journal import Journal, cache_home, state_home
from mlflow_azure_backend.launching import launch, parent_of
from mlflow_azure_backend.planning import Order
from mlflow_azure_backend.submitted_run import AzureSubmittedRun, StillRunning


def main(reports: str) -> int:
    """Do what one program orders; ``reports`` is the descriptor that it listens to."""
    order = json.loads(sys.stdin.readline())
    with open(int(reports), "w", encoding="utf-8") as stream, command_line_signals():  # noqa: PTH123 - a descriptor
        if order["waits"]:
            threading.Thread(target=_hang_on_leash, daemon=True).start()

        def report(**facts: object) -> None:
            stream.write(json.dumps(facts) + "\n")
            stream.flush()

        try:
            submitted = _submit(order)
        except BackendError as error:
            report(error=str(error))
            return 1
        report(run_id=submitted.run_id, detached=submitted.is_detached)
        if submitted.is_detached:
            return 0
        with contextlib.suppress(KeyboardInterrupt, StillRunning):  # cancelled, or left alone, as was configured
            submitted.wait()
        report(status=submitted.get_status())
    return 0


def _hang_on_leash() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _submit(order: Mapping[str, Any]) -> AzureSubmittedRun:
    tracking_uri = tracking_store.absolute_tracking_uri(order["tracking_uri"], Path.cwd())
    tracking = TrackingContext(
        tracking_uri,
        experiment_id=order["experiment_id"],
        run_name=order["run_name"],
        parent_run_id=order["parent_run_id"] or parent_of(tracking_uri, os.environ),
    )
    return launch(
        Order(
            uri=order["project_uri"],
            entry_point=order["entry_point"],
            version=order["version"],
            parameters=order["parameters"],
            backend_config=order["backend_config"],
            client_folder=Path.cwd(),
            current=_environment_of_job(Path(order["prefix"])),
        ),
        tracking,
        Console(),
        waits=order["waits"],
    )


def _environment_of_job(prefix: Path) -> EnvironmentLock:
    """What ``current`` means to the program: not this interpreter, but the environment that its own job runs in.

    Raises:
        EnvironmentUnavailable: It runs in another one, which nobody has described.
    """
    record = Journal(state_home(os.environ)).find(os.environ.get(RUN_VARIABLE, "")).record()
    if record is not None:
        lock = recorded_lock(*record.environment_lock, EnvironmentSpec("python", Path.cwd()))
        place = find_prefix(lock, cache=cache_home(os.environ))
        if place is not None and place.resolve() == prefix.resolve():
            return lock
    raise EnvironmentUnavailable(
        "this program does not run in the environment of its job",
        where=prefix,
        next_step="start it with the python that is first on the job's PATH, or install mlflow-azure-backend there",
    )
