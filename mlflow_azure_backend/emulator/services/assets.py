"""Versioned assets of the workspace: codes, environments, models and data, which differ in little but their names."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_azure_backend.emulator.azure_errors import AzureError, user_error
from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.routing import ARM, AUDIENCE_ARM, WORKSPACE, Handler, Known, Service
from mlflow_azure_backend.emulator.services.arm_workspaces import ML_API_VERSIONS, check_workspace
from mlflow_azure_backend.emulator.shapes import Shape
from mlflow_azure_backend.emulator.specification import (
    CODE_VERSION,
    DATA_VERSION,
    ENVIRONMENT_VERSION,
    MODEL_VERSION,
    PENDING_UPLOAD,
)

service = Service("Assets", host=ARM, audiences=(AUDIENCE_ARM,), prefix=WORKSPACE, api_versions=ML_API_VERSIONS)

_SPECIFICATION = "specification 2024-10-01; azure-ai-ml 1.35 as it asks and what it reads"
_CODES = "recordings test_code (2023-04-01) of a code's versions by hash, which answers for the whole workspace"
_UPLOAD = f"{_SPECIFICATION}: …_CreateOrGetStartPendingUpload"
_UPLOAD_RISK = (
    "no recording of an answer is known: what the container is called, how long the signature holds and what it allows "
    "is inferred. A client must use the addresses as they are given, and ask for others when they are refused"
)


@dataclass(frozen=True)
class Kind:
    """One kind of asset.

    Attributes:
        path: As ARM ids have it, like ``codes``.
        operations: The specification's name for its operations, like ``CodeVersions``.
        body: What a version may hold.
        added: Properties that the service adds to a version.
    """

    path: str
    operations: str
    body: Shape
    added: Mapping[str, Any]

    def get(self, call: Call, name: str, version: str) -> dict[str, Any]:
        """A version.

        Raises:
            AzureError: 404, there is none.
        """
        found: dict[str, Any] | None = call.world.state.get(self.path, f"{name}/{version}")
        if found is None:
            raise self._missing(call, f"{name}/versions/{version}")
        return found

    def versions(self, call: Call, name: str) -> list[dict[str, Any]]:
        """All versions of a name, the newest first."""
        return [one for _, one in call.world.state.items(self.path, f"{name}/")][::-1]

    def _missing(self, call: Call, what: str) -> AzureError:
        settings = call.world.settings
        place = f"azureml://locations/{settings.region}/workspaces/{settings.workspace_id}/{self.path}"
        return user_error(404, "Could not find asset with ID: {id}", "NotFoundError", id=f"{place}/{what}")

    async def put_version(self, call: Call) -> Answer:
        """Make a version, or change what may be changed of it."""
        check_workspace(call)
        name, version = call.path["name"], call.path["version"]
        old = call.world.state.get(self.path, f"{name}/{version}")
        asked = {key: value for key, value in call.body["properties"].items() if value is not None}
        common: dict[str, Any] = {
            "description": None,
            "tags": {},
            "properties": {},
            "isArchived": False,
            "isAnonymous": False,
        }
        for key in ("tags", "properties"):
            asked[key] = {one: str(value) for one, value in (asked.get(key) or {}).items()}
        resource = self._resource(call, f"{name}/versions/{version}", version, {**common, **self.added, **asked})
        if old is not None:
            resource["systemData"]["createdAt"] = old["systemData"]["createdAt"]
        call.world.state.put(self.path, f"{name}/{version}", resource)
        return Answer(resource, 201 if old is None else 200)

    async def get_version(self, call: Call) -> Answer:
        """A version."""
        check_workspace(call)
        return Answer(self.get(call, call.path["name"], call.path["version"]))

    async def list_versions(self, call: Call) -> Answer:
        """Versions, the newest first, or those of the whole workspace with the ``hash`` that is asked for."""
        check_workspace(call)
        wanted = call.query.get("hash")
        if wanted is not None:
            documents = [one for _, one in call.world.state.items(self.path)]
            found = [one for one in documents if one["properties"]["properties"].get("hash_sha256") == wanted]
        else:
            found = self.versions(call, call.path["name"])
            if not found:
                raise self._missing(call, call.path["name"])
        return Answer({"value": found[: int(call.query.get("$top", len(found)))], "nextLink": None})

    async def delete_version(self, call: Call) -> Answer:
        """Delete a version; one that is not there is no mistake."""
        check_workspace(call)
        gone = call.world.state.delete(self.path, f"{call.path['name']}/{call.path['version']}")
        return Answer(status=200 if gone else 204)

    async def get_container(self, call: Call) -> Answer:
        """A name, with its latest version and the one that comes next."""
        check_workspace(call)
        versions = self.versions(call, call.path["name"])
        if not versions:
            raise self._missing(call, call.path["name"])
        return Answer(self._container(call, call.path["name"], versions))

    async def list_containers(self, call: Call) -> Answer:
        """All names."""
        check_workspace(call)
        names = {key.partition("/")[0]: None for key, _ in call.world.state.items(self.path)}
        value = [self._container(call, name, self.versions(call, name)) for name in names]
        return Answer({"value": value, "nextLink": None})

    def _container(self, call: Call, name: str, versions: list[dict[str, Any]]) -> dict[str, Any]:
        numbers = [int(one["name"]) for one in versions if one["name"].isdecimal()]
        properties = {
            "description": versions[0]["properties"]["description"],
            "tags": {},
            "properties": {},
            "isArchived": False,
            "latestVersion": versions[0]["name"],
            "nextVersion": str(max(numbers, default=0) + 1),
        }
        if self.path == "data":
            properties["dataType"] = versions[0]["properties"]["dataType"]
        return self._resource(call, name, name, properties)

    async def start_upload(self, call: Call) -> Answer:
        """An address in storage to which a version's files may be written."""
        check_workspace(call)
        settings, storage = call.world.settings, call.world.storage
        container = f"{settings.workspace_id[:8]}-{uuid.uuid4()}"
        await storage.make_container(container)
        providers = f"/subscriptions/{settings.subscription_id}/resourceGroups/{settings.resource_group}/providers"
        reference = {
            "blobUri": storage.url(container),
            "storageAccountArmId": f"{providers}/Microsoft.Storage/storageAccounts/{settings.storage_account}",
            "credential": {"credentialType": "SAS", "sasUri": storage.signed_url(container, permissions="racwl")},
        }
        return Answer(
            {
                "pendingUploadId": str(uuid.uuid4()),
                "pendingUploadType": "TemporaryBlobReference",
                "blobReferenceForConsumption": reference,
            }
        )

    def _resource(self, call: Call, path: str, name: str, properties: dict[str, Any]) -> dict[str, Any]:
        settings, now = call.world.settings, call.world.clock.now().isoformat()
        user = {"createdBy": settings.client_id, "createdByType": "Application", "createdAt": now}
        suffix = "/versions" if "/versions/" in path else ""
        return {
            "id": f"{settings.workspace}/{self.path}/{path}",
            "name": name,
            "type": f"Microsoft.MachineLearningServices/workspaces/{self.path}{suffix}",
            "properties": properties,
            "systemData": {**user, "lastModifiedAt": now},
        }


