"""MLflow's model registry in a workspace."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow.entities.model_registry import ModelVersion, ModelVersionTag, RegisteredModel
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.model_registry.rest_store import RestStore

from .mlflow_api import MARK, MlflowApi, ServiceRefusal
from .run_models import run_and_name
from .session import Session
from .tracking import WorkspaceTrackingStore

_MODELS = "models:/"


class WorkspaceModelRegistryStore(RestStore):
    """MLflow's own REST store over our connections.

    Args:
        session: The workspace and the connections to it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.api = MlflowApi(session)
        self._runs = WorkspaceTrackingStore(session)
        super().__init__(self.api.credentials)

    def _call_endpoint(
        self, api: Any, json_body: str | None, call_all_endpoints: bool = False, extra_headers: Any = None
    ) -> Any:
        """The one seam of MLflow's store."""
        del extra_headers  # only Databricks gets any
        routes = [self._get_endpoint_from_method(api)]
        if call_all_endpoints:
            routes = self._get_all_endpoints_from_method(api)
        for place, (path, method) in enumerate(routes, 1):
            try:
                return self.api.call(api, path, method, json_body, self._get_response_from_method(api))
            except RestException as refused:
                if place == len(routes) or refused.error_code != "ENDPOINT_NOT_FOUND":
                    raise
        raise LookupError(f"MLflow has no route for {api.__name__}")

    def create_registered_model(self, name: str, *arguments: Any, **options: Any) -> RegisteredModel:
        """Make a model that versions can be added to; also when the answer that it was made is lost."""
        try:
            return super().create_registered_model(name, *arguments, **options)
        except ServiceRefusal as refused:
            if not refused.was_made_before:
                raise
            return self.get_registered_model(name)

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Any = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Make a version: one, also when the answer is lost.

        A model that is kept among its run's artifacts is registered from there; one on this machine is uploaded first.

        Raises:
            MlflowException: Refused; or a folder of this machine holds no model.
        """
        place = run_and_name(model_id or (source[len(_MODELS) :] if source.startswith(_MODELS) else None))
        if place is not None:
            run_id, folder = place
            source, model_id = f"{self._runs.get_run(run_id).info.artifact_uri}/{folder}", None
        source = self._reachable(source)
        mark = ModelVersionTag(MARK, uuid.uuid4().hex)
        newer = {} if model_id is None else {"model_id": model_id}

        def create() -> ModelVersion:
            return super(WorkspaceModelRegistryStore, self).create_model_version(
                name, source, run_id, [*(tags or ()), mark], run_link, description, local_model_path, **newer
            )

        def find() -> ModelVersion | None:
            versions = self.search_model_versions(f"name = '{name}'", max_results=200)
            return next((one for one in versions if one.tags.get(mark.key) == mark.value), None)

        return self.api.create_once(create, find)

    def _reachable(self, source: str) -> str:
        """Where the workspace finds a model; a folder of this machine goes to its storage, as by azureml-mlflow."""
        address = urlsplit(source)
        if address.scheme not in ("", "file"):
            return source
        folder = Path(url2pathname(address.path) if address.scheme else source)
        if not (folder / "MLmodel").is_file():
            raise MlflowException(
                f"{str(folder)!r} has no MLmodel file; register a folder that save_model has written",
                INVALID_PARAMETER_VALUE,
            )
        from .artifacts import WorkspaceArtifactRepository

        place = f"azureml://artifacts/LocalUpload/{time.strftime('%y%m%dT%H%M%S')}-{uuid.uuid4().hex[:8]}"
        name = folder.resolve().name
        WorkspaceArtifactRepository(place, lambda _: self._session, self._session.reference.tracking_uri).log_artifacts(
            str(folder), name
        )
        return f"{place}/{name}"
