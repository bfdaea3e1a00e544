"""MLflow's REST API of the workspace, from experiments to registered models, answered by MLflow's own code."""

from __future__ import annotations

from aiohttp import web

from mlflow_azure_backend.emulator import limits
from mlflow_azure_backend.emulator.azure_errors import not_emulated
from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.routing import (
    AUDIENCE_ARM,
    AUDIENCE_ML,
    AUDIENCE_RUN,
    DATA_PLANE,
    WORKSPACE,
    Known,
    Service,
)
from mlflow_azure_backend.emulator.services.arm_workspaces import check_workspace

VERSIONS = ("v1.0", "v2.0")
"""azureml-mlflow 1.62 asks ``v1.0`` under MLflow 1 and ``v2.0`` under 2 and 3; the body is the same."""

service = Service(
    "MLflow tracking and registry",
    host=DATA_PLANE,
    prefix=f"/mlflow/{{version}}{WORKSPACE}/api/2.0",
    audiences=(AUDIENCE_ARM, AUDIENCE_ML, AUDIENCE_RUN),
)

_CLIENT = "azureml-mlflow 1.62 and MLflow 3.15 as they ask; MLflow's server as it answers"
_MODELS = "learn.microsoft.com, how-to-manage-models-mlflow; MLflow's server as it answers"
_NOT_IN_DOCS = "MLflow's server as it answers; whether Azure takes it is not documented"
_NO_LOGGED_MODELS = "azure-sdk-for-python#44896: 404 with an empty body"
_LIMITED = frozenset({"Runs_LogBatch", "Runs_LogBatchAsync", "Runs_LogParameter"})


async def forward(call: Call) -> Answer | web.StreamResponse:
    """MLflow's own answer."""
    version = call.path["version"]
    if version not in VERSIONS:
        raise not_emulated(call.request.method, call.request.host, call.request.path, f"is of API version {version}")
    check_workspace(call)
    path, _, query = call.request.raw_path.partition("?")
    place = path.lower().rindex("/api/2.0/")
    body = await call.request.read() if call.request.body_exists else None
    if call.operation.name in _LIMITED:
        await limits.check_batch(call, limits.parsed(body))
    reply = await call.world.tracking.ask(call.request.method, path[place:], query=query, body=body)
    return web.Response(status=reply.status, body=reply.body, content_type="application/json")


def _declare(known: Known, source: str, *requests: tuple[str, str, str]) -> None:
    for name, method, path in requests:
        service.operation(name, method, path, known=known, source=source, raw=True)(forward)


