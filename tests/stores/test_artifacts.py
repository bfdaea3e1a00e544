"""A run's artifacts in a workspace, by MLflow's own calls."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.cli import commands

from mlflow_azure_backend import artifacts
from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.runtime import doors
from tests.emulator.test_data_plane import Client

FILES = {
    "plain.txt": b"plain",
    "empty": b"",
    "a folder/with space.txt": b"space",
    "a folder/deep/er/ün\u00ef ☃.txt": b"unicode",
    "100%.txt": b"percent",
    "%41%2F.txt": b"looks encoded",
    "a+b&c=d.txt": b"plus",
    "quote's.txt": b"quote",
    "#1?.txt": b"number",
}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents(folder: str | Path) -> dict[str, bytes]:
    folder = Path(folder)
    return {one.relative_to(folder).as_posix(): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def uri_of(client: MlflowClient, run: str) -> str:
    uri: str = client.get_run(run).info.artifact_uri
    return uri


def test_a_folder_comes_back_as_it_went(client: MlflowClient, run: str, tmp_path: Path) -> None:
    client.log_artifacts(run, str(write(tmp_path / "up", FILES)), "some/where")
    assert contents(client.download_artifacts(run, "some/where")) == FILES
    down = tmp_path / "down"
    down.mkdir()
    assert client.download_artifacts(run, "", str(down)) == str(down)
    assert contents(down / "some" / "where") == FILES
    one = client.download_artifacts(run, "some/where/a folder/with space.txt", str(down))
    assert Path(one).read_bytes() == b"space"


def test_a_listing_tells_sizes(client: MlflowClient, run: str, tmp_path: Path) -> None:
    client.log_artifacts(run, str(write(tmp_path / "up", FILES)), "dir")
    client.log_text(run, "x", "dir2.txt")
    assert [(one.path, one.is_dir, one.file_size) for one in client.list_artifacts(run)] == [
        ("dir", True, None),
        ("dir2.txt", False, 1),
    ]
    listed = {one.path: one.file_size for one in client.list_artifacts(run, "dir") if not one.is_dir}
    assert listed == {f"dir/{name}": len(content) for name, content in FILES.items() if "/" not in name}
    assert [one.path for one in client.list_artifacts(run, "dir/a folder")] == [
        "dir/a folder/deep",
        "dir/a folder/with space.txt",
    ]
    assert client.list_artifacts(run, "dir2.txt") == []
    assert client.list_artifacts(run, "nothing") == []


def test_what_is_logged_again_is_the_newer(client: MlflowClient, run: str) -> None:
    client.log_text(run, "first, and longer", "a.txt")
    client.log_text(run, "second", "a.txt")
    assert mlflow.artifacts.load_text(f"{uri_of(client, run)}/a.txt") == "second"


def test_what_mlflow_logs_is_loaded(client: MlflowClient, run: str) -> None:
    from matplotlib.figure import Figure

    client.log_dict(run, {"a": [1, "ü"]}, "d.json")
    client.log_figure(run, Figure(), "plots/f.png")
    assert mlflow.artifacts.load_dict(f"runs:/{run}/d.json") == {"a": [1, "ü"]}
    assert mlflow.artifacts.load_image(f"{uri_of(client, run)}/plots/f.png").size
    assert mlflow.artifacts.list_artifacts(run_id=run, artifact_path="plots")[0].file_size > 1000


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a//b", "./a"])
def test_a_path_that_escapes_is_refused(client: MlflowClient, run: str, tmp_path: Path, path: str) -> None:
    file = tmp_path / "file.txt"
    file.write_text("x")
    with pytest.raises(MlflowException, match="Invalid artifact path"):
        client.log_artifact(run, str(file), path)
    with pytest.raises(MlflowException) as raised:
        client.download_artifacts(run, path, str(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_uri_that_escapes_is_refused(client: MlflowClient, run: str, tmp_path: Path) -> None:
    for path in ("..", "../../x", "a/../b", "./a"):
        with pytest.raises(MlflowException, match="leads out of the artifacts"):
            get_artifact_repository(f"{uri_of(client, run)}/{path}")


def test_what_is_no_file_is_left_out_and_said(
    client: MlflowClient, run: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "up", {"file": b"x"})
    (tmp_path / "up" / "link").symlink_to("file")
    (tmp_path / "up" / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "up" / "pipe")
    client.log_artifacts(run, str(tmp_path / "up"))
    assert [one.path for one in client.list_artifacts(run)] == ["file", "link"]
    assert [record.getMessage() for record in caplog.records if "is no file" in record.getMessage()] == [
        f"{tmp_path / 'up' / name} is no file, and is not uploaded" for name in ("broken", "pipe")
    ]


def test_a_link_that_leads_out_is_refused(client: MlflowClient, run: str, tmp_path: Path) -> None:
    client.log_text(run, "x", "folder/x.txt")
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "folder").symlink_to(tmp_path)
    with pytest.raises(MlflowException, match="artifact 'folder' would be written outside of"):
        mlflow.artifacts.download_artifacts(f"{uri_of(client, run)}/folder", dst_path=str(tmp_path / "down"))
    assert not (tmp_path / "x.txt").exists()


def test_an_artifact_that_is_not_there(client: MlflowClient, run: str) -> None:
    client.log_text(run, "x", "folder/x.txt")
    with pytest.raises(MlflowException, match=f"run {run} has no artifact 'none'; it has folder") as raised:
        mlflow.artifacts.download_artifacts(f"{uri_of(client, run)}/none")
    assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_artifacts_are_deleted(client: MlflowClient, run: str, tmp_path: Path) -> None:
    client.log_artifacts(run, str(write(tmp_path / "up", FILES)), "folder")
    client.log_text(run, "x", "folder2.txt")
    repository = get_artifact_repository(uri_of(client, run))
    repository.delete_artifacts("folder")
    repository.delete_artifacts("nothing")
    assert [one.path for one in client.list_artifacts(run)] == ["folder2.txt"]
    repository.delete_artifacts()
    assert client.list_artifacts(run) == []
    client.log_text(run, "again", "folder2.txt")


@pytest.mark.parametrize(
    "uri", ["azureml://x", "azureml://artifacts/only", "azureml://subscriptions/1/datastores/d/paths/x"]
)
def test_a_uri_that_is_none_is_said(workspace: EmulatorServer, uri: str) -> None:
    with pytest.raises(MlflowException, match="is no artifact URI of a workspace; there are azureml://HOST"):
        mlflow.artifacts.list_artifacts(uri)


def test_a_folder_without_a_run(client: MlflowClient, workspace: EmulatorServer, tmp_path: Path) -> None:
    uri = "azureml://artifacts/LocalUpload/some-container/model"
    repository = get_artifact_repository(uri)
    repository.log_artifacts(str(write(tmp_path / "up", FILES)))
    assert contents(mlflow.artifacts.download_artifacts(artifact_uri=uri)) == FILES
    assert contents(mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/a folder")) == {
        "deep/er/ün\u00ef ☃.txt": b"unicode",
        "with space.txt": b"space",
    }


def test_a_jobs_own_form_of_its_artifacts(client: MlflowClient, run: str) -> None:
    client.log_text(run, "x", "model/MLmodel")
    assert mlflow.artifacts.load_text(f"azureml://jobs/{run}/outputs/artifacts/paths/model/MLmodel") == "x"


MODEL = {
    "MLmodel": b"flavors:\n  python_function:\n    loader_module: loader_of_parts\n    code: code\n    data: parts\n",
    "code/loader_of_parts.py": b"""
