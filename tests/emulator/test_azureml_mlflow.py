"""Microsoft's MLflow plugin, unmodified, in an environment of its own with the MLflow that it pins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from uv import find_uv_bin

from mlflow_azure_backend.emulator import EmulatorServer
from tests.emulator.test_distributed_jobs import run
from tests.emulator.test_jobs import Submitter

pytestmark = pytest.mark.package_index

PROGRAM = Path(__file__).with_name("azureml_mlflow_client.py")
UV = find_uv_bin()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has azureml-mlflow, and nothing of ours."""
    folder = tmp_path_factory.mktemp("azureml-mlflow") / "venv"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    subprocess.run([UV, "pip", "install", "--quiet", "--python", folder, "azureml-mlflow"], check=True)
    return folder / "bin" / "python"


def program(python: Path, emulator: EmulatorServer, folder: Path, *arguments: str, **variables: str) -> Any:
    """What the program printed last, as JSON."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHON", "VIRTUAL_"))
    }
    environment = {**emulator.environment(inherited), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", **variables}
    argv = [str(one) for one in (python, "-W", "ignore", PROGRAM, folder, *arguments)]
    done = subprocess.run(argv, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def told(python: Path, emulator: EmulatorServer, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What the program saw; it runs once for all tests."""
    seen: Mapping[str, Any] = program(python, emulator, tmp_path_factory.mktemp("client"), "all")
    return seen


def test_runs_are_tracked(told: Mapping[str, Any]) -> None:
    read = told["read"]
    assert read["status"] == "FINISHED"
    assert read["params"] == {"alpha": "0.3", "quoted": 'it\'s "so"\nünd ☃', "many": "p"}
    assert read["tags"] == {"colour": "blue", "many": "t"}
    assert (read["metrics"], read["history"]) == ({"loss": 1 / 249}, 250)
    assert read["found"] == [told["run_id"]]
    assert told["late"] == {"late": 3.0}


def test_artifacts_go_up_and_come_back(told: Mapping[str, Any]) -> None:
    read = told["read"]
    assert read["root"] == ["d.json", "dir/", "plain.txt"]
    assert read["dir"] == ["dir/a folder/", "dir/plain.txt"]
    assert read["downloaded"] == {"a folder/ü #1.txt": "nested", "plain.txt": "plain"}
    assert "File with path none.txt was not found" in read["missing"]
    assert f"/runs/{told['run_id']}/artifacts" in read["artifact_uri"]


def test_logged_models_fail_in_the_words_that_users_report(told: Mapping[str, Any]) -> None:
    # azure-sdk-for-python#44896
    words = "API request to endpoint /api/2.0/mlflow/logged-models/search failed with error code 404 != 200. Response body: ''"
    assert words in told["read"]["logged_models"]


def test_models_are_registered(told: Mapping[str, Any]) -> None:
    registered = told["registered"]
    from_run, uploaded = registered["sources"]
    assert from_run == registered["uri"] == f"{told['read']['artifact_uri']}/model"
    assert uploaded.startswith("azureml://artifacts/LocalUpload/")
    assert (registered["stage"], registered["production"], registered["found"]) == ("Production", ["1"], ["1", "2"])
    assert registered["tags"] == {"checked": "yes"}
    assert registered["files"] == [["MLmodel", "registered_model_meta"]] * 2
    assert "does not rename" in registered["renamed"]


def test_a_jobs_code_goes_on_with_the_jobs_run_by_the_jobs_token(
    python: Path, emulator: EmulatorServer, tmp_path: Path
) -> None:
    with Submitter(emulator) as client:
        command = f"'{python}' -W ignore '{PROGRAM}' '{tmp_path}' resume"
        logs = run(client, "resuming", command=command, environmentId=client.environment())
        token = client.get(f"{client.history}/experimentids/0/runs/resuming/token").json()
    seen = json.loads(logs["user_logs/std_log.txt"].splitlines()[-1])
    assert seen == {"run_id": "resuming", "metrics": {"resumed": 1.0}, "artifact": "from inside"}
    assert set(token) == {"token", "expiryTimeUtc"}


def test_what_it_wrote_we_read(
    told: Mapping[str, Any], emulator: EmulatorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    ours = MlflowClient(emulator.tracking_uri)
    run = ours.get_run(told["run_id"])
    assert run.data.params == told["read"]["params"]
    assert len(ours.get_metric_history(told["run_id"], "loss")) == told["read"]["history"]
    assert {"d.json", "dir", "plain.txt"} <= {one.path for one in ours.list_artifacts(told["run_id"])}
    down = Path(mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/dir", dst_path=str(tmp_path)))
    read = {one.relative_to(down).as_posix(): one.read_text() for one in down.rglob("*") if one.is_file()}
    assert read == told["read"]["downloaded"]
    for version, source in zip(("1", "2"), told["registered"]["sources"], strict=True):
        assert ours.get_model_version("a-model", version).source == source
        folder = tmp_path / version
        folder.mkdir()
        files = Path(
            mlflow.artifacts.download_artifacts(source, dst_path=str(folder), tracking_uri=emulator.tracking_uri)
        )
        assert (files / "MLmodel").read_text() == "flavors: {}\n"


def test_what_we_wrote_it_reads(
    python: Path, emulator: EmulatorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    ours = MlflowClient(emulator.tracking_uri)
    run = ours.create_run(ours.create_experiment("an experiment of ours")).info.run_id
    ours.log_param(run, "quoted", 'it\'s "so"\nünd ☃')
    ours.log_batch(run, [Metric("loss", 1 / step, step, step) for step in range(1, 300)])
    files = {"a folder/ü #1.txt": "nested", "plain.txt": "plain", "100%.txt": "percent"}
    for name, text in files.items():
        (tmp_path / "up" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / name).write_text(text)
    ours.log_artifacts(run, str(tmp_path / "up"), "dir")
    ours.log_dict(run, {"x": 1}, "d.json")
    (tmp_path / "it").mkdir()
    assert program(python, emulator, tmp_path / "it", "look", run) == {
        "params": {"quoted": 'it\'s "so"\nünd ☃'},
        "metrics": {"loss": 1 / 299},
        "history": 299,
        "root": ["d.json", "dir/"],
        "downloaded": files,
    }
