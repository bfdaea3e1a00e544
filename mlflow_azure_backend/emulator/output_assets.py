"""The named outputs of jobs: where they go, and the data assets that they become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.jobs import Job
    from mlflow_azure_backend.emulator.settings import Settings
    from mlflow_azure_backend.emulator.world import World

_DATA_TYPES = {"uri_folder": "UriFolder", "uri_file": "UriFile", "mltable": "MLTable"}
"""Run history's words; the recording test_pipeline_job_child_run_download has the first."""


def output_uri(job: Job, name: str, asked: Mapping[str, Any]) -> str:
    """Where a named output goes: as it was asked for, else where azure-ai-ml looks for it.

    ``${{name}}`` and ``${{output_name}}`` in it are the job's and the output's.
    """
    uri = asked.get("uri") or "azureml://datastores/workspaceblobstore/paths/azureml/${{name}}/${{output_name}}/"
    return str(uri).replace("${{name}}", job.name).replace("${{output_name}}", name)


def outputs_in_history(settings: Settings, job: Job) -> dict[str, dict[str, str]]:
    """The outputs that run history names for a job that is over: data, by the id of its asset."""
    if not job.is_final:
        return {}
    place = f"azureml://locations/{settings.region}/workspaces/{settings.workspace_id}/data"
    return {
        name: {
            "assetId": f"{place}/{_asset_name(job, name)}/versions/1",
            "type": _DATA_TYPES[asked["jobOutputType"]],
        }
        for name, asked in job.properties["outputs"].items()
        if name != "default" and asked["jobOutputType"] in _DATA_TYPES
    }


def keep_output(world: World, job: Job, name: str, asked: Mapping[str, Any]) -> None:
    """Make the data assets of a named output: the one that each has, and the one that it asks for by name."""
    if asked["jobOutputType"] not in _DATA_TYPES:
        return
    uri = output_uri(job, name, asked)
    if uri.startswith("azureml://datastores/"):
        scope = world.settings.workspace.replace("/providers/Microsoft.MachineLearningServices", "")
        uri = f"azureml:/{scope}/{uri.removeprefix('azureml://')}"
    _put(world, job, _asset_name(job, name), "1", asked["jobOutputType"], uri)
    if asked.get("assetName"):
        _put(world, job, asked["assetName"], asked.get("assetVersion") or "1", asked["jobOutputType"], uri)


def _asset_name(job: Job, name: str) -> str:
    return f"azureml_{job.name}_output_data_{name}"


def _put(world: World, job: Job, name: str, version: str, kind: str, uri: str) -> None:
    now = world.clock.now().isoformat()
    properties: dict[str, Any] = {
        "description": None,
        "tags": {},
        "properties": {},
        "isArchived": False,
        "isAnonymous": name == _asset_name(job, name),
        "dataType": kind,
        "dataUri": uri,
    }
    user = {"createdBy": job.user, "createdByType": "Application", "createdAt": now, "lastModifiedAt": now}
    asset = {
        "id": f"{world.settings.workspace}/data/{name}/versions/{version}",
        "name": version,
        "type": "Microsoft.MachineLearningServices/workspaces/data/versions",
        "properties": properties,
        "systemData": user,
    }
    world.state.put("data", f"{name}/{version}", asset)
