"""Repeat a recorded run from what it left in the tracking store: its order, its snapshot, its environment lock.

Nothing is read from the journal, so that a run can be repeated on any machine that reaches the store.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from pydantic import TypeAdapter, ValidationError

from mlflow_azure_backend import recorder, tracking_store
from mlflow_azure_backend.console import Console
from mlflow_azure_backend.environment.lock import LOCK_FILES
from mlflow_azure_backend.errors import BackendError, ParameterError, UnknownRun
from mlflow_azure_backend.job import TrackingContext
from mlflow_azure_backend.journal import ARCHIVE_ARTIFACT, ORDER_ARTIFACT, Journal, state_home
from mlflow_azure_backend.launching import launch
from mlflow_azure_backend.planning import Order
from mlflow_azure_backend.redaction import without_credentials
from mlflow_azure_backend.repeats import VERSION, RecordedOrder, Repeat
from mlflow_azure_backend.submitted_run import AzureSubmittedRun

_RECORDED_ORDER = TypeAdapter(RecordedOrder)


@dataclass(frozen=True, slots=True)
class Changes:
    """In what a repetition is to differ.

    Attributes:
        parameters: In place of the recorded ones, or beside them.
        compute: Another compute; None for the recorded one.
        run_name: The new run's name; None lets MLflow choose one.
        detach: Return once the job is submitted.
    """

    parameters: Mapping[str, str]
    compute: str | None = None
    run_name: str | None = None
    detach: bool = False


def rerun(run_id: str, changes: Changes, console: Console) -> AzureSubmittedRun:
    """Repeat a run of the tracking store that this process is set up for, in the same experiment.

    Args:
        run_id: MLflow's run id; a beginning of it will do for a run that was started from here.
        changes: In what the repetition is to differ.
        console: Who is told.

    Raises:
        UnknownRun: The store has no such run, or it left nothing that could be repeated.
        ParameterError: A parameter cannot be had here; names all of them.
        BackendError: As for any run.
    """
    uri = tracking_store.absolute_tracking_uri(mlflow.get_tracking_uri(), Path.cwd())
    tracking_store.check_reachable(uri)
    with tempfile.TemporaryDirectory(prefix="mlflow-azure-") as scratch:
        with _without_progress_bars():
            old, repeat = _read(uri, _whole_id(run_id), Path(scratch))
        parameters = _parameters(repeat.order, changes.parameters, console)
        console.note(f"repeats run {old.info.run_id[:8]} ({old.info.run_name})")
        order = Order(
            uri=repeat.order.project,
            entry_point=repeat.order.entry_point,
            version=None,
            parameters=parameters,
            backend_config=_config(repeat.order, changes),
            client_folder=Path.cwd(),
            repeats=repeat,
        )
        tracking = TrackingContext(
            uri, experiment_id=old.info.experiment_id, run_name=changes.run_name, rerun_of=old.info.run_id
        )
        return launch(order, tracking, console, waits=True)


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """MLflow draws one for each artifact; its one switch is an environment variable."""
    variable = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
    before = os.environ.get(variable)
    os.environ[variable] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _whole_id(run_id: str) -> str:
    """The journal is asked for one thing only: what a shortened id stands for."""
    try:
        record = Journal(state_home(os.environ)).find(run_id).record()
    except BackendError:
        return run_id
    return run_id if record is None or record.run_id is None else record.run_id


def _read(uri: str, run_id: str, folder: Path) -> tuple[Run, Repeat]:
    client = tracking_store.client_of(uri)
    old = _find(client, uri, run_id)
    order_file = _artifact(client, uri, old.info.run_id, ORDER_ARTIFACT, folder)
    names = (f"environment/{name}" for name in set(LOCK_FILES.values()))
    locks = (_artifact(client, uri, old.info.run_id, name, folder) for name in names)
    lock_file = next(filter(None, locks), None)
    if order_file is None or lock_file is None:
        raise UnknownRun(
            f"run {old.info.run_id} left nothing that it could be repeated from",
            next_step="only ended runs of this backend have an order, a lock and a snapshot",
        )
    order = _parse(order_file, old)
    keeper = old.data.tags.get(recorder.ARCHIVED_BY, old.info.run_id)
    archive = _artifact(client, uri, keeper, ARCHIVE_ARTIFACT, folder)
    if archive is None and (order.git is None or order.git.repo_url is None):
        raise UnknownRun(f"the snapshot of run {old.info.run_id} is gone: run {keeper} does not hold it any more")
    return old, Repeat(order, (lock_file.name, lock_file.read_text(encoding="utf-8")), archive)


def _find(client: MlflowClient, uri: str, run_id: str) -> Run:
    with tracking_store.store_errors(uri):
        try:
            return client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
    step = "give its whole id, and set MLFLOW_TRACKING_URI to its store"
    raise UnknownRun(f"there is no run {run_id!r}", where=without_credentials(uri), next_step=step)


def _artifact(client: MlflowClient, uri: str, run_id: str, path: str, folder: Path) -> Path | None:
    """A local copy of an artifact; None when the run has none of that name, or is gone itself."""
    with tracking_store.store_errors(uri):
        try:
            sizes = {item.path: item.file_size for item in client.list_artifacts(run_id, str(Path(path).parent))}
        except MlflowException:
            return None
        if path not in sizes:
            return None
        patient = tracking_store.client_of(uri, size=sizes[path] or 0)
        return Path(patient.download_artifacts(run_id, path, str(folder)))


def _parse(file: Path, old: Run) -> RecordedOrder:
    try:
        order = _RECORDED_ORDER.validate_json(file.read_bytes())
    except ValidationError:
        order = None
    if order is None or order.version != VERSION:
        raise UnknownRun(
            f"what run {old.info.run_id} left was written by another version of this package",
            where=ORDER_ARTIFACT,
            next_step="pip install --upgrade mlflow-azure-backend",
        )
    return order


def _config(order: RecordedOrder, changes: Changes) -> dict[str, Any]:
    """The recorded configuration; what was said to MLflow itself beside it."""
    config = {**order.config, "ENV_MANAGER": order.env_manager, "SYNCHRONOUS": True}
    if order.environment == "current":
        config["ENV_MANAGER"] = "local"
    if changes.compute is not None:
        config["compute"] = changes.compute
    return {**config, "detach": True} if changes.detach else config


def _parameters(order: RecordedOrder, changed: Mapping[str, str], console: Console) -> dict[str, str]:
    """The recorded parameters with the user's changes; files are looked for where they can be.

    A file of the project comes from the snapshot. Another one is taken from where it was, if something is there.
    """
    parameters = {**order.parameters, **changed}
    problems = [*_not_recorded(order, changed)]
    for name in order.path_parameters:
        if name in changed:
            here = Path.cwd() / changed[name]
            parameters[name] = str(here) if here.exists() else changed[name]
        elif (place := order.places.get(name)) is None:
            continue
        elif not Path(place).is_absolute():
            if name in parameters:
                parameters[name] = place
        elif Path(place).exists():
            parameters[name] = place
            console.note(f"parameter '{name}' reads {place} as it is now")
        else:
            problems.append((name, f"'{name}' was {place}, which is not here"))
    if problems:
        step = "add " + " ".join(f"-P {name}=VALUE" for name, _ in problems)
        raise ParameterError("; ".join(text for _, text in problems), next_step=step)
    return parameters


def _not_recorded(order: RecordedOrder, changed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in order.secret_parameters:
        if name not in changed:
            yield name, f"'{name}' is secret and was not recorded"
