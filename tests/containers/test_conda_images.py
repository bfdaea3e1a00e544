"""Images of conda projects, and the credentials that a build needs and an image must not hold."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import ExecutionException

from mlflow_azure_backend.containers.building import _has_buildkit
from tests.conda_channel import CondaServer, conda_cache, conda_forge, conda_server
from tests.containers.conftest import Launch, docker_says
from tests.containers.test_parity import digests_of
from tests.environment.conftest import Index, MakeWheel, folder, index, make_wheel

__all__ = ["conda_cache", "conda_forge", "conda_server", "folder", "index", "make_wheel"]
Write = Callable[[Mapping[str, str]], Path]

pytestmark = [pytest.mark.docker, pytest.mark.package_index]


@pytest.fixture
def docker_with_secrets() -> Path:
    """The folder of a docker command that has BuildKit: by the plug-in, or Debian's own of version 20."""
    for place in os.environ["PATH"].split(os.pathsep):
        docker = Path(place) / "docker"
        if docker.exists() and _has_buildkit(str(docker)):
            return Path(place)
    raise AssertionError("no docker command here can build with secrets: apt-get install docker.io or docker-buildx")


@pytest.fixture
def docker_without_secrets(tmp_path: Path) -> Path:
    """The folder of a docker command like one of version 28 without the plug-in."""
    docker = tmp_path / "old" / "docker"
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Docker version 28.2.2"\n[ "$1" != buildx ]\n')
    docker.chmod(0o755)
    return docker.parent


@pytest.fixture
def project(
    write_project: Write, conda_forge: CondaServer, index: Index, make_wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Needs a package of a private channel and one of a private index."""
    channel = conda_forge.channel("guarded")
    channel.add("guarded", "1.0", {"share/guarded": "from the channel"})
    channel.index()
    monkeypatch.setattr(conda_forge, "private", {"guarded"})
    index.add(make_wheel("alpha", "1.0"))
    monkeypatch.setenv(
        "PIP_EXTRA_INDEX_URL", f"{index.private_url} {os.environ.get('PIP_EXTRA_INDEX_URL', '')}".strip()
    )
    monkeypatch.setenv("CHANNEL_USER", conda_forge.user)
    monkeypatch.setenv("CHANNEL_PASSWORD", conda_forge.password)
    address = conda_forge.url.replace("://", "://$CHANNEL_USER:$CHANNEL_PASSWORD@")
    return write_project(
        {
            "MLproject": "name: x\nconda_env: conda.yaml\nentry_points: {main: {command: python show.py}}\n",
            "conda.yaml": f"channels: ['{address}/guarded', conda-forge]\n"
            "dependencies: [python, guarded, pip, {pip: [alpha]}]\n",
            "show.py": "import alpha, pathlib, sys\n"
            "print(alpha.VERSION, (pathlib.Path(sys.prefix) / 'share/guarded').read_text())\n",
        }
    )


def test_a_conda_project_runs_in_an_image_of_its_lock_and_leaves_what_it_leaves_here(
    write_project: Write, launch: Launch, conda_forge: CondaServer
) -> None:
    script = 'export ACTIVATED="yes, it\'s"\necho of no interest\n'
    channel = conda_forge.channel("scripts")
    channel.add("activated", "1.0", {"etc/conda/activate.d/activated.sh": script})
    channel.index()
    written = write_project(
        {
            "MLproject": "name: x\nconda_env: conda.yaml\nentry_points: {main: {command: python show.py}}\n",
            "conda.yaml": "channels: [scripts, conda-forge]\ndependencies: [python, numpy, activated, pip, {pip: [six==1.17.0]}]\n"
            "variables: {GREETING: 'a $b \"c\"'}\n",
            "show.py": "import numpy, os, pathlib, six, sys\n"
            "chance = numpy.random.default_rng(7)\n"
            "model = numpy.linalg.lstsq(chance.normal(size=(50, 4)), chance.normal(size=50), rcond=None)[0]\n"
            "pathlib.Path('outputs').mkdir(exist_ok=True)\n"
            "numpy.save('outputs/model.npy', model)\n"
            "print(six.__version__, sys.prefix, os.environ['ACTIVATED'], os.environ['GREETING'])\n",
        }
    )
    run = launch(written)
    assert "".join(run.logs()) == """1.17.0 /opt/mlflow-azure/environment yes, it's a $b "c"\n"""
    here = launch(written, {"compute": "local", "environment": None})
    models = [mlflow.artifacts.download_artifacts(run_id=one.run_id, artifact_path="outputs") for one in (run, here)]
    assert digests_of(Path(models[0])) == digests_of(Path(models[1])) != []


def test_credentials_open_what_a_build_needs_and_are_nowhere_in_the_image(
    project: Path,
    launch: Launch,
    docker_without_secrets: Path,
    docker_with_secrets: Path,
    index: Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{docker_without_secrets}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(ExecutionException, match="can keep none out of an image; install docker-buildx, or"):
            launch(project)
    monkeypatch.setenv("PATH", f"{docker_with_secrets}{os.pathsep}{os.environ['PATH']}")
    index.answer.clear()
    listed: list[str] = []

    def look_around() -> None:
        index.asked.wait(300)  # the build is at its wheels, with everything that it was given
        ps = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True)
        listed.append(ps.stdout)
        index.answer.set()

    watcher = threading.Thread(target=look_around, daemon=True)
    watcher.start()
    run = launch(project)
    watcher.join()
    assert "".join(run.logs()) == "1.0 from the channel\n"
    image = mlflow.get_run(run.run_id).data.tags["mlflow_azure.image"]
    told = docker_says("history", "--no-trunc", image) + docker_says("inspect", image)
    (tmp_path / "saved.tar").write_bytes(subprocess.run(["docker", "save", image], capture_output=True).stdout)
    secrets = [index.user, index.password, base64.b64encode(f"{index.user}:{index.password}".encode()).decode()]
    for secret in secrets:
        assert secret not in told
        assert secret not in "".join(listed)
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert "show.py" not in told
    assert listed
    docker_says("rmi", image)
