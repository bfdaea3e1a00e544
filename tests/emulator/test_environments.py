"""Environments of emulated jobs: solved, built once with their log, and refused in one line where they cannot be."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_azure_backend.emulator import EmulatorServer
from tests.conda_channel import CondaServer, conda_cache, conda_server
from tests.emulator.test_distributed_jobs import run
from tests.emulator.test_jobs import VERSION, Submitter
from tests.environment.conftest import MakeWheel, folder, make_wheel

__all__ = ["conda_cache", "conda_server", "folder", "make_wheel"]
BUILD_LOG = "azureml-logs/20_image_build_log.txt"
STOCK = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04:latest"


@pytest.fixture(scope="module")
def client(conda_server: CondaServer, conda_cache: Path) -> Iterator[Submitter]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATTLER_CACHE_DIR", str(conda_cache))
        patch.setenv("DOCKER_HOST", "unix:///no/engine")
        images = {"as-*": "process", "contained": "{image}"}
        with (
            EmulatorServer(outside=False, conda_mirror=conda_server.url, base_images=images) as emulator,
            Submitter(emulator) as made,
        ):
            yield made


def conda_file(*dependencies: str, more: str = "") -> str:
    return f"channels: [conda-forge]\ndependencies: [{', '.join(dependencies)}]\n{more}"


def test_conda_packages_are_solved_and_built_once(client: Submitter, make_wheel: MakeWheel, tmp_path: Path) -> None:
    wheel = make_wheel("greeting", "1.0", into=tmp_path).as_uri()
    text = conda_file("python", "numpy", "pip", f'{{pip: ["greeting @ {wheel}"]}}', more="variables: {WHO: it's me}\n")
    environment = client.asset("environments", image="ubuntu", condaFile=text)
    code = "import numpy, greeting, os, sys; print(numpy.__file__.startswith(sys.prefix), os.environ['WHO'])"
    logs = run(client, "first", command=f'python -c "{code}"; echo $CONDA_DEFAULT_ENV', environmentId=environment)
    said, name, _ = logs["user_logs/std_log.txt"].split("\n")
    assert (said, name.startswith("azureml_")) == ("True it's me", True)
    assert "+ numpy " in logs[BUILD_LOG]
    again = run(client, "second", command=f'python -c "{code}"', environmentId=environment)
    assert again == {"user_logs/std_log.txt": "True it's me\n"}


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        (
            {"condaFile": conda_file("no-such-package")},
            "Image build failed. For more details, check log file " + BUILD_LOG,
        ),
        ({"condaFile": "dependencies: ["}, "conda file is no YAML"),
        ({"image": "pytorch/pytorch"}, "pytorch/pytorch: an image alone needs a container; say what stands for it"),
        ({"image": "contained"}, "the job's environment needs a container engine, and "),
        (
            {"image": None, "build": {"contextUri": "azureml://x"}},
            "the job's environment needs a container engine, and ",
        ),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(client: Submitter, properties: dict[str, Any], words: str) -> None:
    name = f"refused-{uuid.uuid4()}"
    client.submit(name, command="true", environmentId=client.asset("environments", **{"image": "ubuntu", **properties}))
    client.wait(name, "Failed")
    message = client.get(f"{client.history}/runs/{name}/details").json()["error"]["error"]["message"]
    assert (words in message, "\n" in message) == (True, False), message


@pytest.mark.parametrize("image", [STOCK, "as-processes:1"])
def test_a_stock_image_alone_has_a_bare_python(client: Submitter, image: str) -> None:
    environment = client.asset("environments", image=image)
    logs = run(
        client, f"bare-{image[:2]}", command="python -c 'import sys; print(sys.prefix)'", environmentId=environment
    )
    assert "/environments/azureml_" in logs["user_logs/std_log.txt"]


def test_a_cancel_ends_a_build(client: Submitter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as index:
        address = f"http://127.0.0.1:{index.getsockname()[1]}/"
        text = conda_file("python", f'{{pip: ["--index-url {address}", never]}}')
        client.submit("stuck", command="true", environmentId=client.asset("environments", image="u", condaFile=text))
        installer, _ = index.accept()
        with installer:
            assert client.job("stuck")["properties"]["status"] == "Preparing"
            client.post(f"{client.arm}/jobs/stuck/cancel", params=VERSION)
            while installer.recv(4096):  # the end of its requests: it is gone
                pass
    client.wait("stuck", "Canceled")
