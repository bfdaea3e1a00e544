"""What only jobs in containers have: limits, users, mounts, variables, and parts that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run
from mlflow.exceptions import ExecutionException

from mlflow_azure_backend.journal import Journal
from mlflow_azure_backend.submitted_run import AzureSubmittedRun
from mlflow_azure_backend.sync import sync
from tests.containers.conftest import Launch, containers_of, docker_says, shell

pytestmark = pytest.mark.docker

Write = Callable[[Mapping[str, str]], Path]
OnlyRun = Callable[[], Run]


@pytest.fixture
def waiting(write_project: Write, launch: Launch) -> AzureSubmittedRun:
    """A job that has begun and does not end by itself."""
    submitted = launch(write_project({"MLproject": shell("echo started; sleep 600")}), synchronous=False)
    assert next(submitted.logs(follow=True)) == "started\n"
    return submitted


def test_a_docker_project_runs_in_its_image_without_being_asked_to(
    write_project: Write, store: str, base_image: str, only_run: OnlyRun
) -> None:
    docker = {"environment": [["SET", "it's set"], "COPIED"], "volumes": [".:/data:ro"]}
    command = 'cat /data/MLproject | head -c 1; echo "$SET $COPIED"; pwd; touch /data/x || echo read-only'
    folder = write_project({"MLproject": shell(command, image=base_image, docker=docker)})
    os.environ["COPIED"] = "and copied"
    try:
        submitted = mlflow.projects.run(str(folder), backend="azureml", experiment_name="contract")
    finally:
        del os.environ["COPIED"]
    log = "".join(submitted.logs())
    assert log.startswith("{it's set and copied\n/mlflow/projects/code\n")
    assert log.endswith("read-only\n")
    tags = only_run().data.tags
    assert tags["mlflow.project.env"] == "docker"
    assert tags["mlflow_azure.image"] == docker_says("image", "inspect", "--format", "{{.Id}}", base_image)
    assert not containers_of(submitted.run_id)


def test_a_docker_project_is_no_project_of_this_machine(write_project: Write, launch: Launch, base_image: str) -> None:
    folder = write_project({"MLproject": shell("true", image=base_image)})
    with pytest.raises(ExecutionException, match='docker_env project runs in a container; set "compute": "docker"'):
        launch(folder, {"compute": "local", "environment": None})


@pytest.mark.parametrize(
    ("docker", "config", "said"),
    [
        (
            {"environment": ["NOBODY_SET_IT"]},
            {},
            "docker_env.environment: NOBODY_SET_IT is not set in this environment",
        ),
        ({"volumes": ["./nowhere:/data"]}, {}, "volume './nowhere:/data': there is no "),
        ({}, {"resources": {"docker_args": ["--nam", "x"]}}, "--nam is not known here"),
        ({}, {"resources": {"docker_args": "--name x"}}, "--name cannot be given: the run's id names it"),
    ],
)
def test_what_a_container_cannot_have_is_refused_and_leaves_nothing(
    write_project: Write,
    launch: Launch,
    base_image: str,
    home: Path,
    docker: dict[str, Any],
    config: dict[str, Any],
    said: str,
) -> None:
    folder = write_project({"MLproject": shell("true", image=base_image, docker=docker)})
    try:
        launch(folder, {"environment": None, **config})
    except ExecutionException as error:
        assert said in str(error)
    else:
        raise AssertionError("it ran")
    assert not docker_says("ps", "--all", "--quiet", "--filter", f"label=mlflow_azure.home={home}")


def test_gpus_that_are_not_there_are_named(write_project: Write, launch: Launch, only_run: OnlyRun) -> None:
    with pytest.raises(ExecutionException):
        launch(write_project({"MLproject": shell("true")}), {"resources": {"gpus": "all"}})
    assert only_run().data.tags["mlflow_azure.cause"] == "this docker engine has no GPUs to give"


def test_limits_and_arguments_reach_the_container(
    write_project: Write, launch: Launch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = (
        "import json, os, socket\n"
        "shm = os.statvfs('/dev/shm')\n"
        "print(json.dumps([shm.f_blocks * shm.f_frsize, socket.gethostname(), os.environ['X'], os.getuid()]))\n"
    )
    folder = write_project({"MLproject": shell("python show.py"), "show.py": script})
    resources = {"shm_size": "3MiB", "memory": "64MiB", "cpus": 0.5, "docker_args": "--hostname given --user 5:5"}
    submitted = launch(folder, {"resources": resources}, docker_args={"env": "X=y", "t": True})
    assert "docker argument --tty has no effect" in capfd.readouterr().err
    assert json.loads("".join(submitted.logs())) == [3 * 2**20, "given", "y", 5]


def test_memory_is_said_with_the_limit_and_the_peak(
    write_project: Write, launch: Launch, only_run: OnlyRun, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "data = []\nfor _ in range(1000):\n    data.append(bytearray(2**20))\n"
    folder = write_project({"MLproject": shell("python train.py"), "train.py": script})
    with pytest.raises(ExecutionException):
        launch(folder, {"resources": {"memory": "64MiB"}})
    tags = only_run().data.tags
    assert tags["mlflow_azure.cause"].startswith("out of memory: the container may have 67 MB, and it had 6")
    assert '"memory": "128MiB"' in tags["mlflow_azure.fix"]
    assert tags["mlflow_azure.reason"] == "signal"
    assert "out of memory" in capfd.readouterr().err


def test_a_path_is_bound_read_only_wherever_it_is(write_project: Write, launch: Launch) -> None:
    command = "cat {inside} {folder}/in.txt; echo x >> {inside} || echo read-only; echo {folder}"
    folder = write_project(
        {
            "MLproject": shell(command, "inside", "folder"),
            ".gitignore": "data/\n",
            "data/left out.csv": "ignored ",
            "../it's elsewhere/in.txt": "elsewhere ",
        }
    )
    paths = {"inside": str(folder / "data/left out.csv"), "folder": str(folder.parent / "it's elsewhere")}
    log = "".join(launch(folder, parameters=paths).logs())
    assert log.startswith("ignored elsewhere ")
    assert log.endswith("read-only\n/mlflow/inputs/folder/it's elsewhere\n")
    assert (folder / "data/left out.csv").read_text() == "ignored "


def test_with_build_image_the_code_is_in_an_image_that_goes_with_the_run(write_project: Write, launch: Launch) -> None:
    folder = write_project({"MLproject": shell("cat word.txt; echo 1 > outputs/new.txt"), "word.txt": "baked"})
    submitted = launch(folder, build_image=True)
    assert "".join(submitted.logs()) == "baked"
    client = mlflow.MlflowClient()
    assert [item.path for item in client.list_artifacts(submitted.run_id, "outputs")] == ["outputs/new.txt"]
    assert not docker_says("images", "--quiet", f"mlflow-azure/project:{submitted.run_id}")


def test_no_secret_is_in_inspect_or_in_a_process_list(
    write_project: Write, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "canary-77aa")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary-88bb")
    folder = write_project({"MLproject": shell('echo "${{#TOKEN}} ${{#MLFLOW_TRACKING_PASSWORD}}"; sleep 600')})
    submitted = launch(folder, {"secrets": {"TOKEN": "env:CANARY"}}, synchronous=False)
    assert next(submitted.logs(follow=True)) == "11 11\n"
    (container,) = containers_of(submitted.run_id)
    seen = docker_says("inspect", container) + docker_says("top", container, "-eo", "pid,args")
    assert "sleep 600" in seen
    assert "canary" not in seen
    listed = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    assert "canary" not in listed
    submitted.cancel()


def test_sixteen_at_once_have_complete_logs(write_project: Write, launch: Launch) -> None:
    folder = write_project({"MLproject": shell("for i in {{1..2000}}; do echo $1 line $i; done")})
    runs: list[AzureSubmittedRun] = []
    threads = [threading.Thread(target=lambda: runs.append(launch(folder, synchronous=False))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.wait() for run in runs] == [True] * 16
    wanted = b"".join(b"line %d\n" % number for number in range(1, 2001))
    assert {b"".join(run.read_log()).replace(b" line", b"line") for run in runs} == {wanted}
    assert not [run for run in runs if containers_of(run.run_id)]


def test_the_log_is_byte_exact(write_project: Write, launch: Launch) -> None:
    script = "import os\nfor i in range(3000):\n    os.write(1 + i % 2, b'%d\\0\\xff\\r' % i + b'x' * (i * 7 % 500))\n"
    folder = write_project({"MLproject": shell("python write.py"), "write.py": script})
    wanted = b"".join(b"%d\0\xff\r" % i + b"x" * (i * 7 % 500) for i in range(3000))
    assert b"".join(launch(folder).read_log()) == wanted


def test_a_program_that_is_asked_to_end_may_say_a_last_word(write_project: Write, launch: Launch) -> None:
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)))\n"
        "sys.stdout.write('started\\n')\nsignal.pause()\n"
    )
    folder = write_project({"MLproject": shell("python train.py; true"), "train.py": script})
    submitted = launch(folder, synchronous=False)
    assert next(submitted.logs(follow=True)) == "started\n"
    submitted.cancel()
    assert "".join(submitted.logs()) == "started\nbye\n"
    assert submitted.get_status() == "KILLED"
    assert not containers_of(submitted.run_id)


def test_a_killed_attendant_leaves_no_container_and_a_named_cause(waiting: AzureSubmittedRun) -> None:
    supervisor = json.loads((waiting.folder.paths.folder / "supervisor.json").read_bytes())
    os.kill(supervisor["child_pid"], signal.SIGKILL)
    assert waiting.wait() is False
    tags = mlflow.get_run(waiting.run_id).data.tags
    assert tags["mlflow_azure.cause"] == "what watched the container was killed"
    assert not containers_of(waiting.run_id)
    assert not waiting.folder.container_marker(waiting.run_id).exists()


def test_a_killed_supervisor_leaves_no_container(waiting: AzureSubmittedRun) -> None:
    supervisor = json.loads((waiting.folder.paths.folder / "supervisor.json").read_bytes())
    os.kill(supervisor["pid"], signal.SIGKILL)
    assert waiting.wait() is False
    assert mlflow.get_run(waiting.run_id).data.tags["mlflow_azure.reason"] == "lost"
    assert not containers_of(waiting.run_id)


def test_sync_removes_what_a_run_that_ended_has_left(
    write_project: Write, launch: Launch, base_image: str, home: Path
) -> None:
    submitted = launch(write_project({"MLproject": shell("true")}))
    label = f"mlflow_azure.run_id={submitted.run_id}"
    docker_says("run", "--detach", "--label", label, base_image, "sleep", "600")
    submitted.folder.container_marker(submitted.run_id).touch()
    assert list(sync(Journal(home))) == []
    assert not containers_of(submitted.run_id)
    assert not Journal(home).containers()


def test_an_image_in_use_may_lose_its_name_and_nothing_more(write_project: Write, store: str, base_image: str) -> None:
    name = "mlflow-azure-test:going"
    docker_says("tag", base_image, name)
    wait = "echo started; while [ ! -e /gate/open ]; do sleep 0.01; done; echo ended"
    folder = write_project({"MLproject": shell(wait, image=name, docker={"volumes": [".:/gate:ro"]})})
    submitted = mlflow.projects.run(str(folder), backend="azureml", experiment_name="contract", synchronous=False)
    assert next(submitted.logs(follow=True)) == "started\n"
    docker_says("rmi", "--force", name)
    (folder / "open").touch()
    assert submitted.wait() is True
    assert "".join(submitted.logs()) == "started\nended\n"
    assert not containers_of(submitted.run_id)


def test_a_container_that_somebody_removes_is_a_job_that_is_lost(waiting: AzureSubmittedRun) -> None:
    docker_says("rm", "--force", *containers_of(waiting.run_id))
    assert waiting.wait() is False
    tags = mlflow.get_run(waiting.run_id).data.tags
    assert tags["mlflow_azure.cause"].startswith(("the container is gone", "killed by SIGKILL"))
