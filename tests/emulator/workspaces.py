"""A workspace as plain requests see it: the emulated one, or a real one with ``--live``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

SCOPE = "https://management.azure.com/.default"
ARM = "https://management.azure.com"
VARIABLES = ("AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME")


class Workspace(requests.Session):
    """Requests with a token.

    Args:
        path: The workspace's ARM id.
        token: For Resource Manager, which the data plane takes too.
        **settings: Of the session: ``proxies``, ``verify``.
    """

    def __init__(self, path: str, token: str, **settings: Any) -> None:
        super().__init__()
        self.trust_env = not settings
        self.proxies = settings.get("proxies", {})
        self.verify = settings.get("verify", True)
        self.headers["Authorization"] = f"Bearer {token}"
        self.workspace = path
        self.arm = f"{ARM}{path}"

    def resource(self, version: str = "2024-10-01") -> dict[str, Any]:
        """The workspace itself."""
        found = self.get(self.arm, params={"api-version": version})
        found.raise_for_status()
        resource: dict[str, Any] = found.json()
        return resource

    def host(self) -> str:
        """The address of the data plane, from the discovery document as clients find it."""
        discovery = self.get(self.resource()["properties"]["discoveryUrl"])
        discovery.raise_for_status()
        return str(discovery.json()["api"])

    def plain(self, method: str, url: str, **more: Any) -> requests.Response:
        """A request without the token."""
        with requests.Session() as session:
            session.trust_env, session.proxies, session.verify = self.trust_env, self.proxies, self.verify
            return session.request(method, url, timeout=60, **more)

    def blob(self, method: str, uri: str, data: bytes = b"") -> requests.Response:
        """A request to the storage account with nothing but the address's own signature."""
        return self.plain(method, uri, data=data, headers={"x-ms-blob-type": "BlockBlob", "x-ms-version": "2021-08-06"})


def emulated_token(proxy: str, bundle: Path, settings: Mapping[str, Any]) -> str:
    """A token of the emulated identity service."""
    form = {
        "grant_type": "client_credentials",
        "client_id": settings["client_id"],
        "client_secret": settings["client_secret"],
        "scope": SCOPE,
    }
    url = f"https://login.microsoftonline.com/{settings['tenant_id']}/oauth2/v2.0/token"
    told = requests.post(url, data=form, proxies={"https": proxy}, verify=str(bundle), timeout=60)
    return str(told.json()["access_token"])


def live_path(environment: Mapping[str, str] = os.environ, folder: Path | None = None) -> str:
    """The ARM id of the workspace that the variables name, else the nearest ``config.json``.

    Raises:
        LookupError: Neither does; the text is one line.
    """
    named = [environment.get(name, "") for name in VARIABLES]
    if not all(named):
        start = Path.cwd() if folder is None else folder
        for place in (start, *start.parents):
            for file in (place / "config.json", place / ".azureml" / "config.json"):
                if file.is_file():
                    return _path(*_read(file))
        raise LookupError(
            f"--live needs a workspace: its config.json in this folder or above, or {', '.join(VARIABLES)}"
        )
    return _path(*named)


def _read(file: Path) -> list[str]:
    keys = ("subscription_id", "resource_group", "workspace_name")
    try:
        config = json.loads(file.read_text("utf-8"))
        return [str(config[key]) for key in keys]
    except (ValueError, KeyError, TypeError):
        raise LookupError(f"--live: {file} is no workspace's config.json: it must have {', '.join(keys)}") from None


def live() -> Workspace:
    """The real workspace, with the default credentials of azure-identity."""
    from azure.identity import DefaultAzureCredential

    with DefaultAzureCredential() as credential:
        return Workspace(live_path(), credential.get_token(SCOPE).token)


def _path(subscription: str, group: str, name: str) -> str:
    scope = f"/subscriptions/{subscription}/resourceGroups/{group}"
    return f"{scope}/providers/Microsoft.MachineLearningServices/workspaces/{name}"
