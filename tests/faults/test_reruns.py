"""A run is repeated through the command line by somebody who has the tracking store and nothing else."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.faults.packages import project_with_environment
from tests.faults.world import QUICK, Client, World, until


def rerun_elsewhere(world: World) -> Client:
    """Repeat the world's one run with another home and cache; its project is gone."""
    ((run_id, _),) = world.runs()
    shutil.rmtree(world.project)
    for name in ("MLFLOW_AZURE_HOME", "MLFLOW_AZURE_CACHE"):
        world.environment[name] = str(world.folder / f"other {name}")
    client = world.start("mlflow-azure", "rerun", run_id)
    assert client.wait() == 0, client.err
    assert [status for _, status in world.runs()] == ["FINISHED"] * 2
    tags = dict(world.query("SELECT key, value FROM tags WHERE key = 'mlflow_azure.rerun_of'"))
    assert tags["mlflow_azure.rerun_of"] == run_id
    return client


def test_a_built_environment_is_built_again_from_its_lock(world: World) -> None:
    world.write_project(QUICK)
    project_with_environment(world)
    first = world.run()
    assert first.wait() == 0, first.err
    again = rerun_elsewhere(world)
    assert again.out == first.out
    assert "✓ install" in again.err
    keys = world.query("SELECT DISTINCT value FROM tags WHERE key = 'mlflow_azure.environment'")
    assert len(keys) == 1


@pytest.fixture
def git_server(world: World) -> Iterator[str]:
    """Git's own server on loopback; yields the address of the folder that it serves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = world.folder / "served"
    served.mkdir()
    command = ["git", "daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", f"--port={port}"]
    with subprocess.Popen([*command, f"--base-path={served}", str(served)], stderr=subprocess.DEVNULL) as daemon:

        def listens() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        until(listens)
        yield f"git://127.0.0.1:{port}"
        daemon.terminate()


def test_a_commit_is_fetched_again(world: World, git_server: str) -> None:
    world.write_project(QUICK)
    git = ["git", "-C", str(world.project), "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    bare = world.folder / "served" / "p.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(world.project), str(bare)], check=True)
    first = world.run("--version", "main", project=f"{git_server}/p.git")
    assert first.wait() == 0, first.err
    stored = [path.name for path in world.store.rglob("snapshot/*")]
    assert "snapshot.tar.zst" not in stored
    assert rerun_elsewhere(world).out == first.out
