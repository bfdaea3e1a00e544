"""What emulated jobs read and write: datastores, assets and blobs in; artifacts, folders and data assets out."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_azure_backend.emulator import EmulatorServer
from tests.emulator.test_distributed_jobs import logs_of, run
from tests.emulator.test_jobs import Submitter
from tests.emulator.test_ml_client import ml_client

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

__all__ = ["ml_client"]
pytestmark = pytest.mark.filterwarnings("ignore")  # of azure-ai-ml's own about itself


TELL = """python -c '
import json, os, urllib.request
print(json.dumps(dict(os.environ)))
host, _, workspace = os.environ["MLFLOW_TRACKING_URI"].removeprefix("azureml://").partition("/mlflow/v1.0")
url = f"https://{host}/history/v1.0{workspace}/experiments/Default/runs/variables/token"
request = urllib.request.Request(url, headers={"Authorization": "Bearer " + os.environ["AZUREML_RUN_TOKEN"]})
print(json.dumps(json.load(urllib.request.urlopen(request))))
'"""
TOKENS = ("AZUREML_RUN_TOKEN", "MLFLOW_TRACKING_TOKEN", "AZUREML_RUN_TOKEN_EXPIRY")
WAY = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
CONDA = ("CONDA_PREFIX", "CONDA_DEFAULT_ENV", "AZUREML_CONDA_ENVIRONMENT_PATH")
TOLD = (
    "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "AZUREML_RUN_ID",
    "AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME", "AZUREML_ARM_PROJECT_NAME",
    "AZUREML_EXPERIMENT_ID", "AZUREML_SERVICE_ENDPOINT", "QUOTED",
)  # fmt: skip


@pytest.fixture(scope="module")
def client(emulator: EmulatorServer) -> Iterator[Submitter]:
    with Submitter(emulator) as made:
        yield made


@pytest.fixture(scope="module")
def environment(client: Submitter) -> str:
    return client.environment()


def said(client: Submitter, name: str, **properties: Any) -> str:
    """What the one process of a job that completes wrote."""
    return run(client, name, **properties)["user_logs/std_log.txt"]


@pytest.fixture
def written(client: Submitter, environment: str) -> str:
    """Path in ``workspaceblobstore`` of a folder that a job wrote."""
    if client.job("writer").get("error"):
        command = (
            "mkdir -p '${{outputs.made}}/a b'; echo one > '${{outputs.made}}/a b/ü#1'; echo two > ${{outputs.made}}/2"
        )
        output = {"jobOutputType": "uri_folder", "uri": "azureml://datastores/workspaceblobstore/paths/of/${{name}}/x/"}
        run(client, "writer", command=command, environmentId=environment, outputs={"made": output})
    return "of/writer/x"


@pytest.mark.parametrize("form", ["short", "long", "https", "wasbs", "asset", "latest", "artifact"])
def test_an_input_is_read_from_every_form_of_address(
    client: Submitter, emulator: EmulatorServer, environment: str, written: str, form: str
) -> None:
    store = f"azureml-blobstore-{emulator.settings['workspace_id']}"
    host = f"{emulator.settings['storage_account']}.blob.core.windows.net"
    scope = client.workspace.replace("/providers/Microsoft.MachineLearningServices", "").replace(
        "resourceGroups", "resourcegroups"
    )
    asset = client.asset(
        "data", dataType="uri_folder", dataUri=f"azureml://datastores/workspaceblobstore/paths/{written}"
    )
    name = asset.split("/data/")[1].split("/")[0]
    address = {
        "short": f"azureml://datastores/workspaceblobstore/paths/{written}/",
        "long": f"azureml:/{scope}/datastores/workspaceblobstore/paths/{written}",
        "https": f"https://{host}/{store}/{written}/",
        "wasbs": f"wasbs://{store}@{host}/{written}",
        "asset": asset,
        "latest": f"azureml:{name}@latest",
        "artifact": "azureml://jobs/writer/outputs/artifacts/paths/user_logs",
    }[form]
    folder = {"jobInputType": "uri_folder", "uri": address, "mode": "Download"}
    command = "cd ${{inputs.data}} && find . -type f | sort"
    text = said(client, f"reader-{form}", command=command, environmentId=environment, inputs={"data": folder})
    assert text == ("./std_log.txt\n" if form == "artifact" else "./2\n./a b/ü#1\n")


