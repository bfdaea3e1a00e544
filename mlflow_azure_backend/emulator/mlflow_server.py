"""MLflow's tracking and registry REST API on MLflow's own server code, as a process of its own.

``python -m mlflow_azure_backend.emulator.mlflow_server`` takes its ``Settings`` as JSON from the variable ``VARIABLE``
and writes ``READY`` and its port once it can be asked. It is not in the front's process because MLflow's handlers take
seconds and some 200 MB to load, which a workspace that nobody tracks in need not pay.

What differs from MLflow's server is what differs in Azure: a job's name is its run's id, the job decides about that
run's status, and artifact locations are Azure's.
"""

from __future__ import annotations

import hmac
import json
import os
from typing import Any, NamedTuple

import flask
from mlflow.entities import ExperimentTag, LifecycleStage, Metric, Param, RunTag, SourceType
from mlflow.server import handlers
from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlRun, SqlTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import event
from sqlalchemy.engine import Engine
from werkzeug.serving import WSGIRequestHandler, make_server

from mlflow_azure_backend.emulator.experiments import experiment_id

VARIABLE = "MLFLOW_AZURE_EMULATOR_TRACKING"
READY = "the tracking server listens on port "
_API = "/api/2.0/"


class Settings(NamedTuple):
    """What the front tells this process."""

    database: str
    """SQLAlchemy's URI of the database, made if it is not there."""

    artifact_root: str
    """``azureml://<region>.api.azureml.ms/mlflow/v2.0{workspace}``, below which every run has its artifacts."""

    secret: str
    """What every request must bear: other users of this machine can reach the port too."""


class WorkspaceStore(SqlAlchemyStore):
    """MLflow's own store with a workspace's notion of runs."""

    def _get_artifact_location(self, experiment_id: int) -> str:
        # The experiment's id, not its name: job log of 2026-08-10 in a public repository (docs/emulator_coverage.md).
        return f"{self.artifact_root_uri}/experiments/{experiment_id}/runs"

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: list[ExperimentTag] | None = None
    ) -> str:
        """Make an experiment; a workspace keeps artifacts in its own storage whatever location is asked for."""
        del artifact_location
        return str(super().create_experiment(name, None, tags))

    def get_experiment_by_name(self, experiment_name: str) -> Any:
        """Find an experiment; one with a slash in its name is not found, as in Azure (azure-sdk-for-python#45209)."""
        return None if "/" in experiment_name else super().get_experiment_by_name(experiment_name)

    def create_logged_model(self, *arguments: Any, **options: Any) -> Any:
        """Make a model of MLflow 3, where the setting gives them; its artifacts are in a container of its own."""
        from mlflow.store.tracking.dbmodels.models import SqlLoggedModel

        model = super().create_logged_model(*arguments, **options)
        with self._writing() as session:
            session.get(
                SqlLoggedModel, model.model_id
            ).artifact_location = f"azureml://artifacts/LoggedModel/{model.model_id}"
        return self.get_logged_model(model.model_id)

    def update_run_info(self, run_id: str, run_status: Any, end_time: int | None, run_name: str | None) -> Any:
        """Change a run; the status of a job's run is the job's, whatever its code reports."""
        if self._is_job(run_id):
            run_status, end_time = None, None
        return super().update_run_info(run_id, run_status, end_time, run_name)

    def _is_job(self, run_id: str) -> bool:
        with self.ManagedSessionMaker() as session:
            run = session.get(SqlRun, run_id)
            return run is not None and run.source_type == SourceType.to_string(SourceType.JOB)

    def put_job(self, name: str, job: dict[str, Any]) -> None:
        """Bring the run of a job to the job's state, making the run and its experiment where they are missing.

        Args:
            name: The job's name, and the run's id.
            job: ``experiment`` and ``display_name``; ``status``, a word of MLflow's; ``start_time`` and ``end_time`` in
                milliseconds since the epoch, None before; ``user``; ``tags``, which are added to those it has.
        """
        experiment = self._experiment_of(job["experiment"])
        with self._writing() as session:
            run = session.get(SqlRun, name)
            if run is None:
                location = f"{self._get_artifact_location(experiment)}/{name}/{self.ARTIFACTS_FOLDER_NAME}"
                run = SqlRun(
                    run_uuid=name,
                    experiment_id=experiment,
                    artifact_uri=location,
                    name=job["display_name"],
                    user_id=job["user"],
                    source_type=SourceType.to_string(SourceType.JOB),
                    source_name="",
                    source_version="",
                    entry_point_name="",
                    lifecycle_stage=LifecycleStage.ACTIVE,
                )
                session.add(run)
            run.status = job["status"]
            run.start_time, run.end_time = job["start_time"], job["end_time"]
            present = {tag.key: tag for tag in run.tags}
            for key, value in job["tags"].items():
                if key in present:
                    present[key].value = value
                else:
                    run.tags.append(SqlTag(key=key, value=value))

    def _experiment_of(self, name: str) -> int:
        found = super().get_experiment_by_name(name)
        return int(found.experiment_id if found is not None else self.create_experiment(name))

    def _writing(self) -> Any:
        try:
            return self.ManagedSessionMaker(read_only=False)
        except TypeError:  # MLflow before read replicas
            return self.ManagedSessionMaker()


