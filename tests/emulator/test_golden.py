"""azure-ai-ml, unmodified, submits, submits again, follows, cancels and downloads; what went over the wire is written down.

MLFLOW_AZURE_WRITE_GOLDEN=1 pytest tests/emulator/test_golden.py    # after a change that was meant; read the diff
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest
from azure.identity import ClientSecretCredential

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.emulator.routing import Known
from mlflow_azure_backend.emulator.services import ALL
from tests.emulator.golden import FOLDER, exchanges, requests_of
from tests.emulator.test_jobs import Submitter

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

pytestmark = pytest.mark.filterwarnings("ignore")  # of azure-ai-ml's own about itself
CLIENT = f"azure-ai-ml {metadata.version('azure-ai-ml')}"
FILE = FOLDER / "azure_ai_ml.json"
WORKSPACE: dict[str, Any] = {
    "subscription_id": "11111111-1111-4111-8111-111111111111",
    "tenant_id": "22222222-2222-4222-8222-222222222222",
    "client_id": "33333333-3333-4333-8333-333333333333",
    "workspace_id": "44444444-4444-4444-8444-444444444444",
}
PROGRAM = "import os; os.mkdir('outputs'); open('outputs/model', 'w').write('weights'); print('said')"


@pytest.fixture(scope="module")
def own() -> Iterator[EmulatorServer]:
    with EmulatorServer(outside=False, **WORKSPACE) as server:
        yield server


@pytest.fixture(scope="module")
def ml_client(own: EmulatorServer) -> Iterator[MLClient]:
    from azure.ai.ml import MLClient

    settings = own.settings
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(own.folder)  # the client sends what git says of the folder it is in
        for name, value in own.environment().items():
            patch.setenv(name, value)
        with ClientSecretCredential(
            settings["tenant_id"], settings["client_id"], settings["client_secret"]
        ) as credential:
            yield MLClient.from_config(credential, path=str(own.config_file))


@pytest.fixture(scope="module")
def phases(own: EmulatorServer, ml_client: MLClient, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What went over the wire, by what the client was asked to do."""
    from azure.ai.ml import command
    from azure.ai.ml.entities import Environment

    folder = tmp_path_factory.mktemp("golden")
    code = folder / "code"
    code.mkdir()
    (code / "train.py").write_text(PROGRAM)
    (folder / "conda.yaml").write_text("dependencies: [python]")
    environment = Environment(image="ubuntu", conda_file=str(folder / "conda.yaml"))
    common: dict[str, Any] = {"environment": environment, "experiment_name": "golden-exchanges"}
    wanted = command(name="golden", code=str(code), command="python train.py", tags={"a": "b"}, **common)
    found: dict[str, Any] = {}

    def phase(name: str) -> None:
        found[name] = exchanges(own)
        own.forget_exchanges(bodies=True)

    own.forget_exchanges(bodies=True)
    ml_client.workspaces.get()
    phase("workspace")
    ml_client.jobs.create_or_update(wanted)
    phase("submit")
    with Submitter(own) as client:
        client.wait("golden", "Completed")
    own.forget_exchanges(bodies=True)
    ml_client.jobs.create_or_update(wanted)
    phase("submit again")
    ml_client.jobs.get("golden")
    ml_client.jobs.stream("golden")
    phase("follow")
    ml_client.jobs.download("golden", download_path=str(folder / "got"))
    assert (folder / "got" / "artifacts" / "outputs" / "model").read_text() == "weights"
    phase("download")
    ml_client.jobs.create_or_update(command(name="endless", command="sleep 1000", **common))
    with Submitter(own) as client:
        client.wait("endless", "Running")
    own.forget_exchanges(bodies=True)
    ml_client.jobs.begin_cancel("endless").result()
    phase("cancel")
    ml_client.jobs.archive("golden")
    phase("archive")
    with Submitter(own) as client:
        assert client.job("golden")["properties"]["isArchived"] is True
    return found


def test_the_wire_is_as_written_down(phases: dict[str, Any]) -> None:
    """Of this client word by word; of another version, that it asks for the same operations."""
    if os.environ.get("MLFLOW_AZURE_WRITE_GOLDEN") == "1":
        FOLDER.mkdir(exist_ok=True)
        FILE.write_text(json.dumps({"client": CLIENT, "phases": phases}, indent=1, ensure_ascii=False) + "\n", "utf-8")
    golden = json.loads(FILE.read_text("utf-8"))
    assert list(phases) == list(golden["phases"])
    for phase, told in golden["phases"].items():
        assert requests_of(phases[phase]) == requests_of(told), (phase, CLIENT, golden["client"])
        if golden["client"] == CLIENT:
            assert _sorted(phases[phase]) == _sorted(told), phase


def _sorted(phase: list[dict[str, Any]]) -> list[str]:
    """Files go up side by side, in no order."""
    return sorted(json.dumps(one, sort_keys=True) for one in phase)


def test_nothing_goes_up_twice(phases: dict[str, Any]) -> None:
    assert [one["method"] for one in phases["submit"] if one["operation"] == "Blob_Any"].count("PUT") >= 1
    assert "Blob_Any" not in {one["operation"] for one in phases["submit again"]}
    assert {one["status"] for one in phases["submit again"]} <= {200}


def test_no_secret_is_written_down(own: EmulatorServer) -> None:
    text = FILE.read_text("utf-8")
    for name in ("client_secret", "storage_key", "storage_account", "subscription_id", "tenant_id", "client_id"):
        assert own.settings[name] not in text, name
    assert "sig=" not in text
    assert "eyJ" not in text  # how a token starts


def test_nothing_on_the_way_of_a_job_is_inferred_without_its_risk(phases: dict[str, Any]) -> None:
    operations = {operation.name: operation for service in ALL for operation in service.operations}
    asked = {one["operation"] for told in phases.values() for one in told}
    unsaid = [name for name in sorted(asked) if operations[name].known is Known.INFERRED and not operations[name].risk]
    assert unsaid == []
    for name in ("Jobs_CreateOrUpdate", "Jobs_Get", "Jobs_Cancel", "Runs_GetDetails", "Compute_CreateOrUpdate"):
        assert operations[name].risk
