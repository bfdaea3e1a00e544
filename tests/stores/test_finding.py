"""Which workspace is meant, and what is said when none is, or it is not there, or one may not look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.errors import WorkspaceError
from mlflow_azure_backend.runtime.clouds import CLOUDS, Cloud
from mlflow_azure_backend.runtime.reference import MalformedReference, from_arm_id, from_tracking_uri
from mlflow_azure_backend.runtime.session import reference_in_job
from mlflow_azure_backend.stores import tracking_store
from mlflow_azure_backend.workspace.finding import cloud_of, find_workspace

GROUP = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
NAMES = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}
VARIABLES = {
    "AZUREML_ARM_SUBSCRIPTION": "s",
    "AZUREML_ARM_RESOURCEGROUP": "g",
    "AZUREML_ARM_WORKSPACE_NAME": "w",
}


def refusal(uri: str) -> str:
    """The one line that MLflow gets for a tracking URI."""
    with pytest.raises(MlflowException) as refused:
        tracking_store(uri).search_experiments(max_results=1)  # MLflow itself keeps the store of a URI
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda cloud: cloud.name)
@pytest.mark.parametrize("version", ["v1.0", "v2.0"])
def test_a_tracking_uri_of_every_cloud(cloud: Cloud, version: str) -> None:
    suffix = cloud.api_suffix
    reference = from_tracking_uri(f"azureml://A-Region{suffix}/mlflow/{version}{GROUP.lower()}?from=somewhere")
    assert reference.service("mlflow/v2.0") == f"https://A-Region{suffix}/mlflow/v2.0{GROUP}"
    assert cloud_of(reference, {}) is cloud
    assert from_tracking_uri(reference.tracking_uri) == reference
    assert cloud_of(from_arm_id(GROUP), {"AZUREML_CURRENT_CLOUD": cloud.name}) is cloud


@pytest.mark.parametrize(
    "uri",
    [
        "azureml://westeurope.api.azureml.ms",
        "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/s",
        f"azureml://westeurope.api.azureml.ms/mlflow/v3.0{GROUP}",
        f"azureml://westeurope.api.azureml.ms/mlflow/v1.0{GROUP}/experiments/x",
        f"azureml:/mlflow/v1.0{GROUP}",
        "azureml://\n\u2028" + "x" * 5000,
    ],
)
def test_a_malformed_uri_is_one_line_that_shows_the_form(workspace: EmulatorServer, uri: str) -> None:
    said = refusal(uri)
    assert "is no tracking URI of a workspace; it looks like azureml://REGION.api.azureml.ms/mlflow/v1.0/" in said
    assert len(said) < 1000


def test_a_token_is_sent_to_no_host_of_others(workspace: EmulatorServer) -> None:
    for host in ("westeurope.api.azureml.ms.example.com", "example.com", "user@example.com", "api.azureml.ms"):
        assert "no token is sent there" in refusal(f"azureml://{host}/mlflow/v1.0{GROUP}")


def test_a_short_uri_finds_config_json_upwards_or_the_variables(
    workspace: EmulatorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uri in ("azureml://", "azureml:", "azureml:/", "azureml:///"):
        assert tracking_store(uri).search_experiments(max_results=1)
    for name in VARIABLES:
        monkeypatch.delenv(name)
    assert "no Azure ML workspace is named; download its config.json" in refusal("azureml://")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "a" / "config.json").write_text('{"another": "program\'s"}')
    (tmp_path / ".azureml").mkdir()
    (tmp_path / ".azureml" / "config.json").write_text(workspace.config_file.read_text())
    monkeypatch.chdir(below)
    assert tracking_store("azureml://").search_experiments(max_results=1)


def test_a_whole_uri_asks_resource_manager_nothing(workspace: EmulatorServer) -> None:
    workspace.fault("status", host="management.azure.com", status=400, times=None)
    assert tracking_store(workspace.tracking_uri).search_experiments(max_results=1)


def test_a_workspace_that_is_not_there_or_not_ours(
    workspace: EmulatorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refusal(workspace.tracking_uri.rpartition("/")[0] + "/unknown")
    assert "404" in said and "unknown" in said
    config = {**json.loads(workspace.config_file.read_text()), "workspace_name": "nowhere"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "nowhere" in refusal("azureml://")
    (tmp_path / "config.json").unlink()
    workspace.fault("forbidden", path="*/mlflow/*", times=None)
    said = refusal(workspace.tracking_uri)
    assert "PERMISSION_DENIED" in said and "ask for a role on the workspace" in said


def test_nobody_is_signed_in(workspace: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_AZURE_LOGIN", "nonsense")
    assert "set browser or device_code" in refusal(workspace.tracking_uri)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ('{"workspace_name": ""}', "lacks subscription_id and resource_group and workspace_name; download it again"),
        ('{"workspace_name": "w", "subscription_id": 7, "resource_group": "g"}', "lacks subscription_id"),
    ],
)
def test_a_broken_config_json_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WorkspaceError, match=said) as refused:
        find_workspace("config.json", None, tmp_path, {})
    assert str(tmp_path / "config.json") in str(refused.value)


def test_what_is_named_first_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**NAMES, "workspace_name": "of the file"}))
    uri = f"azureml://westeurope.api.azureml.ms/mlflow/v1.0{GROUP.replace('/w', '/of%20the%20uri')}"
    configured = {**NAMES, "workspace_name": "configured"}
    assert find_workspace(configured, uri, tmp_path, VARIABLES).workspace_name == "configured"
    assert find_workspace(None, "azureml://", tmp_path, VARIABLES).workspace_name == "of the file"
    assert find_workspace(None, "sqlite:///x.db", tmp_path / "elsewhere", VARIABLES).workspace_name == "of the file"
    (tmp_path / "config.json").unlink()
    assert find_workspace(None, None, tmp_path, VARIABLES).workspace_name == "w"


def test_a_job_s_own_workspace_is_found_without_a_uri() -> None:
    uri = f"azureml://private.api.azureml.ms/mlflow/v1.0{GROUP}"
    assert reference_in_job("azureml://", {"MLFLOW_TRACKING_URI": uri}).host == "private.api.azureml.ms"
    environ = {**VARIABLES, "AZUREML_SERVICE_ENDPOINT": "https://westeurope.api.azureml.ms"}
    assert (
        reference_in_job("azureml://", environ).tracking_uri
        == f"azureml://westeurope.api.azureml.ms/mlflow/v1.0{GROUP}"
    )
    for wrong in ({}, VARIABLES, {**environ, "AZUREML_SERVICE_ENDPOINT": "https://example.com"}):
        with pytest.raises(MalformedReference):
            reference_in_job("azureml://", wrong)
