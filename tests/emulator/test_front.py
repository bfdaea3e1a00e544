"""The way of every request: proxy, dispatch, authentication, faults; and the command line around it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.emulator.coverage import table
from mlflow_azure_backend.emulator.services import ALL
from tests.emulator.test_data_plane import Client

COVERAGE = Path(__file__).parents[2] / "docs" / "emulator_coverage.md"
MODULE = (sys.executable, "-m", "mlflow_azure_backend.emulator")


@pytest.fixture
def own() -> Iterator[EmulatorServer]:
    """An emulator of the test's own, to be disturbed."""
    with EmulatorServer(outside=False, sas_lifetime=0) as server:
        yield server


def test_the_coverage_page_is_generated() -> None:
    assert COVERAGE.read_text(encoding="utf-8") == table(ALL), "run: python -m mlflow_azure_backend.emulator coverage"


def test_other_hosts_are_not_reached_in_tests(emulator: EmulatorServer) -> None:
    with pytest.raises(requests.exceptions.ProxyError, match="403"):
        requests.get("https://pypi.org/simple/", proxies={"https": emulator.proxy}, timeout=60)


def test_what_is_not_emulated_is_named(emulator: EmulatorServer) -> None:
    with Client(emulator) as client:
        url = f"https://management.azure.com{client.workspace}/featuresets"
        answer = client.get(url, params={"api-version": "2024-10-01"})
        assert answer.status_code == 501
        assert f"GET {url} is not emulated" in answer.json()["error"]["message"]
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


def test_run_ends_with_the_commands_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    program = "import os, sys; print(os.environ['MLFLOW_TRACKING_URI'].split(':')[0]); sys.exit(7)"
    done = subprocess.run([*MODULE, "run", "--", sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "azureml\n"), done.stderr


def test_wrong_use_is_one_line(emulator: EmulatorServer) -> None:
    for arguments, words in (
        (("run", "--port", str(emulator.port), "--", "true"), "choose another with --port"),
        (("run", "--base-image", "ubuntu", "--", "true"), "--base-image ubuntu: write PATTERN=IMAGE"),
        (("run", "--set", "colour=blue", "--", "true"), "colour: no such setting; there are"),
        (("run", "--", "no-such-program"), "no-such-program: No such file or directory; name a program after --"),
    ):
        done = subprocess.run([*MODULE, *arguments], capture_output=True, text=True)
        assert done.returncode == 1
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
