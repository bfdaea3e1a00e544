"""A run is repeated from what it left in the tracking store, on a machine that has nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from mlflow_azure_backend.console import Console
from mlflow_azure_backend.environment.python_lock import current_lock, differences
from mlflow_azure_backend.environment.resolving import recorded_lock
from mlflow_azure_backend.environment.spec import EnvironmentSpec
from mlflow_azure_backend.errors import EnvironmentUnavailable, ParameterError, UnknownRun
from mlflow_azure_backend.rerun import Changes, rerun

Write = Callable[[Mapping[str, str]], Path]
PROJECT = {
    "MLproject": """name: repeated
entry_points:
  main:
    parameters:
      table: {type: path, default: data/table.csv}
      other: {type: path, default: data/table.csv}
      word: {type: string, default: none}
    command: "cat {table} {other}; echo {word}"
""",
    "data/table.csv": "from the snapshot\n",
}


def launch(folder: Path, **options: object) -> str:
    """Run a project with our backend; returns the run's id."""
    submitted = mlflow.projects.run(str(folder), backend="azureml", experiment_name="contract", **options)
    return str(submitted.run_id)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> Callable[[], Path]:
    """Go to another machine: an empty folder and an empty journal, the same tracking store."""

    def go() -> Path:
        empty = tmp_path / "an empty folder"
        empty.mkdir()
        monkeypatch.chdir(empty)
        monkeypatch.setenv("MLFLOW_AZURE_HOME", str(tmp_path / "other home"))
        monkeypatch.setenv("MLFLOW_AZURE_CACHE", str(tmp_path / "other cache"))
        return empty

    return go


def repeat(run_id: str, **parameters: str) -> tuple[Run, str]:
    """Repeat a run; returns the new one and its log."""
    submitted = rerun(run_id, Changes(parameters), Console())
    assert submitted.wait()
    return mlflow.get_run(submitted.run_id), "".join(submitted.logs())


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_a_run_is_repeated_where_nothing_of_it_is_left(
    write_project: Write, elsewhere: Callable[[], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_project(PROJECT)
    old = launch(folder, parameters={"word": "it's päth; $HOME"})
    folder.rename(folder.parent / "gone")
    empty = elsewhere()
    new, log = repeat(old)
    assert log == "from the snapshot\nfrom the snapshot\nit's päth; $HOME\n"
    assert new.data.tags["mlflow_azure.rerun_of"] == old
    assert new.data.params == mlflow.get_run(old).data.params
    assert new.info.experiment_id == mlflow.get_run(old).info.experiment_id
    assert new.data.tags["mlflow_azure.snapshot"] == mlflow.get_run(old).data.tags["mlflow_azure.snapshot"]
    assert not list(empty.iterdir())
    said = capfd.readouterr().err
    assert f"repeats run {old[:8]}" in said
    assert "Downloading" not in said


def test_a_repetition_is_repeated_with_another_parameter(write_project: Write, elsewhere: Callable[[], Path]) -> None:
    first = launch(write_project(PROJECT))
    elsewhere()
    second, _ = repeat(first, word="second")
    third, log = repeat(second.info.run_id)
    assert log.endswith("second\n")
    assert third.data.tags["mlflow_azure.rerun_of"] == second.info.run_id


def test_the_archive_may_be_kept_by_an_earlier_run(write_project: Write, elsewhere: Callable[[], Path]) -> None:
    folder = write_project(PROJECT)
    keeper, run_id = launch(folder), launch(folder)
    assert mlflow.get_run(run_id).data.tags["mlflow_azure.archived_by"] == keeper
    elsewhere()
    assert repeat(run_id)[1].startswith("from the snapshot\n")


def test_files_that_git_tracks_against_an_ignore_file_are_repeated(
    write_project: Write, elsewhere: Callable[[], Path]
) -> None:
    folder = write_project({**PROJECT, ".gitignore": "data/\n*.log\n", "kept [1]!.log": "x"})
    git(folder, "init")
    git(folder, "add", "--force", ".")
    git(folder, "commit", "-m", "all")
    run_id = launch(folder)
    elsewhere()
    assert repeat(run_id)[1].startswith("from the snapshot\n")


def test_a_commit_that_nobody_else_has_is_archived(write_project: Write, tmp_path: Path, store: str) -> None:
    folder = write_project(PROJECT)
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "all")
    git(folder, "remote", "add", "origin", "https://127.0.0.1:9/nobody/has.git")
    archives = [item.path for item in mlflow.MlflowClient().list_artifacts(launch(folder), "snapshot")]
    assert "snapshot/snapshot.tar.zst" in archives


def test_a_file_of_the_other_machine_has_to_be_given(
    write_project: Write, elsewhere: Callable[[], Path], tmp_path: Path
) -> None:
    table = tmp_path / "outside.csv"
    table.write_text("from outside\n")
    run_id = launch(write_project(PROJECT), parameters={"table": str(table)})
    there = elsewhere()
    assert repeat(run_id)[1].startswith("from outside\n")
    table.unlink()
    with pytest.raises(ParameterError, match=r"'table' was .*outside.csv, which is not here; add -P table=VALUE"):
        rerun(run_id, Changes({}), Console())
    (there / "mine.csv").write_text("mine\n")
    assert repeat(run_id, table="mine.csv")[1].startswith("mine\nfrom the snapshot\n")


def test_what_cannot_be_repeated_is_said_in_one_line(store: str) -> None:
    with pytest.raises(UnknownRun, match=r"there is no run '0123'"):
        rerun("0123", Changes({}), Console())
    client = mlflow.MlflowClient()
    foreign = client.create_run(client.get_experiment_by_name("contract").experiment_id)
    with pytest.raises(UnknownRun, match="left nothing that it could be repeated from"):
        rerun(foreign.info.run_id, Changes({}), Console())


def test_an_order_of_another_version_is_refused(write_project: Write, tmp_path: Path, store: str) -> None:
    run_id = launch(write_project(PROJECT))
    order = tmp_path / "order.json"
    order.write_text(json.dumps({"version": 99}))
    mlflow.MlflowClient().log_artifact(run_id, str(order), "snapshot")
    with pytest.raises(UnknownRun, match="another version"):
        rerun(run_id, Changes({}), Console())


def test_an_interpreter_that_is_not_as_it_was_is_described_in_one_line() -> None:
    here = current_lock()
    assert differences(here.text, here) is None
    pinned = here.packages[0]
    then = here.text.replace(f"# python: {here.python_version} ", "# python: 3.9.1 ").replace(pinned.line(), "")
    assert differences(then, here) == (
        f"the current interpreter is not as it was: python {here.python_version} (was 3.9.1), "
        f"{pinned.name} {pinned.version} (was missing)"
    )


def test_a_lock_is_read_back_as_it_was_or_refused(tmp_path: Path) -> None:
    head, spec = current_lock().text.split("\n")[:3], EnvironmentSpec("python", tmp_path)
    text = "\n".join([*head, "six==1.16.0 \\", f"    --hash=sha256:{'0' * 64}", ""])
    lock = recorded_lock("requirements.txt", text, spec)
    assert (lock.text, lock.kind, lock.version_of("six")) == (text, "python", "1.16.0")
    with pytest.raises(EnvironmentUnavailable, match="is for plan9-mips, and this is"):
        recorded_lock("requirements.txt", text.replace(head[2], "# platform: plan9-mips"), spec)
    with pytest.raises(EnvironmentUnavailable, match="no lock"):
        recorded_lock("requirements.txt", "six==1.16.0\n", spec)