@event.listens_for(Engine, "connect")
def _write_concurrently(connection: Any, _record: Any) -> None:
    """Let the jobs of a whole cluster write at once: SQLite's default gives up after five seconds of waiting."""
    for pragma in ("busy_timeout = 60000", "journal_mode = WAL", "synchronous = OFF"):  # a kill loses nothing
        connection.execute(f"PRAGMA {pragma}")


@event.listens_for(SqlExperiment, "before_insert")
def _give_id(_mapper: Any, _connection: Any, experiment: SqlExperiment) -> None:
    """Number an experiment as the front does, which must know the number of a job's experiment without asking."""
    if experiment.experiment_id is None:
        experiment.experiment_id = experiment_id(experiment.name)


def make_app(settings: Settings) -> flask.Flask:
    """Return the WSGI application: MLflow's handlers, and what the front asks beside them."""
    store = WorkspaceStore(settings.database, settings.artifact_root)
    handlers._tracking_store_registry.register("sqlite", lambda store_uri, artifact_uri: store)  # noqa: ARG005
    handlers.initialize_backend_stores(settings.database, settings.database, settings.artifact_root)
    app = flask.Flask(__name__)
    for path, handler, methods in handlers.get_endpoints():
        if path.startswith(_API):
            app.add_url_rule(path, f"{methods} {path}", handler, methods=methods)
    _add_azure_routes(app, store)

    @app.before_request
    def refuse_strangers() -> flask.Response | None:
        if hmac.compare_digest(flask.request.headers.get("Authorization", ""), f"Bearer {settings.secret}"):
            return None
        return flask.Response(status=401)

    return app


def _add_azure_routes(app: flask.Flask, store: WorkspaceStore) -> None:
    """Add what is not MLflow's: jobs, and the asynchronous batch that azureml-mlflow 1.62 sends."""

    @app.put("/jobs")
    def put_jobs() -> dict[str, Any]:
        for name, job in flask.request.get_json().items():
            store.put_job(name, job)
        return {}

    @app.post(f"{_API}preview/mlflow/runs/log-batch-async")
    @handlers.catch_mlflow_exception  # type: ignore[untyped-decorator]
    def log_batch_async() -> dict[str, str]:
        body = flask.request.get_json()
        metrics = [
            Metric(one["key"], float(one["value"]), int(one["timestamp"]), int(one.get("step", 0)))
            for one in body.get("metrics", [])
        ]
        parameters = [Param(one["key"], one["value"]) for one in body.get("params", [])]
        tags = [RunTag(one["key"], one["value"]) for one in body.get("tags", [])]
        store.log_batch(body["run_id"], metrics, parameters, tags)
        # An empty id says that nothing is left to wait for: it is all written.
        return {"batch_tracking_id": ""}


class _Quiet(WSGIRequestHandler):
    """Connections that stay open, and no line for each request."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def main() -> None:
    """Serve until somebody ends the process: every answer was written before it was given."""
    settings = Settings(**json.loads(os.environ.pop(VARIABLE)))
    server = make_server("127.0.0.1", 0, make_app(settings), threaded=True, request_handler=_Quiet)
    print(f"{READY}{server.port}", flush=True)  # noqa: T201 - the front waits for it
    server.serve_forever()


if __name__ == "__main__":
    main()
