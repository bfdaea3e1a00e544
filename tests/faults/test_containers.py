"""Containers whose client dies or is no root, and a tracking server that listens on this machine only."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.proxy import Proxy
from tests.faults.world import Client, World, until

POINTS = ("docker.before_build", "docker.after_create")
"""The fault points that only a container's client reaches."""

pytestmark = [pytest.mark.docker, pytest.mark.always]


def in_container(world: World, image: str, command: str, **files: str) -> None:
    """Make the world's project one that runs ``command`` in a container."""
    project = {"docker_env": {"image": image}, "entry_points": {"main": {"command": command}}}
    world.write_project("", mlproject=json.dumps(project), files=files)


def shows(client: Client, words: bytes) -> bool:
    """Whether the client has printed ``words``; it opens its streams itself."""
    with contextlib.suppress(FileNotFoundError):
        return words in client.out
    return False


def await_ready(client: Client) -> None:
    """Wait until the client shows the first line of its job."""
    until(lambda: shows(client, b"ready\n"))


def containers_of(world: World) -> str:
    """The containers that the world's clients made."""
    label = f"label=mlflow_azure.home={world.home}"
    listed = ["docker", "ps", "--all", "--quiet", "--filter", label]
    return subprocess.run(listed, check=True, capture_output=True, text=True).stdout


def test_a_client_that_is_killed_leaves_no_container(world: World, base_image: str) -> None:
    in_container(world, base_image, "echo ready; sleep 600")
    client = world.run()
    await_ready(client)
    assert containers_of(world)
    client.signal(signal.SIGKILL)
    client.wait()
    world.await_quiet()
    assert not containers_of(world)
    assert [status for _, status in world.runs()] == ["KILLED"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("action", ["kill", "raise", "sigint"])
def test_a_client_that_ends_at_a_point_leaves_no_container(
    world: World, base_image: str, point: str, action: str
) -> None:
    if point == "docker.before_build":
        project = {"python_env": "python_env.yaml", "entry_points": {"main": {"command": "true"}}}
        files = {"python_env.yaml": "dependencies: [--no-index]\n"}
        world.write_project("", mlproject=json.dumps(project), files=files)
    else:
        in_container(world, base_image, "true")
    config = json.dumps({"compute": "docker", "environment": {"image": base_image}})
    client = world.run("--backend-config", config, MLFLOW_AZURE_FAULT=f"{point}:{action}")
    assert client.wait() == {"kill": -signal.SIGKILL, "raise": 1, "sigint": 130}[action], client.err
    world.await_quiet()
    world.next_command()
    assert not containers_of(world)
    ends = [status for _, status in world.runs()]
    assert len(ends) == (point == "docker.after_create")
    assert set(ends) <= {"KILLED", "FAILED"}


def test_interrupting_the_client_ends_the_container(world: World, base_image: str) -> None:
    in_container(world, base_image, "echo ready; sleep 600")
    client = world.run()
    await_ready(client)
    client.signal(signal.SIGINT)
    assert client.wait() != 0
    assert not containers_of(world)
    assert [status for _, status in world.runs()] == ["KILLED"]


def test_a_server_on_loopback_is_reached_from_inside(served: Proxy, world: World, base_image: str) -> None:
    script = (
        "import os, urllib.request\n"
        "get = os.environ['MLFLOW_TRACKING_URI'] + '/api/2.0/mlflow/runs/get?run_id=' + os.environ['MLFLOW_RUN_ID']\n"
        "print(urllib.request.urlopen(get).status)\n"
    )
    in_container(world, base_image, "python ask.py", **{"ask.py": script})
    client = world.run()
    assert client.wait() == 0, client.err
    assert client.out == b"200\n"


def test_nothing_of_a_user_belongs_to_root(base_image: str, tmp_path: Path) -> None:
    """The client is another user's, who may speak to the engine."""
    home = Path("/tmp") / f"mlflow-azure-test-{os.getpid()}"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    project = {
        "docker_env": {"image": base_image},
        "entry_points": {
            "main": {"command": "mkdir -p outputs/deep && id -u > outputs/deep/id; echo $HOME; touch $HOME/x"}
        },
    }
    (home / "project").mkdir()
    (home / "project" / "MLproject").write_text(json.dumps(project))
    shutil.chown(home, 1234, 1234)
    group = Path("/var/run/docker.sock").stat().st_gid
    code = (
        "import sys, mlflow\n"
        f"mlflow.set_tracking_uri('file://{home}/runs')\n"
        "run = mlflow.projects.run('project', backend='azureml')\n"
        "print(''.join(run.logs()))\n"
    )
    environment = {
        **os.environ,
        "HOME": str(home),
        "MLFLOW_AZURE_HOME": str(home / "state"),
        "MLFLOW_AZURE_CACHE": str(home / "cache"),
        "USER": "nobody",
        "LOGNAME": "nobody",
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }
    # It may read all, for this Python may lie in root's own home, and write nothing that is not its own.
    read = "dac_read_search"
    user = ["setpriv", "--reuid=1234", "--regid=1234", f"--groups={group}"]
    user += [f"--inh-caps=-all,+{read}", f"--ambient-caps=-all,+{read}", f"--bounding-set=-all,+{read}"]
    try:
        done = subprocess.run(
            [*user, sys.executable, "-c", code], cwd=home, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("/tmp\n")
        (made,) = (home / "runs").rglob("id")
        assert made.read_text() == "1234\n"
        assert {path.lstat().st_uid for path in home.rglob("*") if not path.is_relative_to(home / "project")} == {1234}
        assert not [path for path in (home / "state").rglob("*") if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    finally:
        shutil.rmtree(home)