_DONE = {"provisioningState": "Succeeded"}
KINDS = (
    Kind("codes", "CodeVersions", CODE_VERSION, _DONE),
    Kind(
        "environments",
        "EnvironmentVersions",
        ENVIRONMENT_VERSION,
        {**_DONE, "environmentType": "UserCreated", "osType": "Linux", "autoRebuild": "Disabled"},
    ),
    Kind("models", "ModelVersions", MODEL_VERSION, {**_DONE, "flavors": {}}),
    Kind("data", "DataVersions", DATA_VERSION, {}),
)


def _declare(kind: Kind) -> None:
    one = f"/{kind.path}/{{name}}"
    version = f"{one}/versions/{{version}}"
    containers = kind.operations.replace("Versions", "Containers")
    listed = (Known.RECORDED, _CODES) if kind.path == "codes" else (Known.SPECIFIED, _SPECIFICATION)

    def declare(
        name: str,
        method: str,
        path: str,
        handle: Handler,
        basis: tuple[Known, str] = (Known.SPECIFIED, _SPECIFICATION),
        body: Shape | None = None,
        risk: str = "",
    ) -> None:
        service.operation(name, method, path, known=basis[0], source=basis[1], risk=risk, body=body)(handle)

    declare(f"{kind.operations}_CreateOrUpdate", "PUT", version, kind.put_version, listed, kind.body)
    declare(f"{kind.operations}_Get", "GET", version, kind.get_version, listed)
    declare(f"{kind.operations}_List", "GET", f"{one}/versions", kind.list_versions, listed)
    declare(f"{kind.operations}_Delete", "DELETE", version, kind.delete_version)
    declare(f"{containers}_Get", "GET", one, kind.get_container)
    declare(f"{containers}_List", "GET", f"/{kind.path}", kind.list_containers)
    upload = f"{kind.operations}_CreateOrGetStartPendingUpload"
    basis = (Known.SPECIFIED, _UPLOAD)
    declare(upload, "POST", f"{version}/startPendingUpload", kind.start_upload, basis, PENDING_UPLOAD, _UPLOAD_RISK)


for _kind in KINDS:
    _declare(_kind)
