"""What every target owes its users."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run
from mlflow.exceptions import ExecutionException

from mlflow_azure_backend.submitted_run import AzureSubmittedRun, StillRunning

Launch = Callable[..., AzureSubmittedRun]
Artifact = Callable[[str, str], bytes]
OnlyRun = Callable[[], Run]
Write = Callable[[Mapping[str, str]], Path]


def shell(command: str, *parameters: str) -> str:
    """An MLproject whose ``main`` is one command."""
    block = "".join(f"\n      {parameter}" for parameter in parameters)
    header = f"\n    parameters:{block}" if parameters else ""
    return f"name: contract\nentry_points:\n  main:{header}\n    command: {json.dumps(command)}\n"


def test_a_job_that_ends_well_is_finished(write_project: Write, launch: Launch, artifact: Artifact) -> None:
    folder = write_project({"MLproject": shell("echo out; echo err >&2; printf 'no newline'")})
    submitted = launch(folder)
    run = mlflow.get_run(submitted.run_id)
    assert run.info.status == submitted.get_status() == "FINISHED"
    assert submitted.exit_code == 0
    assert "mlflow_azure.reason" not in run.data.tags  # a success has nothing to explain
    assert artifact(submitted.run_id, "logs/std_log.txt") == b"out\nerr\nno newline"
    assert "".join(submitted.logs()) == "out\nerr\nno newline"


def test_a_job_that_fails_says_why(
    write_project: Write, launch: Launch, only_run: OnlyRun, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_project({"MLproject": shell("python train.py"), "train.py": "import a_package_that_nobody_has\n"})
    with pytest.raises(ExecutionException):
        launch(folder)
    run = only_run()
    assert run.info.status == "FAILED"
    assert run.data.tags["mlflow_azure.exit_code"] == "1"
    assert "a_package_that_nobody_has" in run.data.tags["mlflow_azure.cause"]
    assert run.data.tags["mlflow_azure.at"].startswith("train.py:1")
    printed = capfd.readouterr().err
    assert "✗ failed" in printed
    assert "exit 1" in printed
    assert "fix " in printed


def test_the_exit_code_beats_what_the_program_said(write_project: Write, launch: Launch, only_run: OnlyRun) -> None:
    script = "import mlflow, sys\nwith mlflow.start_run():\n    pass\nsys.exit(7)\n"
    folder = write_project({"MLproject": shell("python train.py"), "train.py": script})
    with pytest.raises(ExecutionException):
        launch(folder)
    assert only_run().info.status == "FAILED"
    assert only_run().data.tags["mlflow_azure.exit_code"] == "7"


@pytest.mark.not_on("cluster", reason="the workspace itself says how a run of a job ended")
def test_a_program_that_says_failed_and_exits_with_0_stays_failed(
    write_project: Write, launch: Launch, only_run: OnlyRun, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "import mlflow\nmlflow.start_run()\nmlflow.end_run('FAILED')\n"
    folder = write_project({"MLproject": shell("python train.py"), "train.py": script})
    with pytest.raises(ExecutionException):
        launch(folder)
    assert only_run().info.status == "FAILED"
    assert "the program said FAILED" in capfd.readouterr().err


def test_the_program_joins_the_run(write_project: Write, launch: Launch) -> None:
    script = (
        "import mlflow\nwith mlflow.start_run() as run:\n    mlflow.log_metric('m', 2.0)\n    print(run.info.run_id)\n"
    )
    folder = write_project({"MLproject": shell("python train.py"), "train.py": script})
    submitted = launch(folder)
    run = mlflow.get_run(submitted.run_id)
    assert run.data.metrics == {"m": 2.0}
    assert submitted.run_id in "".join(submitted.logs())
    assert run.info.status == "FINISHED"


HOSTILE = {
    "quotes": 'it\'s "quoted"',
    "shell": "$(touch /tmp/pwned); `id` && rm -rf * | cat",
    "lines": "one\ntwo",
    "unicode": "päth 数",
    "empty": "",
    "dashes": "--help",
    "json": '{"a": [1, 2]}',
    "braces": "{x} %s",
}


def test_parameters_arrive_verbatim_and_are_logged_as_given(write_project: Write, launch: Launch) -> None:
    names = sorted(HOSTILE)
    declared = [f"{name}: {{type: string}}" for name in names]
    folder = write_project(
        {
            "MLproject": shell("python show.py " + " ".join(f"{{{name}}}" for name in names), *declared),
            "show.py": "import json, sys\nprint(json.dumps(sys.argv[1:]))\n",
        }
    )
    submitted = launch(folder, parameters=HOSTILE)
    assert json.loads("".join(submitted.logs())) == [HOSTILE[name] for name in names]
    assert mlflow.get_run(submitted.run_id).data.params == HOSTILE


def test_the_run_says_what_it_was_made_from(write_project: Write, launch: Launch, artifact: Artifact) -> None:
    folder = write_project(
        {
            "MLproject": shell("mkdir -p outputs && echo 1 > outputs/new.txt"),
            ".gitignore": "data/\n",
            "data/big.csv": "1\n",
            "outputs/old.txt": "0\n",
        }
    )
    submitted = launch(folder)
    run = mlflow.get_run(submitted.run_id)
    manifest = json.loads(artifact(submitted.run_id, "snapshot/manifest.json"))
    assert [file["path"] for file in manifest["files"]] == [".gitignore", "MLproject"]
    assert {item["path"]: item["rule"] for item in manifest["left_out"]}["data/"] == ".gitignore:1"
    assert run.data.tags["mlflow_azure.snapshot"] == manifest["content_hash"]
    assert artifact(submitted.run_id, "snapshot/snapshot.tar.zst")
    (lock,) = mlflow.MlflowClient().list_artifacts(submitted.run_id, "environment")
    assert b" lock 1\n" in artifact(submitted.run_id, lock.path)
    assert artifact(submitted.run_id, "outputs/new.txt") == b"1\n"
    client = mlflow.MlflowClient()
    assert [item.path for item in client.list_artifacts(submitted.run_id, "outputs")] == ["outputs/new.txt"]
    assert run.data.tags["mlflow.source.type"] == "PROJECT"
    assert run.data.tags["mlflow.project.entryPoint"] == "main"
    assert run.data.tags["mlflow.project.backend"] == "azureml"


@pytest.mark.not_on("cluster", reason="everybody who sees a job in a workspace sees its variables: refused")
def test_a_secret_reaches_the_job_and_nothing_else(
    write_project: Write, launch: Launch, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "canary-5f2e")
    folder = write_project({"MLproject": shell("test ${{#TOKEN}} = 11")})
    submitted = launch(folder, {"secrets": {"TOKEN": "env:CANARY"}})
    assert submitted.get_status() == "FINISHED"
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if b"canary-5f2e" in path.read_bytes()]
    assert not [path for path in kept if path.stat().st_mode & 0o077]


def test_background_jobs_are_written_down_without_anybody_waiting(write_project: Write, launch: Launch) -> None:
    folder = write_project({"MLproject": shell("echo hello")})
    submitted = launch(folder, synchronous=False)
    assert submitted.wait() is True
    assert mlflow.get_run(submitted.run_id).info.status == "FINISHED"


def test_cancel_has_written_killed_when_it_returns(write_project: Write, launch: Launch) -> None:
    folder = write_project({"MLproject": shell("echo started; sleep 600")})
    submitted = launch(folder, synchronous=False)
    started = next(submitted.logs(follow=True))
    assert started == "started\n"
    submitted.cancel()
    assert mlflow.get_run(submitted.run_id).info.status == submitted.get_status() == "KILLED"
    submitted.cancel()
    assert submitted.wait() is False


def test_wait_in_two_threads_ends_once(write_project: Write, launch: Launch) -> None:
    folder = write_project({"MLproject": shell("read line < pipe || true")})
    (folder / "pipe").write_text("x\n")
    submitted = launch(folder, synchronous=False)
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(submitted.wait())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True, True]


@pytest.mark.not_on("cluster", reason="a job there sees copies of our files, and cannot be led by them")
def test_everybody_who_follows_sees_each_line_when_it_is_written(
    write_project: Write, launch: Launch, tmp_path: Path
) -> None:
    """The job goes on only when all of them have seen what it wrote."""
    gates = tmp_path / "gates"
    gates.mkdir()
    loop = "for n in 1 2 3 4 5 6 7 8 9; do echo $n; while [ ! -e {gates}/$n ]; do sleep 0.01; done; done; echo end"
    folder = write_project({"MLproject": shell(loop, "gates: path")})
    submitted = launch(folder, parameters={"gates": str(gates)}, synchronous=False)
    seen: queue.SimpleQueue[str] = queue.SimpleQueue()

    def follow() -> None:
        for text in submitted.logs(follow=True):
            seen.put(text)

    threads = [threading.Thread(target=follow, daemon=True) for _ in range(3)]
    threads += [threading.Thread(target=submitted.wait, daemon=True)]
    for thread in threads:
        thread.start()
    for number in range(1, 10):
        assert [seen.get(timeout=60) for _ in range(3)] == [f"{number}\n"] * 3
        (gates / str(number)).touch()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert submitted.wait()
    assert [seen.get(timeout=0) for _ in range(3)] == ["end\n"] * 3


def test_attach_finds_a_run_by_the_beginning_of_its_id(
    write_project: Write, launch: Launch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    folder = write_project({"MLproject": shell("printf 'a\\0\\377b\\n'; exit 3")})
    submitted = launch(folder, synchronous=False)
    submitted.wait()
    capfdbinary.readouterr()
    attached = AzureSubmittedRun.attach(submitted.run_id[:8])
    assert attached.wait() is False
    assert attached.exit_code == 3
    assert capfdbinary.readouterr().out == b"a\x00\xffb\n"


def test_detach_refuses_to_wait_and_the_job_goes_on(write_project: Write, launch: Launch, only_run: OnlyRun) -> None:
    folder = write_project({"MLproject": shell("echo done")})
    with pytest.raises(StillRunning, match="mlflow-azure attach"):
        launch(folder, {"detach": True})
    assert AzureSubmittedRun.attach(only_run().info.run_id, stream=False).wait() is True
    assert only_run().info.status == "FINISHED"


def test_one_submission_id_is_one_job(write_project: Write, launch: Launch, only_run: OnlyRun) -> None:
    folder = write_project({"MLproject": shell("echo once")})
    first = launch(folder, {"submission_id": "mine"}, synchronous=False)
    second = launch(folder, {"submission_id": "mine"}, synchronous=False)
    assert first.run_id == second.run_id == only_run().info.run_id
    assert first.wait()
    assert second.wait()


def test_a_timeout_ends_the_job(write_project: Write, launch: Launch, only_run: OnlyRun) -> None:
    folder = write_project({"MLproject": shell("sleep 600")})
    with pytest.raises(ExecutionException):
        launch(folder, {"timeout": 0.2})
    assert only_run().info.status == "FAILED"
    assert only_run().data.tags["mlflow_azure.reason"] == "timeout"


@pytest.fixture
def repository(write_project: Write) -> Path:
    """A git repository with two commits and a project in a folder of it; the tag ``first`` names the first."""
    project = shell("cat word.txt")
    folder = write_project({"README": "", "deep/er/MLproject": project, "deep/er/word.txt": "first"})
    for number, word in enumerate(["first", "second"]):
        (folder / "deep/er/word.txt").write_text(word)
        commands = [["init", "-q"], ["add", "."], ["commit", "-q", "-m", word], ["tag", word]][bool(number) :]
        for command in commands:
            identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
            subprocess.run(["git", *identity, *command], cwd=folder, check=True)
    return folder


def test_a_git_project_runs_from_its_commit_and_leaves_no_checkout(
    repository: Path, launch: Launch, home: Path
) -> None:
    submitted = launch(f"{repository.as_uri()}#deep/er", version="first")
    assert "".join(submitted.logs()) == "first"
    run = mlflow.get_run(submitted.run_id)
    first = subprocess.run(["git", "rev-parse", "first"], cwd=repository, check=True, capture_output=True, text=True)
    assert run.data.tags["mlflow.source.git.commit"] == first.stdout.strip()
    assert not list(home.rglob("word.txt"))
    assert (repository / "deep/er/word.txt").read_text() == "second"


def test_a_clean_commit_that_others_can_fetch_is_not_stored_again(repository: Path, launch: Launch) -> None:
    def stored() -> bool:
        submitted = launch(repository / "deep" / "er")
        names = [item.path for item in mlflow.MlflowClient().list_artifacts(submitted.run_id, "snapshot")]
        assert "snapshot/manifest.json" in names
        return "snapshot/snapshot.tar.zst" in names

    origin = ["git", "remote", "add", "origin", "https://example.com/x.git"]
    subprocess.run(origin, cwd=repository, check=True)
    subprocess.run(["git", "update-ref", "refs/remotes/origin/main", "HEAD"], cwd=repository, check=True)
    assert not stored()
    (repository / "deep/er/word.txt").write_text("changed")
    assert stored()


def test_a_snapshot_is_stored_once_in_an_experiment(write_project: Write, launch: Launch) -> None:
    folder = write_project({"MLproject": shell("true")})
    first, second = launch(folder), launch(folder)
    stored = [
        [item.path for item in mlflow.MlflowClient().list_artifacts(run.run_id, "snapshot")] for run in (first, second)
    ]
    assert "snapshot/snapshot.tar.zst" in stored[0]
    assert "snapshot/snapshot.tar.zst" not in stored[1]
    assert mlflow.get_run(second.run_id).data.tags["mlflow_azure.archived_by"] == first.run_id


def test_a_zip_file_runs(write_project: Write, launch: Launch, tmp_path: Path) -> None:
    folder = write_project({"MLproject": shell("cat word.txt"), "word.txt": "zipped"})
    archive = shutil.make_archive(str(tmp_path / "project"), "zip", folder)
    assert "".join(launch(Path(archive)).logs()) == "zipped"


def test_the_job_can_run_from_its_snapshot(write_project: Write, launch: Launch, home: Path) -> None:
    folder = write_project(
        {
            "MLproject": shell("ls; mkdir outputs; echo 1 > outputs/new.txt; touch left_behind"),
            ".gitignore": "data/\n",
            "data/big.csv": "1",
        }
    )
    submitted = launch(folder, {"workdir": "snapshot"})
    assert "".join(submitted.logs()).replace("logs\n", "") == "MLproject\n"  # Azure ML's jobs have ./logs
    assert [item.path for item in mlflow.MlflowClient().list_artifacts(submitted.run_id, "outputs")] == [
        "outputs/new.txt"
    ]
    assert not (folder / "left_behind").exists()
    assert not list(home.rglob("left_behind"))


def test_a_path_is_absolute_and_a_remote_one_is_fetched(
    write_project: Write, launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_project({"MLproject": shell("cat {near} {far}; echo {near}", "near: path", "far: path")})
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "it's near.txt").write_text("near ")
    with mlflow.start_run() as earlier:
        mlflow.log_text("far ", "far.txt")
    monkeypatch.chdir(tmp_path / "client")
    remote = f"runs:/{earlier.info.run_id}/far.txt"
    submitted = launch(
        folder, parameters={"near": "it's near.txt", "far": remote}, storage_dir=str(tmp_path / "storage")
    )
    place = Path("".join(submitted.logs()).removeprefix("near far ").removesuffix("\n"))
    assert place.is_absolute()
    assert place.name == "it's near.txt"
    assert mlflow.get_run(submitted.run_id).data.params == {"near": "it's near.txt", "far": remote}
    assert list((tmp_path / "storage").rglob("far.txt"))


def test_nested_in_an_active_run(write_project: Write, launch: Launch) -> None:
    folder = write_project({"MLproject": shell("true")})
    with mlflow.start_run() as parent:
        submitted = launch(folder)
    assert mlflow.get_run(submitted.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id