def test_a_file_is_given_by_its_path_and_a_direct_input_by_its_address(
    client: Submitter, environment: str, written: str
) -> None:
    uri = f"azureml://datastores/workspaceblobstore/paths/{written}/2"
    inputs = {
        "file": {"jobInputType": "uri_file", "uri": uri, "mode": "ReadOnlyMount"},
        "address": {"jobInputType": "uri_file", "uri": uri, "mode": "Direct"},
    }
    command = "cat ${{inputs.file}}; basename ${{ inputs.file }}; echo ${{inputs.address}}"
    assert said(client, "files", command=command, environmentId=environment, inputs=inputs) == f"two\n2\n{uri}\n"


def test_a_mounted_output_shows_what_was_there_and_keeps_what_changed(client: Submitter, environment: str) -> None:
    output = {
        "jobOutputType": "uri_folder",
        "uri": "azureml://datastores/workspaceblobstore/paths/shared",
        "mode": "ReadWriteMount",
    }
    change = "cd $AZURE_ML_OUTPUT_shared; ls; rm -f first; echo $RANDOM > $WHO"
    for who, seen in (("first", ""), ("second", "first\n"), ("third", "second\n")):
        text = said(
            client,
            f"shares-{who}",
            command=change,
            environmentId=environment,
            environmentVariables={"WHO": who},
            outputs={"shared": output},
        )
        assert text == seen
    upload = {"shared": {**output, "mode": "Upload"}}
    assert (
        said(client, "uploads", command="ls $AZURE_ML_OUTPUT_shared", environmentId=environment, outputs=upload) == ""
    )


def test_named_outputs_are_downloaded_and_become_data_assets(
    ml_client: MLClient, client: Submitter, tmp_path: Path
) -> None:
    from azure.ai.ml import Input, Output, command
    from azure.ai.ml.entities import Environment

    (tmp_path / "conda.yaml").write_text("dependencies: [python]")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "däta.txt").write_text("text")
    wanted = command(
        name="outputs",
        command="cp ${{inputs.folder}}/* ${{outputs.copied}}/; echo file > ${{outputs.single}}; mkdir logs; touch logs/l",
        environment=Environment(image="ubuntu", conda_file=str(tmp_path / "conda.yaml")),
        inputs={"folder": Input(type="uri_folder", path=str(tmp_path / "in"), mode="ro_mount")},
        outputs={
            "copied": Output(type="uri_folder", mode="upload", name="copies", version="3"),
            "single": Output(type="uri_file", path="azureml://datastores/workspaceblobstore/paths/one/${{name}}.txt"),
        },
    )
    ml_client.jobs.create_or_update(wanted)
    ml_client.jobs.stream("outputs")
    ml_client.jobs.download("outputs", output_name="copied", download_path=str(tmp_path))
    assert (tmp_path / "named-outputs" / "copied" / "däta.txt").read_text() == "text"
    assert ml_client.data.get("copies", "3").path.endswith(
        "/datastores/workspaceblobstore/paths/azureml/outputs/copied/"
    )
    # azure-ai-ml 1.35 compares the recorded word UriFolder with uri_folder, and finds only what is in the usual place.
    outputs = client.post(f"{client.history}/rundata", json={"runId": "outputs"}).json()["runMetadata"]["outputs"]
    assert {name: one["type"] for name, one in outputs.items()} == {"copied": "UriFolder", "single": "UriFile"}
    resolve = f"{client.host}/data/v1.0{client.workspace}/dataversion/batchGetResolvedUris"
    single = outputs["single"]["assetId"]
    told = client.post(resolve, json={"values": [single, single.replace("single", "none")]}).json()["values"]
    assert list(told) == [single]
    assert told[single]["uri"].endswith("/datastores/workspaceblobstore/paths/one/outputs.txt")


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        (
            {"uri": "https://example.com/x.csv"},
            {},
            "input d: https://example.com/x.csv: data is read from and written to",
        ),
        (
            {"uri": "azureml://datastores/other/paths/x"},
            {},
            "there are the datastores workspaceblobstore and workspace",
        ),
        ({"uri": "azureml:none:1"}, {}, "input d: azureml:none:1: there is no such asset"),
        (
            {"uri": "azureml://datastores/workspaceblobstore/paths/nothing"},
            {},
            "input d: there is nothing at azureml://",
        ),
        ({"uri": "azureml:x:1", "mode": "EvalMount"}, {}, "input d: "),
        ({}, {"uri": "https://example.com/"}, "output o: https://example.com/: data is read from and written to"),
    ],
)
def test_data_that_is_not_there_ends_the_job_in_one_line(
    client: Submitter, environment: str, inputs: dict[str, str], outputs: dict[str, str], words: str
) -> None:
    name = f"no-data-{uuid.uuid4()}"
    given = {
        **({"inputs": {"d": {"jobInputType": "uri_folder", **inputs}}} if inputs else {}),
        **({"outputs": {"o": {"jobOutputType": "uri_folder", **outputs}}} if outputs else {}),
    }
    client.submit(name, command="true", environmentId=environment, **given)
    client.wait(name, "Failed")
    message = client.get(f"{client.history}/runs/{name}/details").json()["error"]["error"]["message"]
    assert (words in message, "\n" in message) == (True, False), message


