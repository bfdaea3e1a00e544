"""What one emulator is: its workspace's names, its times and its switches; kept with its state."""

from __future__ import annotations

import base64
import json
import secrets
import uuid
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mlflow_azure_backend.emulator.problems import EmulatorProblem


@dataclass(frozen=True)
class Settings:
    """All that can be set; what is not given is made up once and kept in ``settings.json``.

    Attributes:
        subscription_id: Of the workspace.
        resource_group: Of the workspace.
        workspace_name: Of the workspace.
        workspace_id: The workspace's GUID.
        region: Azure's name of the region, like ``westeurope``.
        tenant_id: The tenant that issues tokens.
        client_id: The one service principal.
        client_secret: Its secret.
        storage_account: The workspace's storage account.
        storage_key: Its key, base64.
        token_lifetime: Seconds until a token of the identity service expires.
        run_token_lifetime: Seconds until a run's own token expires.
        sas_lifetime: Seconds until a shared access signature expires.
        queue_seconds: How long a job waits in the queue.
        provisioning_seconds: How long a node takes to come up; spent by the first job on a compute, and by serverless.
        image_build_seconds: How long an image build takes; spent once for each environment version.
        base_images: What stands for which image, by patterns: one of this machine's container engine, in which jobs run
            then (``{image}``: the image itself), or ``process`` for processes of this machine.
        conda_mirror: What stands for ``https://conda.anaconda.org``; empty: itself, or what rattler's own settings say.
        retry_after_seconds: What ``Retry-After`` says on asynchronous operations.
        core_quota: vCPUs that a cluster's smallest number of nodes, at least one, may have; more is refused.
        throttled: Whether Resource Manager refuses what is more than 25 reads and 10 writes a second, as in Azure.
        logged_models: Whether MLflow 3's ``logged-models`` endpoints answer; the real service does not have them.
        outside: Whether hosts that are not emulated are reached; False: they get 403.
    """

    subscription_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    resource_group: str = "emulator"
    workspace_name: str = "emulator"
    workspace_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    region: str = "westeurope"
    tenant_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    client_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    client_secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    storage_account: str = field(default_factory=lambda: f"emulator{secrets.token_hex(6)}")
    storage_key: str = field(default_factory=lambda: base64.b64encode(secrets.token_bytes(64)).decode())
    token_lifetime: float = 3600
    run_token_lifetime: float = 7 * 24 * 3600
    sas_lifetime: float = 24 * 3600
    queue_seconds: float = 0
    provisioning_seconds: float = 0
    image_build_seconds: float = 0
    base_images: dict[str, str] = field(default_factory=dict)
    conda_mirror: str = ""
    retry_after_seconds: int = 1
    core_quota: int = 100
    throttled: bool = False
    logged_models: bool = False
    outside: bool = True

    @property
    def workspace(self) -> str:
        """The workspace's ARM id."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace_name}"
        )

    @property
    def api_host(self) -> str:
        """The host of the workspace's data plane."""
        return f"{self.region}.api.azureml.ms"

    @property
    def blob_host(self) -> str:
        """The host of the storage account's blobs."""
        return f"{self.storage_account}.blob.core.windows.net"

    @property
    def tracking_uri(self) -> str:
        """The workspace's ``mlFlowTrackingUri``."""
        return f"azureml://{self.api_host}/mlflow/v1.0{self.workspace}"


def settle(folder: Path, given: dict[str, Any]) -> Settings:
    """What was given over what is kept in ``folder`` over what is made up; kept there for the next start.

    Raises:
        EmulatorProblem: A name that is no setting, a value that is none for it, or a file that is no settings file.
    """
    file = folder / "settings.json"
    names = {one.name for one in fields(Settings)}
    unknown = sorted(set(given) - names)
    if unknown:
        raise EmulatorProblem(f"{unknown[0]}: no such setting; there are {', '.join(sorted(names))}")
    for name, value in given.items():
        _check(name, value)
    kept: dict[str, Any] = {}
    if file.exists():
        try:
            kept = {name: value for name, value in json.loads(file.read_text("utf-8")).items() if name in names}
        except (ValueError, AttributeError):
            raise EmulatorProblem(
                f"{file}: not a settings file; delete the folder, or choose another with --state"
            ) from None
    settings = Settings(**{**kept, **given})
    file.touch(mode=0o600)
    file.write_text(json.dumps(asdict(settings), indent=1), "utf-8")
    return settings


_WORDS = {
    "str": "a text",
    "bool": "true or false",
    "int": "a whole number, 0 or more",
    "float": "a number, 0 or more",
    "dict[str, str]": "an object of texts",
}


def _check(name: str, value: Any) -> None:
    """That a setting has a value of its kind.

    Raises:
        EmulatorProblem: It has not.
    """
    kind = next(str(one.type) for one in fields(Settings) if one.name == name)
    taken = {
        "str": isinstance(value, str),
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool) and value >= 0,
        "float": isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0,
        "dict[str, str]": isinstance(value, dict) and all(isinstance(one, str) for one in value.values()),
    }
    if not taken[kind]:
        raise EmulatorProblem(f"{name}={json.dumps(value)}: must be {_WORDS[kind]}")