_declare(
    Known.SPECIFIED,
    _CLIENT,
    ("Experiments_Create", "POST", "/mlflow/experiments/create"),
    ("Experiments_Search", "POST", "/mlflow/experiments/search"),
    ("Experiments_SearchByGet", "GET", "/mlflow/experiments/search"),
    ("Experiments_Get", "GET", "/mlflow/experiments/get"),
    ("Experiments_Delete", "POST", "/mlflow/experiments/delete"),
    ("Experiments_Restore", "POST", "/mlflow/experiments/restore"),
    ("Experiments_Update", "POST", "/mlflow/experiments/update"),
    ("Experiments_SetTag", "POST", "/mlflow/experiments/set-experiment-tag"),
    ("Runs_Create", "POST", "/mlflow/runs/create"),
    ("Runs_Get", "GET", "/mlflow/runs/get"),
    ("Runs_Search", "POST", "/mlflow/runs/search"),
    ("Runs_Delete", "POST", "/mlflow/runs/delete"),
    ("Runs_Restore", "POST", "/mlflow/runs/restore"),
    ("Runs_LogMetric", "POST", "/mlflow/runs/log-metric"),
    ("Metrics_GetHistory", "GET", "/mlflow/metrics/get-history"),
    ("Runs_LogModel", "POST", "/mlflow/runs/log-model"),
    ("Runs_SetTag", "POST", "/mlflow/runs/set-tag"),
    ("Runs_DeleteTag", "POST", "/mlflow/runs/delete-tag"),
)
_declare(
    Known.SPECIFIED,
    f"{_CLIENT}; the limits from mlflow#11462 and azure-sdk-for-python#35685",
    ("Runs_LogParameter", "POST", "/mlflow/runs/log-parameter"),
    ("Runs_LogBatch", "POST", "/mlflow/runs/log-batch"),
    ("Runs_LogBatchAsync", "POST", "/preview/mlflow/runs/log-batch-async"),
)
_declare(
    Known.RECORDED,
    "azure-sdk-for-python#45209: a name with a slash is not found",
    ("Experiments_GetByName", "GET", "/mlflow/experiments/get-by-name"),
)
_declare(
    Known.INFERRED,
    "a job's run keeps the job's status: azureml-mlflow never sends it, run history refuses it (recommenders#1876); "
    "what this route does with it is not known",
    ("Runs_Update", "POST", "/mlflow/runs/update"),
)
_declare(
    Known.SPECIFIED,
    _MODELS,
    ("RegisteredModels_Create", "POST", "/mlflow/registered-models/create"),
    ("RegisteredModels_Get", "GET", "/mlflow/registered-models/get"),
    ("RegisteredModels_Search", "GET", "/mlflow/registered-models/search"),
    ("RegisteredModels_Update", "PATCH", "/mlflow/registered-models/update"),
    ("RegisteredModels_GetLatestVersions", "POST", "/mlflow/registered-models/get-latest-versions"),
    ("RegisteredModels_SetTag", "POST", "/mlflow/registered-models/set-tag"),
    ("RegisteredModels_DeleteTag", "DELETE", "/mlflow/registered-models/delete-tag"),
    ("ModelVersions_Create", "POST", "/mlflow/model-versions/create"),
    ("ModelVersions_Get", "GET", "/mlflow/model-versions/get"),
    ("ModelVersions_Search", "GET", "/mlflow/model-versions/search"),
    ("ModelVersions_Update", "PATCH", "/mlflow/model-versions/update"),
    ("ModelVersions_TransitionStage", "POST", "/mlflow/model-versions/transition-stage"),
    ("ModelVersions_GetDownloadUri", "GET", "/mlflow/model-versions/get-download-uri"),
    ("ModelVersions_Delete", "DELETE", "/mlflow/model-versions/delete"),
    ("ModelVersions_SetTag", "POST", "/mlflow/model-versions/set-tag"),
    ("ModelVersions_DeleteTag", "DELETE", "/mlflow/model-versions/delete-tag"),
)
_declare(
    Known.INFERRED,
    _NOT_IN_DOCS,
    ("RegisteredModels_SetAlias", "POST", "/mlflow/registered-models/alias"),
    ("RegisteredModels_GetByAlias", "GET", "/mlflow/registered-models/alias"),
    ("RegisteredModels_DeleteAlias", "DELETE", "/mlflow/registered-models/alias"),
    ("Runs_LogInputs", "POST", "/mlflow/runs/log-inputs"),
    ("Experiments_DeleteTag", "POST", "/mlflow/experiments/delete-experiment-tag"),
)


@service.operation(
    "RegisteredModels_Rename",
    "POST",
    "/mlflow/registered-models/rename",
    known=Known.SPECIFIED,
    source=_MODELS,
    raw=True,
)
@service.operation(
    "RegisteredModels_Delete",
    "DELETE",
    "/mlflow/registered-models/delete",
    known=Known.SPECIFIED,
    source=_MODELS,
    raw=True,
)
async def refuse(call: Call) -> Answer:
    """What Azure's documentation says that a workspace does not do; its words for that are not known."""
    verb = "rename" if call.operation.name.endswith("Rename") else "delete all versions of"
    message = f"Azure Machine Learning does not {verb} a registered model through MLflow"
    return Answer({"error_code": "NOT_IMPLEMENTED", "message": message}, 501)


@service.operation(
    "LoggedModels_Any", "*", "/mlflow/logged-models/{rest*}", known=Known.RECORDED, source=_NO_LOGGED_MODELS, raw=True
)
@service.operation(
    "LoggedModels_Create", "POST", "/mlflow/logged-models", known=Known.RECORDED, source=_NO_LOGGED_MODELS, raw=True
)
@service.operation(
    "Runs_LogOutputs",
    "POST",
    "/mlflow/runs/outputs",
    known=Known.INFERRED,
    source="as the other routes of logged models, which it refers to",
    raw=True,
)
async def logged_models(call: Call) -> Answer | web.StreamResponse:
    """MLflow 3's models of runs, which a workspace does not have unless the setting ``logged_models`` gives them."""
    if call.world.settings.logged_models:
        return await forward(call)
    return Answer(status=404)
