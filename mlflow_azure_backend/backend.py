"""MLflow's door: ``mlflow run . --backend azureml`` arrives here, and ``launching.py`` has the recipe.

MLflow loads this module to find the backend, so that what a run needs is imported when one is asked for.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import mlflow
from mlflow.exceptions import ExecutionException
from mlflow.projects.backend.abstract_backend import AbstractBackend

from mlflow_azure_backend.errors import BackendError

if TYPE_CHECKING:
    from mlflow_azure_backend.console import Console
    from mlflow_azure_backend.job import TrackingContext
    from mlflow_azure_backend.planning import Order
    from mlflow_azure_backend.submitted_run import AzureSubmittedRun


class AzureMLBackend(AbstractBackend):
    """The project backend that MLflow loads for ``--backend azureml`` and ``azure``."""

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: Mapping[str, Any] | None,
        version: str | None,
        backend_config: Mapping[str, Any],
        tracking_uri: str,
        experiment_id: str,
    ) -> AzureSubmittedRun:
        """Submit a project; see MLflow's ``AbstractBackend.run`` for the arguments.

        ``mlflow run`` does not wait for plugins, so under it this streams the job and returns when it has ended well.

        Raises:
            ExecutionException: The project could not be run, in one line; under ``mlflow run`` also: the job failed.
        """
        from mlflow_azure_backend import launching, tracking_store
        from mlflow_azure_backend.console import Console
        from mlflow_azure_backend.job import TrackingContext
        from mlflow_azure_backend.planning import Order

        command = _mlflow_run_command()
        order = Order(project_uri, entry_point, version, params or {}, backend_config, Path.cwd())
        absolute_uri = tracking_store.absolute_tracking_uri(tracking_uri, order.client_folder)
        tracking = TrackingContext(
            absolute_uri,
            experiment_id=str(experiment_id),
            run_name=None if command is None else command.params.get("run_name"),
            parent_run_id=_active_run_id() or launching.parent_of(absolute_uri, os.environ),
        )
        waits = command is not None or bool(backend_config.get("SYNCHRONOUS", True))
        console = Console()
        if command is None:
            return _launch(order, tracking, console, waits=waits)
        gc.freeze()  # the process ends with this run, and Python would search all of MLflow for garbage before that
        if command.params.get("run_id"):
            console.note("--run-id is for MLflow's own backend: MLflow does not pass it on, so this is a new run")
        with launching.watching():
            try:
                submitted = _launch(order, tracking, console, waits=waits)
            except ExecutionException as error:  # MLflow prints it, and knows nothing of annotations
                console.annotate(str(error))
                raise
            if not submitted.is_detached and not submitted.wait():
                raise ExecutionException(f"Run (ID '{submitted.run_id}') {submitted.get_status().lower()}")
        return submitted


def _launch(order: Order, tracking: TrackingContext, console: Console, *, waits: bool) -> AzureSubmittedRun:
    """``launch``, with its mistakes as the one kind of exception that MLflow's command line prints in one line."""
    from mlflow_azure_backend.console import our_mistake
    from mlflow_azure_backend.launching import launch

    try:
        return launch(order, tracking, console, waits=waits)
    except BackendError as error:
        raise ExecutionException(str(error)) from None
    except Exception as error:
        raise ExecutionException(str(our_mistake(error))) from error


def _mlflow_run_command() -> click.Context | None:
    """The command line that called us, if it is ``mlflow run``: it alone expects the job's end before we return."""
    context = click.get_current_context(silent=True)
    return context if context is not None and context.command_path.endswith("mlflow run") else None


def _active_run_id() -> str | None:
    active = mlflow.active_run()
    return None if active is None else str(active.info.run_id)
