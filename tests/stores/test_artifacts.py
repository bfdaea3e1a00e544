"""A run's artifacts in a workspace, by MLflow's own calls."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_azure_backend.emulator import EmulatorServer

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


def test_artifacts_are_not_deleted(client: MlflowClient, run: str) -> None:
    repository = mlflow.store.artifact.artifact_repository_registry.get_artifact_repository(uri_of(client, run))
    with pytest.raises(MlflowException, match="deletes no artifacts"):
        repository.delete_artifacts("x")


@pytest.mark.parametrize(
    "uri", ["azureml://x", "azureml://artifacts/only", "azureml://subscriptions/1/datastores/d/paths/x"]
)
def test_a_uri_that_is_none_is_said(workspace: EmulatorServer, uri: str) -> None:
    with pytest.raises(MlflowException, match="is no artifact URI of a workspace; there are azureml://HOST"):
        mlflow.artifacts.list_artifacts(uri)


def test_a_folder_without_a_run(client: MlflowClient, workspace: EmulatorServer, tmp_path: Path) -> None:
    uri = "azureml://artifacts/LocalUpload/some-container/model"
    repository = mlflow.store.artifact.artifact_repository_registry.get_artifact_repository(uri)
    repository.log_artifacts(str(write(tmp_path / "up", FILES)))
    assert contents(mlflow.artifacts.download_artifacts(artifact_uri=uri)) == FILES
    assert contents(mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/a folder")) == {
        "deep/er/ün\u00ef ☃.txt": b"unicode",
        "with space.txt": b"space",
    }


def test_a_jobs_own_form_of_its_artifacts(client: MlflowClient, run: str) -> None:
    client.log_text(run, "x", "model/MLmodel")
    assert mlflow.artifacts.load_text(f"azureml://jobs/{run}/outputs/artifacts/paths/model/MLmodel") == "x"
