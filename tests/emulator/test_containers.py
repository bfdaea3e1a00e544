"""Emulated jobs in containers: images built upon those that stand for Azure's, and nothing left of them."""

from __future__ import annotations

import functools
import http.server
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_azure_backend.emulator import EmulatorServer
from tests.conda_channel import PLACEHOLDER, serve
from tests.emulator.test_distributed_jobs import logs_of, run
from tests.emulator.test_environments import BUILD_LOG, STOCK, conda_file
from tests.emulator.test_job_orders import until
from tests.emulator.test_jobs import VERSION, Submitter
from tests.emulator.test_ml_client import ml_client
from tests.environment.conftest import MakeWheel, folder, make_wheel

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

__all__ = ["folder", "make_wheel", "ml_client"]
pytestmark = pytest.mark.docker
LOG = "user_logs/std_log.txt"
ASK = """
import json, os, pathlib, urllib.request
host, _, workspace = os.environ["MLFLOW_TRACKING_URI"].removeprefix("azureml://").partition("/mlflow/v1.0")
url = f"https://{host}/history/v1.0{workspace}/runs/{os.environ['AZUREML_RUN_ID']}"
request = urllib.request.Request(url, headers={"Authorization": "Bearer " + os.environ["AZUREML_RUN_TOKEN"]})
print(json.load(urllib.request.urlopen(request))["status"], repr(os.environ["SAID"]), flush=True)
pathlib.Path("outputs").mkdir()
pathlib.Path("outputs/a model.txt").write_text("weights")
pathlib.Path(os.environ["AZURE_ML_OUTPUT_result"], "named.txt").write_text("named")
"""


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of conda channels, of which conda-forge has one package."""
    for server in serve(tmp_path_factory.mktemp("channels")):
        channel = server.channel("conda-forge")
        channel.add("greet", "1.0", {"bin/greet": f"#!/bin/sh\necho installed to {PLACEHOLDER}\n"})
        channel.index()
        yield server.url


@pytest.fixture(scope="module")
def emulator(base_image: str, channels: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorServer]:
    """A workspace whose jobs run in containers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATTLER_CACHE_DIR", str(tmp_path_factory.mktemp("rattler")))
        images = {"mcr.microsoft.com/azureml/*": base_image}
        with EmulatorServer(outside=False, conda_mirror=channels, base_images=images) as server:
            yield server
            workspace = server.settings["workspace_id"]
    assert docker("image", "ls", "--quiet", "--filter", f"reference=*:{workspace}") == ""


@pytest.fixture(scope="module")
def client(emulator: EmulatorServer) -> Iterator[Submitter]:
    with Submitter(emulator) as made:
        yield made


@pytest.fixture
def index(make_wheel: MakeWheel, tmp_path: Path) -> Iterator[str]:
    """Address of a page with a wheel."""
    (tmp_path / "index").mkdir()
    make_wheel("greeting", "1.0", into=tmp_path / "index")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "index"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_stock_image_stands_for_itself(client: Submitter) -> None:
    """The job reads its code, asks the service with its token and writes its outputs from inside the container."""
    logs = run(
        client,
        "contained",
        command="python train.py; [ -f /.dockerenv ] && echo inside",
        codeId=client.code(train=ASK),
        environmentId=client.asset("environments", image=STOCK),
        environmentVariables={"SAID": "two\nlines"},
        outputs={"result": {"jobOutputType": "uri_folder"}},
        resources={"shmSize": "64m", "dockerArgs": "--label 'a=b c'"},
    )
    assert list(logs) == [LOG]
    assert logs[LOG] == "Running 'two\\nlines'\ninside\n"
    artifacts = f"{client.history}/experiments/Default/runs/contained/artifacts"
    assert "outputs/a model.txt" in [one["path"] for one in client.get(artifacts).json()["value"]]


