"""The variables that Azure ML's runtime gives to a job's processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_azure_backend.emulator.execution.ranks import address
from mlflow_azure_backend.emulator.experiments import experiment_id
from mlflow_azure_backend.emulator.routing import AUDIENCE_RUN

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.jobs import Job
    from mlflow_azure_backend.emulator.world import World


def runtime_variables(world: World, job: Job, data: Mapping[str, str]) -> dict[str, str]:
    """What every rank of a job gets, the job's own ``environmentVariables`` last.

    Args:
        world: The emulator; its proxy and authorities are how a job reaches the service.
        job: The job.
        data: Where each input is and each named output is to be written. That inputs have variables, too, is known from
            programs in public repositories that read them.
    """
    settings = world.settings
    lifetime = timedelta(seconds=settings.run_token_lifetime)
    token, expires = world.tokens.issue(AUDIENCE_RUN, lifetime, run_id=job.name)
    experiment = str(experiment_id(job.experiment))
    return {
        **_way_to_the_service(world, job),
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "MLFLOW_TRACKING_TOKEN": token,
        "MLFLOW_RUN_ID": job.name,
        "MLFLOW_EXPERIMENT_ID": experiment,
        "MLFLOW_EXPERIMENT_NAME": job.experiment,
        "AZUREML_RUN_ID": job.name,
        "AZUREML_RUN_TOKEN": token,
        "AZUREML_RUN_TOKEN_EXPIRY": str(expires),
        "AZUREML_ARM_SUBSCRIPTION": settings.subscription_id,
        "AZUREML_ARM_RESOURCEGROUP": settings.resource_group,
        "AZUREML_ARM_WORKSPACE_NAME": settings.workspace_name,
        "AZUREML_ARM_PROJECT_NAME": job.experiment,
        "AZUREML_EXPERIMENT_ID": experiment,
        "AZUREML_SERVICE_ENDPOINT": f"https://{settings.api_host}",
        **data,
        **(job.properties.get("environmentVariables") or {}),
    }


def _way_to_the_service(world: World, job: Job) -> dict[str, str]:
    bundle: Path = world.folder / "certificates" / "bundle.pem"
    proxy = f"http://127.0.0.1:{world.port}"
    nodes = ",".join(address(node) for node in range(job.nodes))
    kept = {name: value for name, value in os.environ.items() if name in {"LANG", "HOME", "TZ"}}
    return {
        **kept,
        "HTTPS_PROXY": proxy,
        "https_proxy": proxy,
        "NO_PROXY": f"localhost,{nodes}",
        "REQUESTS_CA_BUNDLE": str(bundle),
        "SSL_CERT_FILE": str(bundle),
    }
