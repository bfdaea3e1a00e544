"""What a workspace answers, held against recordings of the real service: the emulator's in CI, a real one's with ``--live``.

    pytest tests/emulator/test_contract.py --live    # costs two short jobs on serverless compute

The workspace is that of the nearest ``config.json`` or of the ``AZUREML_ARM_…`` variables, with azure-identity's default
credentials.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.emulator.recorded import differences, recording
from tests.emulator.schema import problems
from tests.emulator.workspaces import Workspace, emulated_token, live

VERSION = {"api-version": "2024-10-01"}
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
PATIENCE = 3600
"""Seconds for a real job to get its node and its image."""
FINAL = {"Completed", "Failed", "Canceled"}
NEWER = ("assetName", "assetVersion", "autologgerSettings", "dockerArgsList", "parentJobName", "queueSettings")


@pytest.fixture(
    scope="module", params=["emulator", pytest.param("live", marks=(pytest.mark.live, pytest.mark.enable_socket))]
)
def workspace(request: pytest.FixtureRequest) -> Iterator[Workspace]:
    """The emulated workspace, and the real one."""
    if request.param == "live":
        with live() as real:
            yield real
        return
    emulator = request.getfixturevalue("emulator")
    token = emulated_token(emulator.proxy, emulator.bundle, emulator.settings)
    path = emulator.tracking_uri.partition("/mlflow/v1.0")[2]
    with Workspace(path, token, proxies={"https": emulator.proxy}, verify=str(emulator.bundle)) as emulated:
        yield emulated


@pytest.fixture(scope="module")
def history(workspace: Workspace) -> str:
    """The address of run history."""
    return f"{workspace.host()}/history/v1.0{workspace.workspace}"


def put_job(workspace: Workspace, name: str, **properties: Any) -> requests.Response:
    body = {"properties": {"jobType": "Command", **properties}}
    return workspace.put(f"{workspace.arm}/jobs/{name}", params=VERSION, json=body)


def wait(workspace: Workspace, name: str, statuses: set[str]) -> dict[str, Any]:
    """The job once it has one of the statuses."""
    deadline = time.monotonic() + PATIENCE
    while True:
        job: dict[str, Any] = workspace.get(f"{workspace.arm}/jobs/{name}", params=VERSION).json()
        status = job["properties"]["status"]
        if status in statuses:
            return job
        assert status not in FINAL, job
        assert time.monotonic() < deadline, job
        if not workspace.proxies:
            time.sleep(10)  # a real workspace answers 25 reads a second to all of its clients together


@pytest.fixture(scope="module")
def environment(workspace: Workspace) -> str:
    """The id of an environment whose jobs have a Python."""
    conda = "name: contract\nchannels: [conda-forge]\ndependencies: [python=3.11]\n"
    url = f"{workspace.arm}/environments/contract/versions/{hashlib.sha256(conda.encode()).hexdigest()[:12]}"
    made = workspace.put(url, params=VERSION, json={"properties": {"image": IMAGE, "condaFile": conda}})
    assert made.status_code in {200, 201}, made.text
    return str(made.json()["id"])


@pytest.fixture(scope="module")
def submitted(workspace: Workspace, environment: str) -> tuple[requests.Response, dict[str, Any]]:
    """The answer to the recorded submission, on serverless compute with this environment; and the job once it has ended."""
    asked = dict(recording("command_job_create")["request"]["body"]["properties"])
    del asked["computeId"], asked["jobType"]
    name = f"contract-{uuid.uuid4()}"
    answer = put_job(workspace, name, **{**asked, "environmentId": environment, "displayName": name})
    assert answer.status_code == 201, answer.text
    return answer, wait(workspace, name, FINAL)


def test_the_workspace_is_as_recorded(workspace: Workspace) -> None:
    recorded = recording("pipeline_job_completed_workspace_discovery_runhistory")
    properties = workspace.resource("2022-10-01-preview")["properties"]
    assert differences(recorded["workspace_get"]["response_properties"], properties) == []
    assert workspace.resource()["properties"]["mlFlowTrackingUri"].endswith(workspace.workspace)


def test_discovery_is_as_recorded_and_asks_for_no_token(workspace: Workspace) -> None:
    recorded = recording("pipeline_job_completed_workspace_discovery_runhistory")["discovery_get"]["response"]
    found = workspace.plain("GET", workspace.resource()["properties"]["discoveryUrl"]).json()
    assert differences(recorded, found, absent=frozenset({"catalog", "gallery"})) == []


def test_the_datastore_is_as_recorded(workspace: Workspace) -> None:
    recorded = recording("code_version_and_datastore")["datastore_get"]
    found = workspace.get(f"{workspace.arm}/datastores/workspaceblobstore", params=VERSION).json()
    # A workspace that was set up for identities has no account key.
    absent = frozenset({"properties.credentials.credentialsType"})
    assert differences(recorded, found, absent=absent) == []


def test_a_code_is_found_by_its_hash_as_recorded(workspace: Workspace) -> None:
    recorded = recording("code_version_and_datastore")["code_list_by_hash"]["response"]
    content = uuid.uuid4().hex.encode()
    digest = hashlib.sha256(content).hexdigest()
    first, second = (f"{workspace.arm}/codes/{uuid.uuid4()}/versions" for _ in range(2))
    version = {"api-version": "2023-04-01"}
    told = workspace.post(f"{first}/1/startPendingUpload", params=version, json={}).json()[
        "blobReferenceForConsumption"
    ]
    address = told["credential"]["sasUri"].replace("?", "/src/a.py?")
    assert workspace.blob("PUT", address, content).status_code == 201
    hashes = {"hash_sha256": digest, "hash_version": "202208"}
    properties = {"codeUri": f"{told['blobUri']}/src", "isAnonymous": False, "properties": hashes}
    assert workspace.put(f"{first}/1", params=version, json={"properties": properties}).status_code == 201
    search = {**version, "hash": digest, "hashVersion": "202208"}
    (found,) = workspace.get(second, params=search).json()["value"]
    (expected,) = recorded["value"]
    expected["properties"]["properties"]["hash_sha256"] = digest
    assert differences(expected, found) == []


def test_a_job_that_is_not_there_is_refused_as_recorded(workspace: Workspace) -> None:
    name = f"none-{uuid.uuid4()}"
    answer = workspace.get(f"{workspace.arm}/jobs/{name}", params=VERSION)
    recorded = recording("job_not_found_error_and_local_job")["job_get_404"]["error"]
    error = answer.json()["error"]
    assert (answer.status_code, differences(recorded, error)) == (404, [])
    infos = [{one["type"]: one["info"]["value"] for one in told["additionalInfo"]} for told in (recorded, error)]
    assert differences(*infos) == []
    assert error["message"] == infos[1]["MessageFormat"].replace("{jobId}", name)
    assert infos[1]["MessageParameters"] == {"jobId": name}


def test_a_job_is_made_as_recorded(workspace: Workspace, submitted: tuple[requests.Response, dict[str, Any]]) -> None:
    recorded, (answer, _) = recording("command_job_create"), submitted
    absent = frozenset({"properties.computeId"})  # serverless
    expected = recorded["response"]
    expected["properties"]["environmentId"] = answer.json()["properties"]["environmentId"]
    assert differences(expected, answer.json(), absent=absent) == []
    assert differences(recorded["response_headers"], dict(answer.headers)) == []
    assert answer.json()["properties"]["status"] in {"Starting", "NotStarted"}
    assert problems("JobBase", answer.json(), newer=NEWER) == []


def test_a_job_that_has_ended_is_as_recorded(
    workspace: Workspace, submitted: tuple[requests.Response, dict[str, Any]]
) -> None:
    recorded = recording("pipeline_job_completed_workspace_discovery_runhistory")["job_get"]["response"]
    of_pipelines = {
        "componentId",
        "sourceJobId",
        "outputs",
        "tags",
        "properties",
        "computeId",
        "description",
        "jobType",
    }
    expected = {key: value for key, value in recorded["properties"].items() if key not in of_pipelines}
    _, job = submitted
    assert differences({**recorded, "properties": expected}, job) == []
    assert job["properties"]["status"] == "Completed"


def test_the_run_of_a_job_is_as_recorded(
    workspace: Workspace, history: str, submitted: tuple[requests.Response, dict[str, Any]]
) -> None:
    recorded = recording("pipeline_job_completed_workspace_discovery_runhistory")["run"]["first_value"]
    of_steps = {"parentRunId", "name", "runType", "runTypeV2", "properties", "tags", "experimentId"}
    expected = {key: value for key, value in recorded.items() if key not in of_steps}
    run = workspace.get(f"{history}/runs/{submitted[1]['name']}").json()
    assert differences(expected, run) == []
    assert (run["runId"], run["dataContainerId"]) == (submitted[1]["name"], f"dcid.{submitted[1]['name']}")
    assert (run["runTypeV2"]["orchestrator"], run["runTypeV2"]["computeType"]) == ("Execution", "AmlcTrain")
    data = workspace.post(f"{history}/rundata", json={"runId": run["runId"]}).json()
    siblings = recording("pipeline_job_completed_workspace_discovery_runhistory")["rundata_outputs"][
        "siblings_of_runMetadata"
    ]
    assert {"runMetadata", *siblings} <= data.keys()


def test_each_log_has_an_address_of_the_recorded_form(
    workspace: Workspace, history: str, submitted: tuple[requests.Response, dict[str, Any]]
) -> None:
    name = submitted[1]["name"]
    recorded = recording("run_details_logfiles")["run_details"]["logFiles"]["user_logs/std_log.txt"]
    details = workspace.get(f"{history}/runs/{name}/details").json()
    found, expected = urlsplit(details["logFiles"]["user_logs/std_log.txt"]), urlsplit(recorded)
    assert found.netloc.partition(".")[2] == expected.netloc.partition(".")[2]
    assert found.path == f"/azureml/ExperimentRun/dcid.{name}/user_logs/std_log.txt"
    asked, told = parse_qs(found.query), parse_qs(expected.query)
    # The recorded signature is delegated by a user's key, which adds sk… parameters; both only read one blob.
    assert {key for key in told if not key.startswith("sk")} <= asked.keys()
    assert (asked["sr"], asked["sp"]) == (told["sr"], told["sp"]) == (["b"], ["r"])
    log = workspace.blob("GET", details["logFiles"]["user_logs/std_log.txt"])
    assert log.text == "inputs dont need to be used in command\n"


def test_a_name_is_used_once_and_the_same_request_again_changes_nothing(
    workspace: Workspace, submitted: tuple[requests.Response, dict[str, Any]], environment: str
) -> None:
    name = submitted[1]["name"]
    refused = put_job(workspace, name, command="echo other", environmentId=environment)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["code"] == "UserError"
    assert error["message"].startswith("A job with this name already exists.")
    assert "Only description, tags, displayName, properties, and isArchived can be updated." in error["message"]


def test_a_job_is_cancelled(workspace: Workspace, history: str, environment: str) -> None:
    """No recording of a cancel is known: with ``--live`` this says what the real service does."""
    name = f"contract-{uuid.uuid4()}"
    assert put_job(workspace, name, command="sleep 600", environmentId=environment).status_code == 201
    answer = workspace.post(f"{workspace.arm}/jobs/{name}/cancel", params=VERSION)
    assert answer.status_code in {200, 202}
    if answer.status_code == 202:
        assert {"Location", "Retry-After"} <= answer.headers.keys()
        assert urlsplit(answer.headers["Location"]).netloc == "management.azure.com"
    assert wait(workspace, name, {"Canceled"})["properties"]["status"] == "Canceled"
    assert workspace.get(f"{history}/runs/{name}").json()["status"] == "Canceled"
    assert workspace.post(f"{workspace.arm}/jobs/{name}/cancel", params=VERSION).status_code in {
        200,
        202,
        204,
        400,
        409,
    }
