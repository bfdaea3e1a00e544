"""Artifacts: the facade that hands out addresses in storage, for runs and for what was uploaded without one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from mlflow_azure_backend.emulator.azure_errors import data_plane_error
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
from mlflow_azure_backend.emulator.runs import find_run
from mlflow_azure_backend.emulator.services.arm_workspaces import check_workspace
from mlflow_azure_backend.emulator.storage import ARTIFACTS

_PAGE = 100
"""Artifacts on one page; the service's own number is not known."""
_AUDIENCES = (AUDIENCE_ARM, AUDIENCE_ML, AUDIENCE_RUN)
_RUN = "azureml-mlflow 1.62, _restclient/run_artifact: requests and answers"
_LOG = (
    "a job's log of August 2026 in a public repository: the route with the experiment's id, the blob's name, and that "
    "making an empty artifact leaves no blob; lightly-train#256: that making one again is a conflict, and its words; "
    "the answer's form from azureml-mlflow 1.62"
)
_UPLOADED = "azureml-mlflow 1.62, _restclient/artifact: requests and answers"
_MISSING = "InnerEye-DeepLearning#335: the words for an artifact that is not there; azureml-mlflow 1.62: the answer"

of_runs = Service("Artifacts of runs", host=DATA_PLANE, prefix=f"/history/v1.0{WORKSPACE}", audiences=_AUDIENCES)
of_containers = Service(
    "Artifacts without a run", host=DATA_PLANE, prefix=f"/artifact/v2.0{WORKSPACE}", audiences=_AUDIENCES
)
_RUN_PATHS = {
    "": "/experiments/{experiment}/runs/{run}/artifacts",
    "ByExperimentId": "/experimentids/{experiment_id}/runs/{run}/artifacts",
}
_CONTAINER_PATH = "/artifacts/{origin}/{container}"


async def _place(call: Call) -> tuple[str, str]:
    """Origin and container that the path names, once it is sure that they may be used.

    Raises:
        AzureError: 404, there is no such run or experiment.
    """
    check_workspace(call)
    if "run" not in call.path:
        return call.path["origin"], call.path["container"]
    await find_run(call)
    return "ExperimentRun", f"dcid.{call.path['run']}"


async def batch_metadata(call: Call) -> Answer:
    """Addresses to write artifacts to, one for each path that was not made before; nothing is written yet."""
    origin, container = await _place(call)
    paths = _paths(call)
    await call.world.storage.make_container(ARTIFACTS)
    made = call.world.artifacts
    new = [path for path in paths if f"{origin}/{container}/{path}" not in made]
    made.update(f"{origin}/{container}/{path}" for path in new)
    return Answer(
        {
            "artifacts": {path: _artifact(origin, container, path) for path in new},
            "artifactContentInformation": {path: _content(call, origin, container, path, "rcw") for path in new},
            "errors": {path: _conflict(origin, container, path) for path in paths if path not in new},
        }
    )


def _conflict(origin: str, container: str, path: str) -> dict[str, Any]:
    message = f"Resource Conflict: ArtifactId {origin}/{container}/{path} already exists."
    return {"error": {"code": "UserError", "message": message}}


async def write_content(call: Call) -> Answer:
    """An address to write one artifact to that was made before."""
    origin, container = await _place(call)
    path = call.query.get("path", "")
    if f"{origin}/{container}/{path}" not in call.world.artifacts:
        await content(call)
    return Answer(_content(call, origin, container, path, "rcw"))


async def list_artifacts(call: Call) -> Answer:
    """What was written, a page at a time; ``path`` leaves what is below it."""
    origin, container = await _place(call)
    below = call.query.get("path", "").strip("/")

    def wanted(name: str) -> bool:
        return not below or name == below or name.startswith(f"{below}/")

    return await _page(call, origin, container, below, wanted, lambda name: _artifact(origin, container, name))


async def prefix_content(call: Call) -> Answer:
    """Addresses to read all that is below a path, a page at a time."""
    origin, container = await _place(call)
    prefix = call.query.get("path", "")
    return await _page(
        call, origin, container, prefix, lambda _: True, lambda name: _content(call, origin, container, name, "r")
    )


async def content(call: Call) -> Answer:
    """An address to read one artifact."""
    origin, container = await _place(call)
    path = call.query.get("path", "")
    first = await anext(
        _names(call, origin, container, path), None
    )  # names come in order: one that is equal comes first
    if not path or path != first:
        message = (
            f"Cannot find Artifact with ID {origin}/{container}/{path} in Partition {call.world.settings.workspace_id}."
        )
        raise data_plane_error(404, message, "NotFoundError")
    return Answer(_content(call, origin, container, path, "r"))


async def metadata(call: Call) -> Answer:
    """What is known of one artifact."""
    answer = await content(call)
    return Answer(_artifact(answer.body["origin"], answer.body["container"], answer.body["path"]))


