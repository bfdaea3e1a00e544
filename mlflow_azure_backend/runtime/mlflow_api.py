"""MLflow's REST API of a workspace: one call of it, what of it may be sent twice, and its refusals as MLflow's.

MLflow repeats every request alike, so that a lost answer makes a second run. Here a call is repeated when sending it
twice does no more than once; what creates without a name is marked first, and looked for before it is sent again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import RestException
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.tracking.request_header.registry import resolve_request_headers
from mlflow.utils.proto_json_utils import parse_dict
from mlflow.utils.rest_utils import MlflowHostCreds

from .refusals import ServiceError
from .session import Session
from .transport import PATIENCE_SECONDS, USER_AGENT, Patience

T = TypeVar("T")

MARK = "mlflow.azureml.creation"
"""The tag that a run and a model version are found by when the answer that they were made is lost."""

_REPEATABLE_VERBS = ("Get", "Search", "List", "Set", "Delete", "Restore", "Update", "Transition", "Finalize")
_REPEATABLE = frozenset(
    {"LogBatch", "LogMetric", "LogParam", "LogInputs", "LogOutputs", "LogLoggedModelParamsRequest"}
    | {"CreateExperiment", "CreateRegisteredModel"}
)
"""Calls that do no more when they are sent twice; those that create by name are refused the second time."""
_UNDOING = ("Delete", "Restore")
"""Calls that find nothing to do the second time, and say so by an error."""
_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    429: "REQUEST_LIMIT_EXCEEDED",
    501: "NOT_IMPLEMENTED",
}
_INACTIVE = "must be in the 'active' state"
"""MLflow's words for an experiment or a run that was deleted."""


class ServiceRefusal(RestException):
    """What a workspace's refusal, or its silence, is for MLflow.

    Args:
        problem: The refusal.
    """

    def __init__(self, problem: ServiceError) -> None:
        self.problem = problem
        super().__init__({"error_code": _error_code(problem), "message": _message(problem)})

    @property
    def is_no_such_endpoint(self) -> bool:
        """Whether the service has no such call, rather than no such thing."""
        return self.problem.status == 404 and self.problem.code is None

    @property
    def was_made_before(self) -> bool:
        """Whether what was to be created is there already, perhaps by an attempt whose answer was lost."""
        exists = str(self.error_code) in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS")
        return exists and self.problem.uncertain_before


class MlflowApi:
    """MLflow's REST API of one workspace. May be used from several threads.

    Args:
        session: The workspace and the connections to it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.base = session.reference.service("mlflow/v2.0")

    def call(self, api: Any, endpoint: str, method: str, json_body: str | None, response: T) -> T:
        """One call, repeated while that is safe; returns ``response``, filled.

        Args:
            api: MLflow's class of the request.
            endpoint: Its path, from ``/api``.
            method: HTTP's.
            json_body: The request as JSON; None: empty.
            response: An empty message for the answer.

        Raises:
            ServiceRefusal: Refused, or no answer in time.
        """
        name = api.__name__
        body = json.loads(json_body) if json_body else None
        headers = resolve_request_headers()
        try:
            told = self._session.transport.json(
                method,
                self.base + endpoint,
                headers={**headers, "User-Agent": f"{USER_AGENT} {headers.get('User-Agent', '')}".strip()},
                idempotent=method == "GET" or name in _REPEATABLE or name.startswith(_REPEATABLE_VERBS),
                patience=_patience(),
                **({"params": body} if method == "GET" else {"json": body}),
            )
        except ServiceError as problem:
            refused = ServiceRefusal(problem)
            if problem.uncertain_before and problem.status == 404 and name.startswith(_UNDOING):
                return response  # an attempt whose answer was lost has done it
            raise refused from problem
        parse_dict(js_dict=told or {}, message=response)
        return response

    def create_once(self, create: Callable[[], T], find: Callable[[], T | None]) -> T:
        """Create what the service names, so that a lost answer does not make a second one.

        Args:
            create: One attempt to create it.
            find: Looks for what an attempt has made; None: there is nothing.

        Raises:
            ServiceRefusal: Refused, or no answer in time.
        """
        patience = Patience(_patience())
        while True:
            try:
                return create()
            except ServiceRefusal as refused:
                if not refused.problem.is_transient:
                    raise
                self._wait(refused, patience)
                found = find()
                if found is not None:
                    return found

    def _wait(self, refused: ServiceRefusal, patience: Patience) -> None:
        try:
            self._session.transport.wait(refused.problem, patience)
        except ServiceError:
            raise refused from None

    def credentials(self) -> MlflowHostCreds:
        """Address and token, for the few calls that MLflow's stores do not make through us."""
        return MlflowHostCreds(self.base, token=self._session.transport.bearer(f"{self.base}/api/2.0"))


def _patience() -> float:
    """Seconds for one call: ours, or less where MLflow's own variables ask for less."""
    attempts = 1 + max(0, int(MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()))
    return min(PATIENCE_SECONDS, float(MLFLOW_HTTP_REQUEST_TIMEOUT.get()) * attempts)


def _error_code(problem: ServiceError) -> str:
    if problem.code in ErrorCode.keys():  # noqa: SIM118 - an enum of protobuf, which is no mapping
        return str(problem.code)
    if problem.status == 404 and problem.code is None:
        return "ENDPOINT_NOT_FOUND"
    return _CODES.get(problem.status or 0, "TEMPORARILY_UNAVAILABLE" if problem.is_transient else "INTERNAL_ERROR")


def _message(problem: ServiceError) -> str:
    if _INACTIVE in problem.what and problem.next_step is None:
        problem.next_step = "restore it first: `mlflow experiments restore`, or `mlflow runs restore`"
    return str(problem)
