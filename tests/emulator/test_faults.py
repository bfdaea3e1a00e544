"""What can be ordered to go wrong, at every kind of route: the fault proxy of the tests of reliability."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.storage.blob import BlobClient

from mlflow_azure_backend.emulator import EmulatorProblem, EmulatorServer
from tests.emulator.test_data_plane import Client

VERSION = {"api-version": "2024-10-01"}


@pytest.fixture
def client(emulator: EmulatorServer) -> Iterator[Client]:
    with Client(emulator) as made:
        yield made
    emulator.clear()


@pytest.fixture
def addresses(client: Client) -> dict[str, str]:
    """One address of each service."""
    run = client.run("0")
    client.put_artifact(run, "a.txt", b"0123456789")
    artifacts = f"{client.history}/experiments/Default/runs/{run}/artifacts"
    blob = client.get(f"{artifacts}/contentinfo", params={"path": "a.txt"}).json()["contentUri"]
    return {
        "arm": f"https://management.azure.com{client.workspace}?api-version=2024-10-01",
        "mlflow": f"{client.mlflow}/runs/get?run_id={run}",
        "history": f"{client.history}/runs/{run}",
        "blob": blob,
    }


SOON = (60, 0.5)
"""Seconds to connect, which takes as long as the machine is busy, and to wait for an answer that never comes."""
SERVICES = ("arm", "mlflow", "history", "blob")


@pytest.mark.parametrize("service", SERVICES)
def test_an_error_is_in_the_words_of_its_service(
    emulator: EmulatorServer, client: Client, addresses: dict[str, str], service: str
) -> None:
    emulator.fault("status", method="GET", status=503, retry_after=7, times=2)
    answers = [client.get(addresses[service]) for _ in range(3)]
    assert [one.status_code for one in answers] == [503, 503, 200]
    assert (answers[0].headers["Retry-After"], "Retry-After" in answers[2].headers) == ("7", False)
    if service == "blob":
        error = ElementTree.fromstring(answers[0].content)  # noqa: S314 - the emulator's own answer
        assert (error.findtext("Code"), answers[0].headers["x-ms-error-code"]) == ("ServerBusy", "ServerBusy")
        assert str(error.findtext("Message")).startswith("The server is busy.\nRequestId:")
    else:
        assert (
            answers[0].json()["error"]["message"] == "The service answers 503 ServiceUnavailable, as it was ordered to."
        )


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("kind", ["reset-before", "reset-after", "truncated", "garbage"])
def test_a_connection_breaks(
    emulator: EmulatorServer, client: Client, addresses: dict[str, str], service: str, kind: str
) -> None:
    emulator.fault(kind, method="GET")
    with pytest.raises(requests.exceptions.RequestException):
        client.get(addresses[service])
    assert client.get(addresses[service]).status_code == 200


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_silent(emulator: EmulatorServer, client: Client, addresses: dict[str, str], service: str) -> None:
    for kind in ("hang", "hang-after"):
        emulator.fault(kind, method="GET")
        with pytest.raises(requests.exceptions.Timeout):
            client.get(addresses[service], timeout=SOON)


@pytest.mark.parametrize("service", SERVICES)
def test_an_answer_comes_byte_by_byte(
    emulator: EmulatorServer, client: Client, addresses: dict[str, str], service: str
) -> None:
    emulator.fault("slow", method="GET", seconds=0)
    sent = client.get(addresses[service])
    assert (sent.status_code, sent.content) == (200, client.get(addresses[service]).content)
    emulator.fault("slow", method="GET", seconds=30)
    with pytest.raises(requests.exceptions.RequestException):  # what came so far is one byte
        client.get(addresses[service], timeout=SOON)


@pytest.mark.parametrize("service", SERVICES)
def test_an_answer_is_not_what_was_asked_for(
    emulator: EmulatorServer, client: Client, addresses: dict[str, str], service: str
) -> None:
    emulator.fault("garbage-after", method="GET")
    assert client.get(addresses[service]).content == b"<html>\x00\xff not what you asked for"


def test_what_is_committed_is_known_by_when_the_connection_broke(emulator: EmulatorServer, client: Client) -> None:
    def found(name: str) -> bool:
        asked = {"experiment_name": name}
        return client.get(f"{client.mlflow}/experiments/get-by-name", params=asked).status_code == 200

    for kind in ("reset-before", "reset-after", "hang-after"):
        emulator.fault(kind, operation="Experiments_Create")
        with pytest.raises(requests.exceptions.RequestException):
            client.post(f"{client.mlflow}/experiments/create", json={"name": kind}, timeout=(60, 2))
        if kind == "reset-before":
            assert not found(kind)
        while kind != "reset-before" and not found(kind):
            pass  # the client may have left before it was written


def test_a_blob_is_written_although_its_answer_is_lost(emulator: EmulatorServer, client: Client) -> None:
    run = client.run("0")
    folder = f"{client.history}/experiments/Default/runs/{run}/artifacts"
    told = client.post(f"{folder}/batch/metadata", json={"paths": [{"path": "b"}]}).json()
    emulator.fault("reset-after", operation="Blob_Any", method="PUT")
    with pytest.raises(requests.exceptions.ConnectionError):
        client.blob("PUT", told["artifactContentInformation"]["b"]["contentUri"], b"y" * 3_000_000)
    assert [one["path"] for one in client.get(folder).json()["value"]] == ["b"]


def test_an_expired_token_is_said_with_where_to_get_another(
    emulator: EmulatorServer, client: Client, addresses: dict[str, str]
) -> None:
    emulator.fault("expired-token", times=2)
    assert client.get(addresses["blob"]).status_code == 200  # it asks for no token
    arm, plane = client.get(addresses["arm"]), client.get(addresses["history"])
    assert (arm.status_code, arm.json()["error"]["code"]) == (401, "ExpiredAuthenticationToken")
    assert "is earlier than current UTC time" in arm.json()["error"]["message"]
    assert (plane.status_code, plane.json()["error"]["innerError"]["code"]) == (401, "AuthorizationError")
    for answer in (arm, plane):
        challenge = answer.headers["WWW-Authenticate"]
        assert challenge.startswith(
            f'Bearer authorization_uri="https://login.windows.net/{emulator.settings["tenant_id"]}"'
        )
        assert 'error="invalid_token", error_description="The access token expiry UTC time' in challenge
    assert client.get(addresses["arm"]).status_code == 200


def test_a_request_without_a_token_is_told_so_by_each_service(client: Client, addresses: dict[str, str]) -> None:
    words = {
        "arm": "Authentication failed. The 'Authorization' header is missing.",
        "mlflow": "Bearer token not provided.",
    }
    for service, said in words.items():
        answer = requests.get(addresses[service], proxies=client.proxies, verify=client.bundle, timeout=60)
        assert (answer.status_code, answer.json()["error"]["message"]) == (401, said)


def test_an_expired_signature_is_an_authentication_error_to_microsofts_client(
    emulator: EmulatorServer, client: Client, addresses: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", emulator.proxy)
    emulator.fault("expired-sas")
    with BlobClient.from_blob_url(addresses["blob"], connection_verify=client.bundle, retry_total=0) as blob:
        with pytest.raises(
            ClientAuthenticationError, match="Signature not valid in the specified time frame"
        ) as raised:
            blob.download_blob()
        assert getattr(raised.value, "error_code", None) == "AuthenticationFailed"
        assert blob.download_blob().readall() == b"0123456789"


def test_a_principal_has_no_right(emulator: EmulatorServer, client: Client, addresses: dict[str, str]) -> None:
    who = emulator.settings["client_id"]
    emulator.fault("forbidden", times=None)
    arm = client.get(addresses["arm"]).json()["error"]
    assert arm["code"] == "AuthorizationFailed"
    assert arm["message"].startswith(
        f"The client '{who}' with object id '{who}' does not have authorization to perform action "
        f"'Microsoft.MachineLearningServices/workspaces/read' over scope '{client.workspace}'"
    )
    job = client.put(f"https://management.azure.com{client.workspace}/jobs/j", params=VERSION, json={})
    assert "'Microsoft.MachineLearningServices/workspaces/jobs/write'" in job.json()["error"]["message"]
    cancel = client.post(f"https://management.azure.com{client.workspace}/jobs/j/cancel", params=VERSION)
    assert "workspaces/jobs/cancel/action'" in cancel.json()["error"]["message"]
    plane = client.get(addresses["mlflow"])
    assert f"Identity(object id: {who}) does not have permissions for" in plane.json()["error"]["message"]
    blob = client.blob("GET", addresses["blob"])
    assert (blob.status_code, blob.headers["x-ms-error-code"]) == (403, "AuthorizationPermissionMismatch")
    assert {one.status_code for one in (job, cancel, plane)} == {403}


def test_a_host_is_not_reached_or_not_itself(
    emulator: EmulatorServer, client: Client, addresses: dict[str, str]
) -> None:
    emulator.fault("unreachable", host="*.blob.core.windows.net")
    with pytest.raises(requests.exceptions.ProxyError):
        client.blob("GET", addresses["blob"])
    emulator.fault("bad-certificate", host="*.blob.core.windows.net")
    with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed"):
        client.blob("GET", addresses["blob"])
    assert client.blob("GET", addresses["blob"]).content == b"0123456789"


def test_a_delay_goes_with_another_fault_and_faults_wait_for_their_turn(
    emulator: EmulatorServer, client: Client, addresses: dict[str, str]
) -> None:
    emulator.fault("latency", operation="Runs_*", seconds=30)
    with pytest.raises(requests.exceptions.ReadTimeout):
        client.get(addresses["mlflow"], timeout=SOON)
    delay = emulator.fault("latency", operation="Runs_*", seconds=0, times=None)
    number = emulator.fault("status", operation="runs_get", status=429, after=1)
    assert [client.get(addresses["mlflow"]).status_code for _ in range(3)] == [200, 429, 200]
    assert {one["number"]: one["struck"] for one in emulator.faults()}.items() >= {delay: 3, number: 1}.items()
    emulator.clear(number)
    assert [one["kind"] for one in emulator.faults()] == ["latency", "latency"]
    with pytest.raises(EmulatorProblem, match="colour: no such kind of fault; there are unreachable, "):
        emulator.fault("colour")
    with pytest.raises(EmulatorProblem, match="hue: no such field; a fault has after, code, "):
        emulator.fault("status", hue=1)


def test_microsofts_client_reads_storage_errors(
    emulator: EmulatorServer, client: Client, addresses: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", emulator.proxy)
    with BlobClient.from_blob_url(addresses["blob"], connection_verify=client.bundle, retry_total=0) as blob:
        for status, code in ((503, "ServerBusy"), (500, "InternalError"), (403, "AuthorizationFailure")):
            emulator.fault("status", operation="Blob_Any", status=status)
            with pytest.raises(HttpResponseError) as raised:
                blob.download_blob()
            assert getattr(raised.value, "error_code", None) == code


@pytest.mark.parametrize("skew", [-86400, 86400])
def test_signatures_hold_by_the_services_clock(emulator: EmulatorServer, client: Client, skew: int) -> None:
    try:
        emulator.control("PUT", "/clock", {"skew_seconds": skew})
        with Client(emulator) as skewed:
            run = skewed.run("0")
            skewed.put_artifact(run, "ü #1.txt", b"skewed")
            folder = f"{skewed.history}/experiments/Default/runs/{run}/artifacts"
            address = skewed.get(f"{folder}/contentinfo", params={"path": "ü #1.txt"}).json()["contentUri"]
            assert skewed.blob("GET", address).content == b"skewed"
            assert skewed.blob("GET", address.replace("sp=r", "sp=d")).status_code == 403
            emulator.control("PUT", "/clock", {"skew_seconds": skew + 2 * 86400})
            late = skewed.blob("GET", address)
            assert (late.status_code, b"Signature not valid in the specified time frame" in late.content) == (403, True)
    finally:
        emulator.control("PUT", "/clock", {"skew_seconds": 0})


def test_requests_are_told_and_counted(emulator: EmulatorServer, client: Client, addresses: dict[str, str]) -> None:
    emulator.forget_exchanges(bodies=True)
    emulator.fault("reset-before", operation="Runs_Get", host="*.azureml.ms", path="/mlflow/*")
    with pytest.raises(requests.exceptions.ConnectionError):
        client.get(addresses["mlflow"])
    client.blob("GET", addresses["blob"])
    client.post(f"{client.history}/rundata", json={"runId": "none"})
    client.get(f"{client.host}/nothing")
    emulator.control("PUT", "/exchanges", {"bodies": False})
    told = emulator.exchanges()
    assert [(one["operation"], one["method"], one["status"]) for one in told] == [
        ("Runs_Get", "GET", 499),
        ("Blob_Any", "GET", 200),
        ("Runs_GetRunData", "POST", 404),
        ("", "GET", 501),
    ]
    assert (told[2]["sent"], told[2]["answered"]["error"]["code"]) == ({"runId": "none"}, "UserError")
    emulator.forget_exchanges()
    assert emulator.exchanges() == []