from pathlib import Path

class Parts:
    def __init__(self, path):
        self.parts = sorted(one.read_bytes() for one in Path(path).rglob("*.bin"))

    def predict(self, model_input):
        return self.parts

_load_pyfunc = Parts
""",
}


def test_a_model_of_many_files_is_loaded(
    client: MlflowClient, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {f"parts/{number % 7}/part {number}.bin": b"%d" % number for number in range(200)}
    client.log_artifacts(run, str(write(tmp_path / "model", {**MODEL, **parts})), "model")
    model = mlflow.pyfunc.load_model(f"runs:/{run}/model")
    assert model.predict([]) == sorted(parts.values())
    said = capsys.readouterr().err
    assert "Uploading artifacts: 100%" in said
    assert "Downloading artifacts: " in said


def test_the_command_line_lists_and_downloads(client: MlflowClient, run: str, tmp_path: Path) -> None:
    client.log_artifacts(run, str(write(tmp_path / "up", FILES)), "dir")
    listed = CliRunner().invoke(commands, ["list", "--run-id", run, "--artifact-path", "dir"])
    assert str({one["path"]: one.get("file_size") for one in json.loads(listed.output)}["dir/plain.txt"]) == "5"
    (tmp_path / "down").mkdir()
    uri = f"{uri_of(client, run)}/dir"
    done = CliRunner().invoke(commands, ["download", "--artifact-uri", uri, "--dst-path", str(tmp_path / "down")])
    assert done.exit_code == 0
    assert contents(tmp_path / "down" / "dir") == FILES


SERVED = """
import sys
from mlflow.server import app, handlers
handlers.initialize_backend_stores(sys.argv[1])
with app.test_client() as browser:
    answer = browser.get("/get-artifact", query_string={"run_id": sys.argv[2], "path": "dir/100%.txt"})
    print(answer.status_code, answer.get_data(as_text=True))
"""


def test_the_user_interface_downloads(client: MlflowClient, run: str, tmp_path: Path) -> None:
    client.log_artifacts(run, str(write(tmp_path / "up", {"100%.txt": b"percent"})), "dir")
    argv = [sys.executable, "-W", "ignore", "-c", SERVED, mlflow.get_tracking_uri(), run]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()[-1] == "200 percent"


def test_a_job_uses_its_own_token(
    client: MlflowClient, run: str, workspace: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = uri_of(client, run)
    with Client(workspace) as azure:
        token = azure.get(f"{azure.history}/{re.search('experiments/[^/]+/runs/[^/]+', uri)[0]}/token").json()["token"]  # type: ignore[index]
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "an experiment")
    for door in (doors.artifact_repository, artifacts.artifact_repository):
        repository = door(uri)
        repository.log_artifact(__file__, "code")
        (listed,) = repository.list_artifacts("code")
        assert listed.file_size == Path(__file__).stat().st_size