def test_what_was_written_before_a_cancel_is_kept(client: Submitter, environment: str, tmp_path: Path) -> None:
    command = "mkdir outputs; echo half > outputs/model; echo ready; sleep 1000"
    client.submit("half", command=command, environmentId=environment)
    while logs_of(client, "half").get("user_logs/std_log.txt") != "ready\n":
        client.job("half")
    client.post(f"{client.arm}/jobs/half/cancel", params={"api-version": "2025-01-01-preview"})
    client.wait("half", "Canceled")
    artifacts = f"{client.history}/experiments/Default/runs/half/artifacts"
    assert "outputs/model" in [one["path"] for one in client.get(artifacts).json()["value"]]


def test_logs_are_kept_and_a_shared_output_is_seen_while_the_command_runs(
    client: Submitter, environment: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "go")
    output = {"jobOutputType": "uri_folder", "uri": "azureml://datastores/workspaceblobstore/paths/common"}
    command = f"mkdir logs; echo told > logs/diary; echo new > ${{{{outputs.o}}}}/seen; cat '{tmp_path}/go'"
    client.submit("writes", command=command, environmentId=environment, outputs={"o": output})
    while logs_of(client, "writes").get("logs/diary") != "told\n":
        pass
    look = {"command": "cat ${{outputs.o}}/seen", "environmentId": environment, "outputs": {"o": output}}
    assert said(client, "looks", **look) == "new\n"
    (tmp_path / "go").write_bytes(b"")
    client.wait("writes", "Completed")


def test_a_job_is_told_what_azure_tells_and_nothing_of_the_emulator(
    client: Submitter, emulator: EmulatorServer, environment: str
) -> None:
    variables = {"AZUREML_EXPERIMENT_ID": "mine", "QUOTED": 'it\'s a "text"\nof two lines'}
    text = said(client, "variables", command=TELL, environmentId=environment, environmentVariables=variables)
    told, renewed = (json.loads(line) for line in text.splitlines())
    settings = emulator.settings
    assert {name: told.pop(name) for name in TOLD} == {
        "MLFLOW_TRACKING_URI": emulator.tracking_uri,
        "MLFLOW_RUN_ID": "variables",
        "MLFLOW_EXPERIMENT_ID": "0",
        "MLFLOW_EXPERIMENT_NAME": "Default",
        "AZUREML_RUN_ID": "variables",
        "AZUREML_ARM_SUBSCRIPTION": settings["subscription_id"],
        "AZUREML_ARM_RESOURCEGROUP": settings["resource_group"],
        "AZUREML_ARM_WORKSPACE_NAME": settings["workspace_name"],
        "AZUREML_ARM_PROJECT_NAME": "Default",
        "AZUREML_EXPERIMENT_ID": "mine",
        "AZUREML_SERVICE_ENDPOINT": f"https://{settings['region']}.api.azureml.ms",
        "QUOTED": variables["QUOTED"],
    }
    assert told["AZUREML_RUN_TOKEN"] == told["MLFLOW_TRACKING_TOKEN"]
    assert int(told["AZUREML_RUN_TOKEN_EXPIRY"]) > time.time()
    assert sorted(renewed) == ["expiryTimeUtc", "token"]
    known = {"PATH", "LANG", "HOME", "TZ", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE", *WAY, *CONDA, *TOKENS}
    assert told.keys() - known == set()
