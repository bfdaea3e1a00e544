"""MLflow's tracking store in a workspace."""

from __future__ import annotations

import os
import re
import sys
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from mlflow.entities import Experiment, Metric, Param, Run, RunTag, ViewType
from mlflow.protos.service_pb2 import MlflowService
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.rest_utils import _REST_API_PATH_PREFIX, extract_api_info_for_service

from .batches import requests_of
from .mlflow_api import MARK, MlflowApi, ServiceRefusal
from .run_models import RunModels
from .run_token import own_run
from .session import Session

_LINKS = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
_OURS = "tRUE"
"""True, as nobody else writes it."""
_ROUTES = extract_api_info_for_service(MlflowService, _REST_API_PATH_PREFIX)


class WorkspaceTrackingStore(RunModels, RestStore):
    """MLflow's own REST store over our connections, which do not lose, double or forget anything.

    Args:
        session: The workspace and the connections to it.
    """

    def __init__(self, session: Session) -> None:
        self.api = MlflowApi(session)
        self._reference = session.reference
        _take_over_links()
        super().__init__(self.api.credentials)

    def _call_endpoint(
        self,
        api: Any,
        json_body: str | None = None,
        endpoint: str | None = None,
        retry_timeout_seconds: float | None = None,
        response_proto: Any = None,
    ) -> Any:
        """The one seam of MLflow's store; the oldest MLflow gives the first three arguments only."""
        del retry_timeout_seconds
        path, method = _ROUTES[api]
        return self.api.call(api, endpoint or path, method, json_body, response_proto or api.Response())

    def create_run(
        self, experiment_id: str, user_id: str, start_time: int, tags: Sequence[RunTag], run_name: str
    ) -> Run:
        """Make a run: one, also when the answer is lost."""
        mark = RunTag(MARK, uuid.uuid4().hex)

        def create() -> Run:
            return super(WorkspaceTrackingStore, self).create_run(
                experiment_id, user_id, start_time, [*tags, mark], run_name
            )

        def find() -> Run | None:
            query = f"tags.`{mark.key}` = '{mark.value}'"
            found = self.search_runs([str(experiment_id)], query, ViewType.ALL, max_results=1)
            return found[0] if found else None

        return self.api.create_once(create, find)

    def log_batch(
        self, run_id: str, metrics: Iterable[Metric], params: Iterable[Param], tags: Iterable[RunTag]
    ) -> None:
        """Log many things at once, within the service's limits; of nothing, nothing is sent."""
        for portion in requests_of(metrics, params, tags):
            super().log_batch(run_id, *portion)

    def create_experiment(self, name: str, artifact_location: str | None = None, tags: Any = None) -> str:
        """Make an experiment; its id, also when the answer that it was made is lost."""
        try:
            return str(super().create_experiment(name, artifact_location, tags))
        except ServiceRefusal as refused:
            found = self.get_experiment_by_name(name) if refused.was_made_before else None
            if found is None:
                raise
            return str(found.experiment_id)

    def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """The experiment of that name; None when there is none.

        A workspace does not find a name with a slash by its name (azure-sdk-for-python#45209), but by a search.
        """
        found = super().get_experiment_by_name(experiment_name)
        if found is not None or "/" not in experiment_name:
            return found
        # A filter cannot hold both kinds of quotes, so it holds a part of the name that has none.
        part = max(re.split("['\"]", experiment_name), key=len)
        token = None
        while True:
            page = self.search_experiments(ViewType.ALL, 1000, f"name LIKE '%{part}%'", page_token=token)
            same = next((one for one in page if one.name == experiment_name), None)
            if same is not None or not page.token:
                return same
            token = page.token

    def update_run_info(self, run_id: str, run_status: Any, end_time: int | None, run_name: str | None) -> Any:
        """Change a run; not the status of the run that this process carries out as a job: that is the job's."""
        if run_id != own_run(os.environ):
            info = super().update_run_info(run_id, run_status, end_time, run_name)
            if end_time is not None and _shows_links():
                sys.stdout.write(f"🏃 View run {info.run_name} at: {self._reference.studio_page(run_id)}\n")
            return info
        if run_name is not None:
            return super().update_run_info(run_id, None, None, run_name)
        return self.get_run(run_id).info

    def record_logged_model(self, run_id: str, mlflow_model: Any, **newer: Any) -> None:
        """Note a model in its run's tags: once, also when the answer is lost."""

        def record() -> bool:
            super(WorkspaceTrackingStore, self).record_logged_model(run_id, mlflow_model, **newer)
            return True

        def find() -> bool | None:
            noted = self.get_run(run_id).data.tags.get("mlflow.log-model.history", "")
            return True if str(mlflow_model.model_uuid) in noted else None

        self.api.create_once(record, find)


def _take_over_links() -> None:
    """Keep MLflow from printing a link of a run that has ended: it would lead into the API, not to a page."""
    if os.environ.get(_LINKS) is None:
        os.environ[_LINKS] = _OURS


def _shows_links() -> bool:
    """Whether the user wants links; the variable's value tells ours from the user's."""
    return os.environ.get(_LINKS) == _OURS
