"""Jobs of the emulated workspace: submitted, really run, followed, cancelled, and found as MLflow runs of their names."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlflow_azure_backend.emulator import EmulatorServer
from tests.emulator.schema import problems
from tests.emulator.test_data_plane import Client

VERSION = {"api-version": "2025-01-01-preview"}
NEWER = ("assetName", "assetVersion", "autologgerSettings", "queueSettings", "dockerArgsList")
TRACK = """
import json, os, pathlib, sys, urllib.request
print("\u2603 started", sys.argv[1:], flush=True)
host, _, workspace = os.environ["MLFLOW_TRACKING_URI"].removeprefix("azureml://").partition("/mlflow/v1.0")
url = f"https://{host}/mlflow/v2.0{workspace}/api/2.0/mlflow/runs/"
headers = {"Authorization": "Bearer " + os.environ["MLFLOW_TRACKING_TOKEN"], "Content-Type": "application/json"}
def post(what, **body):
    body = json.dumps({"run_id": os.environ["MLFLOW_RUN_ID"], **body}).encode()
    urllib.request.urlopen(urllib.request.Request(url + what, body, headers)).read()
post("log-metric", key="loss", value=0.5, timestamp=1)
post("update", status="FAILED", end_time=1)
pathlib.Path("outputs").mkdir()
pathlib.Path("outputs/a model.txt").write_text("weights")
pathlib.Path(sys.argv[2], "named.txt").write_text(os.environ["GREETING"])
"""


class Submitter(Client):
    """Submits jobs with plain requests."""

    @property
    def arm(self) -> str:
        return f"https://management.azure.com{self.workspace}"

    def asset(self, kind: str, **properties: Any) -> str:
        """The id of a new version of an asset."""
        url = f"{self.arm}/{kind}/{uuid.uuid4()}/versions/1"
        return str(self.put(url, params=VERSION, json={"properties": properties}).json()["id"])

    def code(self, **modules: str) -> str:
        """The id of a code with these modules."""
        return self.code_of({f"{name}.py": text.encode() for name, text in modules.items()})

    def code_of(self, files: Mapping[str, bytes]) -> str:
        """The id of a code with these files."""
        url = f"{self.arm}/codes/{uuid.uuid4()}/versions/1/startPendingUpload"
        told = self.post(url, params=VERSION, json={}).json()["blobReferenceForConsumption"]
        for name, content in files.items():
            address = told["credential"]["sasUri"].replace("?", f"/src/{name}?")
            assert self.blob("PUT", address, content).status_code == 201
        return self.asset("codes", codeUri=f"{told['blobUri']}/src")

    def environment(self, dependencies: str = "[python]") -> str:
        """The id of an environment with this conda file."""
        return self.asset("environments", image="ubuntu", condaFile=f"name: e\ndependencies: {dependencies}\n")

    def job(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"{self.arm}/jobs/{name}", params=VERSION).json()
        return found

    def submit(self, name: str, **properties: Any) -> Any:
        body = {"properties": {"jobType": "Command", **properties}}
        return self.put(f"{self.arm}/jobs/{name}", params=VERSION, json=body)

    def wait(self, name: str, *statuses: str) -> dict[str, Any]:
        """The job once it has one of the statuses."""
        deadline = time.monotonic() + 120
        while (job := self.job(name))["properties"]["status"] not in statuses:
            assert job["properties"]["status"] not in {"Completed", "Failed", "Canceled"}, job
            assert time.monotonic() < deadline, job
        return job


@pytest.fixture(scope="module")
def client(emulator: EmulatorServer) -> Iterator[Submitter]:
    with Submitter(emulator) as made:
        yield made


def test_a_job_runs_and_its_run_is_its_own(client: Submitter) -> None:
    wanted = {
        "command": 'python train.py "${{inputs.rate}}" ${{outputs.result}}',
        "codeId": client.code(train=TRACK),
        "environmentId": client.environment(),
        "environmentVariables": {"GREETING": "gr\u00fc\u00dfe"},
        "inputs": {"rate": {"jobInputType": "literal", "value": "0.3; it's"}},
        "outputs": {"result": {"jobOutputType": "uri_folder"}},
        "experimentName": "jobs",
        "displayName": "A job",
        "tags": {"team": "x"},
    }
    made = client.submit("Quiet_Fox-1", **wanted)
    assert (made.status_code, made.json()["properties"]["status"]) == (201, "Starting")
    assert problems("JobBase", made.json(), newer=NEWER) == []
    ended = client.wait("Quiet_Fox-1", "Completed", "Failed")
    details = client.get(f"{client.history}/runs/Quiet_Fox-1/details").json()
    log = client.blob("GET", details["logFiles"]["user_logs/std_log.txt"]).text
    assert (ended["properties"]["status"], details["error"]) == ("Completed", None), log
    assert log.splitlines()[0].startswith('\u2603 started ["0.3; it\'s", ')
    run = client.get(f"{client.mlflow}/runs/get", params={"run_id": "Quiet_Fox-1"}).json()["run"]
    assert (run["info"]["status"], run["info"]["run_name"]) == ("FINISHED", "A job")
    assert run["data"]["metrics"][0]["value"] == 0.5
    assert {"key": "team", "value": "x"} in run["data"]["tags"]
    artifacts = f"{client.history}/experiments/jobs/runs/Quiet_Fox-1/artifacts"
    paths = [one["path"] for one in client.get(artifacts).json()["value"]]
    assert [path for path in paths if not path.startswith("azureml-logs/")] == [
        "outputs/a model.txt",
        "user_logs/std_log.txt",
    ]
    again = client.submit("Quiet_Fox-1", **wanted, description="said later")
    assert (again.status_code, again.json()["properties"]["description"]) == (200, "said later")
    refused = client.submit("Quiet_Fox-1", **{**wanted, "command": "other"}).json()["error"]["message"]
    assert refused.startswith("A job with this name already exists.")
    assert "the existing job's Command cannot be changed. Only description, tags" in refused


def test_a_log_grows_while_the_job_runs_and_cancel_ends_its_tree(client: Submitter, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    command = f"mkfifo '{fifo}'; echo first; sleep 1000 & read line < '{fifo}'"
    client.submit("long", command=command, environmentId=client.environment())
    client.wait("long", "Running")
    deadline = time.monotonic() + 60
    address = ""
    while not address or client.blob("GET", address).text != "first\n":
        address = client.get(f"{client.history}/runs/long/details").json()["logFiles"].get("user_logs/std_log.txt", "")
        assert time.monotonic() < deadline
    cancelled = client.post(f"{client.arm}/jobs/long/cancel", params=VERSION)
    assert cancelled.status_code == 202
    told = client.get(cancelled.headers["Azure-AsyncOperation"]).json()
    assert told["status"] == "Succeeded"
    client.wait("long", "Canceled")
    assert client.get(f"{client.history}/runs/long").json()["status"] == "Canceled"
    assert client.post(f"{client.arm}/jobs/long/cancel", params=VERSION).status_code == 200


def test_a_job_that_has_had_its_time_is_cancelled(client: Submitter) -> None:
    limits = {"jobLimitsType": "Command", "timeout": "PT1S"}
    client.submit("slow", command="echo begun; sleep 1000", environmentId=client.environment(), limits=limits)
    client.wait("slow", "Canceled")
    limits["timeout"] = "P1Y"
    client.submit("year", command="true", environmentId=client.environment(), limits=limits)
    client.wait("year", "Failed")
    error = client.get(f"{client.history}/runs/year/details").json()["error"]["error"]
    assert "limits.timeout: P1Y is no duration" in error["message"]


def test_a_command_that_fails_fails_the_job(client: Submitter) -> None:
    client.submit("bad", command="echo no >&2; exit 3", environmentId=client.environment())
    client.wait("bad", "Failed")
    error = client.get(f"{client.history}/runs/bad/details").json()["error"]["error"]
    assert (error["code"], "status code 3" in error["message"]) == ("UserError", True)


def test_a_job_that_is_not_there_is_named_as_recorded(client: Submitter) -> None:
    error = client.job("none")["error"]
    told = {one["type"]: one["info"]["value"] for one in error["additionalInfo"]}
    assert (error["code"], error["message"]) == ("UserError", "Job none not found.")
    assert told["MessageFormat"] == "Job {jobId} not found."
    assert told["InnerError"] == {"code": "NotFound", "innerError": {"code": "JobNotFound", "innerError": None}}


@pytest.mark.parametrize(
    ("dependencies", "words"),
    [("5", "no list of dependencies"), ("[python, {pip: [/no/such]}]", "Image build failed.")],
)
def test_what_cannot_be_run_ends_the_job_in_one_line(client: Submitter, dependencies: str, words: str) -> None:
    name = f"refused-{uuid.uuid4()}"
    client.submit(name, command="true", environmentId=client.environment(dependencies))
    client.wait(name, "Failed")
    message = client.get(f"{client.history}/runs/{name}/details").json()["error"]["error"]["message"]
    assert words in message
    assert "\n" not in message


def test_what_is_not_done_is_refused_at_once(client: Submitter) -> None:
    job = {"command": "true", "environmentId": client.environment()}
    for more, words in (
        ({"computeId": f"{client.workspace}/computes/gpu"}, "Compute gpu not found."),
        ({"resources": {"instanceCount": 0}}, "instance count 0 must be at least 1"),
        ({"experimentName": "a name"}, "Experiment name must be 1-256 characters"),
        ({"comand": "true"}, "properties.comand is not in the published specification."),
        (
            {"resources": {"properties": {"IsLocal": {"IsLocal": True}}}},
            'asks for compute "local", which is not emulated',
        ),
    ):
        answer = client.submit("refused", **job, **more)
        assert answer.status_code in {400, 404, 501}
        assert words in answer.json()["error"]["message"]
    assert client.job("refused")["error"]["message"] == "Job refused not found."


def test_a_restart_goes_on_with_what_had_not_started(tmp_path: Path) -> None:
    with (
        EmulatorServer(state=tmp_path / "state", outside=False, queue_seconds=1000) as first,
        Submitter(first) as client,
    ):
        client.submit("waiting", command="echo done", environmentId=client.environment())
        client.wait("waiting", "Queued")
    with EmulatorServer(state=tmp_path / "state", outside=False, queue_seconds=0) as again, Submitter(again) as client:
        client.wait("waiting", "Completed")
