"""azure-ai-ml's MLClient, unmodified, with the workspace's assets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.identity import ClientSecretCredential

from mlflow_azure_backend.emulator import EmulatorServer
from tests.emulator.schema import problems
from tests.emulator.test_data_plane import Client

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

pytestmark = pytest.mark.filterwarnings("ignore")  # of azure-ai-ml's own about itself


@pytest.fixture
def ml_client(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MLClient]:
    from azure.ai.ml import MLClient

    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    settings = emulator.settings
    with ClientSecretCredential(settings["tenant_id"], settings["client_id"], settings["client_secret"]) as credential:
        yield MLClient.from_config(credential, path=str(emulator.config_file))


@pytest.fixture
def folder(nasty_path: Path) -> Path:
    """A folder with two files."""
    (nasty_path / "sub").mkdir()
    (nasty_path / "MLmodel").write_text("flavors: {}\n")
    (nasty_path / "sub" / "ü #1.bin").write_bytes(b"\x00weights")
    return nasty_path


def test_a_model_is_uploaded_numbered_and_downloaded(ml_client: MLClient, folder: Path, tmp_path: Path) -> None:
    from azure.ai.ml.entities import Model

    for number in ("1", "2"):
        assert ml_client.models.create_or_update(Model(name="a", path=folder, type="custom_model")).version == number
    assert ml_client.models.get("a", label="latest").version == "2"
    assert [one.version for one in ml_client.models.list("a")] == ["2", "1"]
    ml_client.models.download("a", "1", download_path=str(tmp_path / "got"))
    got = {one.name: one.read_bytes() for one in (tmp_path / "got").rglob("*") if one.is_file()}
    assert got == {"MLmodel": b"flavors: {}\n", "ü #1.bin": b"\x00weights"}


def test_environments_and_data_are_registered(ml_client: MLClient, folder: Path) -> None:
    from azure.ai.ml.entities import Data, Environment

    conda = folder / "conda.yaml"
    conda.write_text("name: x\ndependencies: [python=3.11]\n")
    wanted = Environment(name="e", image="ubuntu:22.04", conda_file=str(conda))
    assert ml_client.environments.create_or_update(wanted).version == "1"
    assert ml_client.environments.get("e", label="latest").image == "ubuntu:22.04"
    made = ml_client.data.create_or_update(Data(name="d", path=str(folder), type="uri_folder"))
    assert made.path.startswith("azureml://")


def test_what_is_not_there_is_named(ml_client: MLClient) -> None:
    with pytest.raises(ResourceNotFoundError, match=r"Could not find asset with ID: .*/models/none/versions/1"):
        ml_client.models.get("none", "1")


def test_a_code_is_found_by_its_hash_in_the_whole_workspace(emulator: EmulatorServer) -> None:
    with Client(emulator) as client:
        codes = f"https://management.azure.com{client.workspace}/codes"
        version = {"api-version": "2023-04-01"}
        search = {**version, "hash": "c0ffee", "hashVersion": "202208"}
        assert client.get(f"{codes}/one/versions", params=search).json() == {"value": [], "nextLink": None}
        told = client.post(f"{codes}/one/versions/1/startPendingUpload", params=version, json={}).json()
        assert problems("PendingUploadResponseDto", told) == []
        address = told["blobReferenceForConsumption"]["credential"]["sasUri"]
        file = address.replace("?", "/project/train.py?")
        assert client.blob("PUT", file, b"print()").status_code == 201
        assert client.blob("DELETE", file).status_code == 403
        uri = f"{told['blobReferenceForConsumption']['blobUri']}/project"
        properties = {"hash_sha256": "c0ffee", "hash_version": "202208"}
        body = {"properties": {"codeUri": uri, "isAnonymous": True, "properties": properties}}
        made = client.put(f"{codes}/one/versions/1", params=version, json=body)
        assert (made.status_code, client.put(f"{codes}/one/versions/1", params=version, json=body).status_code) == (
            201,
            200,
        )
        (found,) = client.get(f"{codes}/another/versions", params=search).json()["value"]
        assert (found["id"], found["properties"]["codeUri"]) == (f"{client.workspace}/codes/one/versions/1", uri)
        assert problems("CodeVersion", found) == []
        misspelt = {"properties": {"codeUrl": uri}}
        refused = client.put(f"{codes}/one/versions/2", params=version, json=misspelt)
        assert (refused.status_code, "properties.codeUrl is not in" in refused.json()["error"]["message"]) == (
            400,
            True,
        )


def test_a_job_is_submitted_again_without_blobs_and_downloaded(
    ml_client: MLClient, emulator: EmulatorServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from azure.ai.ml import command
    from azure.ai.ml.entities import Environment

    folder = tmp_path / "it's a päth #1"  # the client loses a semicolon
    folder.mkdir()
    (folder / "train.py").write_text("import os; os.mkdir('outputs'); open('outputs/m', 'w').write('x'); print('said')")
    (tmp_path / "conda.yaml").write_text("dependencies: [python]")
    environment = Environment(image="ubuntu", conda_file=str(tmp_path / "conda.yaml"))
    wanted = command(name="sdk-job", code=str(folder), command="python train.py", environment=environment)
    assert ml_client.jobs.create_or_update(wanted).status == "Starting"
    emulator.fault("status", operation="Blob_Any", method="PUT", status=500, times=None)
    assert ml_client.jobs.create_or_update(wanted).name == "sdk-job"
    emulator.control("DELETE", "/faults")
    ml_client.jobs.stream("sdk-job")
    assert "Execution Summary" in capsys.readouterr().out
    assert ml_client.jobs.get("sdk-job").status == "Completed"
    ml_client.jobs.download("sdk-job", download_path=str(tmp_path / "got"))
    artifacts = tmp_path / "got" / "artifacts"
    assert (artifacts / "outputs" / "m").read_text() == "x"
    assert (artifacts / "user_logs" / "std_log.txt").read_text() == "said\n"
    with pytest.raises(Exception, match="A job with this name already exists"):
        ml_client.jobs.create_or_update(command(name="sdk-job", command="true", environment=environment))
