"""What the cloud's services are called, for clients that look it up before they ask anything else."""

from __future__ import annotations

from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.routing import ARM, LOGIN, Known, Service

service = Service("Cloud metadata", host=ARM, api_versions=("2019-05-01",))


@service.operation(
    "Metadata_ListEndpoints",
    "GET",
    "/metadata/endpoints",
    known=Known.SPECIFIED,
    source="azureml-mlflow 1.62, _common/_cloud/cloud.py, and azure-ai-ml 1.35, _azure_environments.py: what they read",
)
async def endpoints(_: Call) -> Answer:
    """The public cloud."""
    authentication = {
        "loginEndpoint": f"https://{LOGIN}/",
        "audiences": ["https://management.core.windows.net/", f"https://{ARM}/"],
        "tenant": "common",
        "identityProvider": "AAD",
    }
    suffixes = {
        "acrLoginServer": "azurecr.io",
        "azureDataLakeStoreFileSystem": "azuredatalakestore.net",
        "azureDataLakeAnalyticsCatalogAndJob": "azuredatalakeanalytics.net",
        "keyVaultDns": "vault.azure.net",
        "sqlServerHostname": "database.windows.net",
        "storage": "core.windows.net",
    }
    cloud = {
        "name": "AzureCloud",
        "portal": "https://portal.azure.com",
        "resourceManager": f"https://{ARM}/",
        "authentication": authentication,
        "suffixes": suffixes,
        "batch": "https://batch.core.windows.net/",
        "gallery": "https://gallery.azure.com/",
        "graphAudience": "https://graph.windows.net/",
        "media": "https://rest.media.azure.net",
        "sqlManagement": "https://management.core.windows.net:8443/",
        "activeDirectoryDataLake": "https://datalake.azure.net/",
        "vmImageAliasDoc": "https://raw.githubusercontent.com/Azure/azure-rest-api-specs/master/arm-compute/quickstart-templates/aliases.json",
    }
    return Answer([cloud])