async def delete(call: Call) -> Answer:
    """Delete one artifact with its blob, whether ``hardDelete`` says so or not: there is no way back here."""
    await content(call)
    origin, container = call.path["origin"], call.path["container"]
    await _delete(call, f"{origin}/{container}/{call.query['path']}")
    return Answer(status=200)


async def delete_batch(call: Call) -> Answer:
    """Delete the artifacts of these paths; one that is not there is passed over."""
    origin, container = await _place(call)
    for path in _paths(call):
        await _delete(call, f"{origin}/{container}/{path}")
    return Answer(status=200)


async def _delete(call: Call, name: str) -> None:
    call.world.artifacts.discard(name)
    await call.world.storage.delete(ARTIFACTS, name)


def _paths(call: Call) -> list[str]:
    """The paths of the body, which must be there.

    Raises:
        AzureError: 400, there are none.
    """
    asked = call.body.get("paths") if isinstance(call.body, Mapping) else None
    if not isinstance(asked, list) or not asked:
        raise data_plane_error(400, "The paths field is required.", "BadArgument")
    paths = [one.get("path") if isinstance(one, Mapping) else None for one in asked]
    if not all(isinstance(one, str) and one for one in paths):
        raise data_plane_error(400, "The path field is required.", "BadArgument")
    return [str(one) for one in paths]


async def _names(
    call: Call, origin: str, container: str, prefix: str = "", after: str = "", few: int | None = None
) -> AsyncIterator[str]:
    """Names of artifacts in order; of those after ``after``, and asked for ``few`` at a time."""
    folder = f"{origin}/{container}/"
    start = folder + after if after else ""
    async for name, _ in call.world.storage.names(ARTIFACTS, folder + prefix, after=start, few=few):
        yield name.removeprefix(folder)


def _artifact(origin: str, container: str, path: str) -> dict[str, Any]:
    relative = f"{origin}/{container}/{path}"
    data_path = {"dataStoreName": "workspaceartifactstore", "relativePath": relative, "sqlDataPath": None}
    return {
        "artifactId": relative,
        "origin": origin,
        "container": container,
        "path": path,
        "etag": None,
        "createdTime": None,
        "dataPath": data_path,
        "tags": {},
    }


def _content(call: Call, origin: str, container: str, path: str, permissions: str) -> dict[str, Any]:
    uri = call.world.storage.signed_url(ARTIFACTS, f"{origin}/{container}/{path}", permissions=permissions)
    return {"contentUri": uri, "origin": origin, "container": container, "path": path, "tags": {}}


async def _page(
    call: Call,
    origin: str,
    container: str,
    prefix: str,
    wanted: Callable[[str], bool],
    make: Callable[[str], dict[str, Any]],
) -> Answer:
    names: list[str] = []
    after = call.query.get("continuationToken", "")
    async for name in _names(call, origin, container, prefix, after, _PAGE + 1):
        names += [name] * wanted(name)
        if len(names) > _PAGE:
            break
    page = names[:_PAGE]
    token = page[-1] if len(names) > _PAGE else None
    link = None
    if token is not None:
        query = {**call.query, "continuationToken": token}
        link = f"{call.origin}{call.request.raw_path.partition('?')[0]}?{urlencode(query)}"
    return Answer({"value": [make(name) for name in page], "continuationToken": token, "nextLink": link})


def _declare() -> None:
    for suffix, path in _RUN_PATHS.items():
        for name, method, end, known, source, handle in (
            ("BatchCreateEmptyArtifacts", "POST", "/batch/metadata", Known.RECORDED, _LOG, batch_metadata),
            ("ListInContainer", "GET", "", Known.SPECIFIED, _RUN, list_artifacts),
            ("ListInPath", "GET", "/path", Known.SPECIFIED, _RUN, list_artifacts),
            ("GetContentInformation", "GET", "/contentinfo", Known.RECORDED, _MISSING, content),
            ("ListSasByPrefix", "GET", "/prefix/contentinfo", Known.SPECIFIED, _RUN, prefix_content),
            ("GetById", "GET", "/metadata", Known.SPECIFIED, _RUN, metadata),
        ):
            of_runs.operation(f"RunArtifacts_{name}{suffix}", method, path + end, known=known, source=source)(handle)
    for name, method, end, handle in (
        ("BatchCreateEmptyArtifacts", "POST", "/batch/metadata", batch_metadata),
        ("ListInContainer", "GET", "", list_artifacts),
        ("GetContentInformation", "GET", "/contentinfo", content),
        ("GetSas", "GET", "/write", write_content),
        ("ListSasByPrefix", "GET", "/prefix/contentinfo", prefix_content),
        ("Get", "GET", "/metadata", metadata),
        ("DeleteMetaData", "DELETE", "/metadata", delete),
        ("DeleteBatchMetaData", "POST", "/batch/metadata:delete", delete_batch),
    ):
        known, path = Known.SPECIFIED, _CONTAINER_PATH + end
        of_containers.operation(f"Artifacts_{name}", method, path, known=known, source=_UPLOADED)(handle)


_declare()
