"""The Azure clouds and their addresses.

Source: ``azure/ai/ml/_azure_environments.py`` of azure-ai-ml 1.35, and https://learn.microsoft.com/azure/azure-government.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cloud:
    """One Azure cloud.

    Attributes:
        name: As ``az cloud list`` has it.
        resource_manager: Host of Azure Resource Manager (ARM).
        login: Host of the identity service.
        api_suffix: What the host of a workspace's own services ends with.
        studio: Host of Azure ML studio.
    """

    name: str
    resource_manager: str
    login: str
    api_suffix: str
    studio: str

    @property
    def scope(self) -> str:
        """The scope of the tokens that ARM and the workspace's services take, as azureml-mlflow asks for it."""
        return f"https://{self.resource_manager}/.default"


PUBLIC = Cloud("AzureCloud", "management.azure.com", "login.microsoftonline.com", ".api.azureml.ms", "ml.azure.com")
CLOUDS = (
    PUBLIC,
    Cloud(
        "AzureUSGovernment",
        "management.usgovcloudapi.net",
        "login.microsoftonline.us",
        ".api.ml.azure.us",
        "ml.azure.us",
    ),
    Cloud(
        "AzureChinaCloud",
        "management.chinacloudapi.cn",
        "login.chinacloudapi.cn",
        ".api.ml.azure.cn",
        "studio.ml.azure.cn",
    ),
)


def cloud_of_host(host: str) -> Cloud | None:
    """The cloud that a workspace's service host belongs to; None for a host of nobody's.

    Only hosts of a cloud are sent tokens.
    """
    return next((cloud for cloud in CLOUDS if host.lower().endswith(cloud.api_suffix)), None)


def cloud_named(name: str) -> Cloud | None:
    """The cloud of that name; None when there is none."""
    return next((cloud for cloud in CLOUDS if cloud.name.lower() == name.lower()), None)
