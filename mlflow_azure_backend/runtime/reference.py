"""Which workspace, and the addresses of its services."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from .clouds import CLOUDS, PUBLIC, cloud_of_host

_PROVIDER = "providers/Microsoft.MachineLearningServices/workspaces"
_ARM_ID = re.compile(
    r"/subscriptions/(?P<subscription_id>[^/]+)/resourceGroups/(?P<resource_group>[^/]+)"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/(?P<workspace_name>[^/?#]+)",
    re.IGNORECASE,
)
_TRACKING_URI = re.compile(
    r"azureml://(?P<host>[^/]+)/mlflow/v[12]\.0" + _ARM_ID.pattern + r"/?(?:[?#].*)?", re.IGNORECASE
)
FORM = (
    "azureml://REGION.api.azureml.ms/mlflow/v1.0/subscriptions/SUBSCRIPTION/resourceGroups/GROUP/"
    + _PROVIDER
    + "/WORKSPACE"
)
"""What a tracking URI looks like."""


class MalformedReference(ValueError):
    """A text that names no workspace; one line that says how it should look."""


@dataclass(frozen=True)
class WorkspaceReference:
    """One Azure ML workspace.

    Attributes:
        subscription_id: The subscription's id.
        resource_group: The resource group's name.
        workspace_name: The workspace's name.
        host: Host of its own services, ``REGION.api.azureml.ms`` or a private link's; None: to be looked up.
    """

    subscription_id: str
    resource_group: str
    workspace_name: str
    host: str | None = None

    @property
    def arm_id(self) -> str:
        """Its path in Azure Resource Manager."""
        group = f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
        return f"{group}/{_PROVIDER}/{self.workspace_name}"

    @property
    def tracking_uri(self) -> str:
        """Its ``azureml://`` tracking URI; only for a workspace whose host is known."""
        return f"azureml://{self._known_host}/mlflow/v1.0{self.arm_id}"

    def service(self, name: str) -> str:
        """The address of one of its services, such as ``history/v1.0``, ``artifact/v2.0`` and ``mlflow/v2.0``."""
        return f"https://{self._known_host}/{name}{self.arm_id}"

    def studio_page(self, run_id: str, tenant_id: str | None = None) -> str:
        """The address of a run in Azure ML studio; only for a workspace whose host is known.

        Args:
            run_id: The run's id, which is the job's name.
            tenant_id: Of the workspace; None: the one that the browser is signed in to.
        """
        cloud = cloud_of_host(self._known_host) or PUBLIC
        group = f"/subscriptions/{self.subscription_id}/resourcegroups/{self.resource_group}"
        tenant = "" if tenant_id is None else f"&tid={tenant_id}"
        return f"https://{cloud.studio}/runs/{quote(run_id)}?wsid={group}/workspaces/{self.workspace_name}{tenant}"

    @property
    def _known_host(self) -> str:
        if self.host is None:
            raise LookupError(f"the host of workspace {self.workspace_name} has not been looked up")
        return self.host


def from_tracking_uri(uri: str) -> WorkspaceReference:
    """Read a whole ``azureml://`` tracking URI.

    Raises:
        MalformedReference: It names no workspace, or a host that is not Azure's: that would be sent a token.
    """
    match = _TRACKING_URI.fullmatch(uri.strip())
    if match is None:
        raise MalformedReference(f"{_shown(uri)} is no tracking URI of a workspace; it looks like {FORM}")
    reference = WorkspaceReference(**match.groupdict())
    if cloud_of_host(reference.host or "") is None:
        suffixes = ", ".join("*" + cloud.api_suffix for cloud in CLOUDS)
        raise MalformedReference(
            "{} is no host of Azure ML ({}), so no token is sent there".format(_shown(match.group("host")), suffixes)
        )
    return reference


def from_arm_id(arm_id: str) -> WorkspaceReference:
    """Read a workspace's path in Azure Resource Manager.

    Raises:
        MalformedReference: It is none.
    """
    match = _ARM_ID.fullmatch(arm_id.strip())
    if match is None:
        raise MalformedReference(f"{_shown(arm_id)} is no id of a workspace")
    return WorkspaceReference(**match.groupdict())


def from_variables(environ: Mapping[str, str]) -> WorkspaceReference | None:
    """The workspace of the AZUREML_ARM_* variables, which every Azure ML job has; None unless all three are set."""
    names = ("AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME")
    values = [environ.get(name, "") for name in names]
    return WorkspaceReference(*values) if all(values) else None


def _shown(text: str) -> str:
    """A text from outside as it may stand in a line."""
    return repr(text if len(text) <= 300 else text[:300] + "…")