def test_packages_are_installed_in_the_image_by_its_own_python(client: Submitter, index: str) -> None:
    text = conda_file(
        "python", f'{{pip: ["--find-links {index}", "--no-index", greeting]}}', more="variables: {WHO: 'a $b'}\n"
    )
    environment = client.asset("environments", image=STOCK, condaFile=text)
    command = "python -c 'import greeting, os, sys; print(sys.prefix, os.environ[\"WHO\"])'; echo $CONDA_PREFIX"
    logs = run(client, "installed", command=command, environmentId=environment)
    prefix, who = logs[LOG].splitlines()[0].split(" ", 1)
    assert (prefix.startswith("/azureml-envs/azureml_"), who, logs[LOG].splitlines()[1]) == (True, "a $b", prefix)
    assert "greeting" in logs[BUILD_LOG]
    assert list(run(client, "installed-again", command=command, environmentId=environment)) == [LOG]


def test_conda_packages_are_copied_into_the_image(client: Submitter) -> None:
    environment = client.asset("environments", image=STOCK, condaFile=conda_file("greet"))
    logs = run(client, "copied", command='greet; echo "installed to $CONDA_PREFIX"', environmentId=environment)
    first, second = logs[LOG].splitlines()
    assert (first, "/azureml_" in first) == (second, True)
    assert "+ greet 1.0" in logs[BUILD_LOG]


@pytest.mark.filterwarnings("ignore")  # of azure-ai-ml's own about itself
def test_a_dockerfile_is_built_upon_what_stands_for_its_base(
    ml_client: MLClient, client: Submitter, tmp_path: Path
) -> None:
    from azure.ai.ml import command
    from azure.ai.ml.entities import BuildContext, Environment

    folder = tmp_path / "it's 100% a päth #1"  # the client loses a semicolon
    folder.mkdir()
    (folder / "hello.py").write_text("import os; print('hello from', os.environ['WHERE'])")
    (folder / "Dockerfile.gpu").write_text(f"from {STOCK} AS base\nCOPY hello.py /hello.py\nENV WHERE=image\n")
    for name, file in (("baked", "Dockerfile.gpu"), ("unbaked", "Dockerfile")):
        context = BuildContext(path=str(folder), dockerfile_path=file)
        environment = Environment(name=name, build=context)
        ml_client.jobs.create_or_update(command(name=name, command="python /hello.py", environment=environment))
    client.wait("baked", "Completed")
    logs = logs_of(client, "baked")
    assert logs[LOG] == "hello from image\n"
    assert STOCK not in logs[BUILD_LOG]
    client.wait("unbaked", "Failed")
    error = client.get(f"{client.history}/runs/unbaked/details").json()["error"]["error"]["message"]
    assert "the environment's build context has no Dockerfile;" in error


def test_the_ranks_of_containers_meet_on_loopback_and_a_cancel_removes_them(client: Submitter) -> None:
    command = "echo rank $RANK at $MASTER_ADDR; exec sleep 1000"
    client.submit(
        "fleet",
        command=command,
        environmentId=client.asset("environments", image=STOCK),
        resources={"instanceCount": 2, "dockerArgs": "--label fleet=mine"},
        distribution={"distributionType": "PyTorch"},
    )
    said = {f"user_logs/std_log_process_0{rank}.txt": f"rank {rank} at 127.0.0.1\n" for rank in (0, 1)}
    until(client, "fleet", lambda logs: logs == said)
    assert len(docker("ps", "--quiet", "--filter", "label=fleet=mine").split()) == 2
    client.post(f"{client.arm}/jobs/fleet/cancel", params=VERSION)
    client.wait("fleet", "Canceled")
    assert docker("ps", "--all", "--quiet", "--filter", "label=fleet=mine") == ""
    assert logs_of(client, "fleet") == said


def test_a_killed_emulator_leaves_no_container(base_image: str, tmp_path: Path) -> None:
    emulator = EmulatorServer(outside=False, state=tmp_path / "state", base_images={"any": base_image})
    with emulator, Submitter(emulator) as client:
        environment = client.asset("environments", image="any")
        resources = {"dockerArgs": "--label orphan=mine"}
        client.submit("orphan", command="echo here; sleep 1000", environmentId=environment, resources=resources)
        until(client, "orphan", lambda logs: logs.get(LOG) == "here\n")
        assert docker("ps", "--quiet", "--filter", "label=orphan=mine") != ""
        os.kill(emulator.pid, signal.SIGKILL)
        while docker("ps", "--all", "--quiet", "--filter", "label=orphan=mine") != "":
            pass
