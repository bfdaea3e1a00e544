"""Images of environments: what they are built from, how often, and that training in one gives what it gives here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import ExecutionException

from mlflow_azure_backend.console import Console
from mlflow_azure_backend.containers.context import BuildContext, base_image_for, build_context
from mlflow_azure_backend.environment.indexes import Sources
from mlflow_azure_backend.environment.lock import EnvironmentLock, LockedPackage
from mlflow_azure_backend.rerun import Changes, rerun
from tests.containers.conftest import Launch, docker_says

Write = Callable[[Mapping[str, str]], Path]

SAMPLES = Path(__file__).parent.parent.parent / "sample_projects"
LOCK = EnvironmentLock(
    kind="python",
    spec_fingerprint="f",
    python_version="3.11.7",
    implementation="cpython",
    packages=(LockedPackage("six", "1.17.0", ("sha256:00",)),),
    text="six==1.17.0 --hash=sha256:00\n",
)


def context(lock: EnvironmentLock = LOCK, certificates: bytes | None = None) -> BuildContext:
    installers = {"uv": "0.9.0", "py-rattler": "0.28.1"}
    return build_context(lock, "base:1", installers=installers, certificates=certificates)


def test_the_same_lock_gives_the_same_context_on_the_image_of_its_python() -> None:
    assert context() == context()
    assert base_image_for(LOCK) == "python:3.11-slim"
    assert context().files["requirements.txt"] == LOCK.text.encode()
    assert set(context().files) == {"Dockerfile", "requirements.txt"}
    dockerfile = context().files["Dockerfile"].decode()
    assert dockerfile.startswith("FROM base:1\n")
    assert "--require-hashes" in dockerfile
    assert "uv==0.9.0" in dockerfile


def test_credentials_are_secrets_and_folders_of_this_machine_are_left_out() -> None:
    lines = ("--index-url https://me:canary@example.com/simple", "--find-links file:///opt/wheels")
    sources = Sources(lines, {"UV_INDEX_OURS_PASSWORD": "canary", "UV_INDEX_STRATEGY": "best", "SSL_CERT_FILE": "/x"})
    made = context(replace(LOCK, sources=sources), certificates=b"PEM")
    assert not [name for name, content in made.files.items() if b"canary" in content or b"/opt/wheels" in content]
    assert made.secrets == {
        "indexes": "--index-url https://me:canary@example.com/simple\n",
        "variables": "export UV_INDEX_OURS_PASSWORD='canary'\n",
    }
    dockerfile = made.files["Dockerfile"].decode()
    assert re.search(r"RUN --mount=type=secret,id=indexes --mount=type=secret,id=variables ", dockerfile)
    assert "export UV_INDEX_STRATEGY='best'" in dockerfile
    assert "export SSL_CERT_FILE='certificates.pem'" in dockerfile


def test_a_conda_environment_is_built_by_the_installer_that_this_machine_uses() -> None:
    text = """metadata:\n  custom_metadata:\n    variables: '{"GREETING": "it''s \\"$5\\""}'\n"""
    conda = replace(LOCK, kind="conda", text=text)
    assert base_image_for(conda) == "python:3.12-slim"
    files = context(conda).files
    assert set(files) == {"Dockerfile", "activate.sh", "conda-lock.yml", "installing.py"}
    dockerfile = files["Dockerfile"].decode()
    assert "uv==0.9.0 py-rattler==0.28.1" in dockerfile
    assert '''GREETING="it's \\"\\$5\\""''' in dockerfile


@pytest.mark.docker
@pytest.mark.package_index
def test_an_image_is_built_once_and_a_change_of_code_builds_nothing(
    write_project: Write, launch: Launch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_project(
        {
            "MLproject": "name: x\npython_env: python_env.yaml\nentry_points: {main: {command: python show.py}}\n",
            "python_env.yaml": "dependencies: [six==1.17.0]\n",
            "show.py": "import six, sys; print(six.__version__, sys.prefix)\n",
        }
    )
    first = launch(folder)
    assert "".join(first.logs()) == "1.17.0 /opt/mlflow-azure/environment\n"
    images = docker_says("images", "--quiet", "mlflow-azure/environment")
    capfd.readouterr()
    (folder / "show.py").write_text("print('changed')\n")
    second = launch(folder)
    assert "".join(second.logs()) == "changed\n"
    assert "install" not in capfd.readouterr().err
    assert docker_says("images", "--quiet", "mlflow-azure/environment") == images
    tags = [mlflow.get_run(run.run_id).data.tags["mlflow_azure.image"] for run in (first, second)]
    assert tags[0] == tags[1]


@pytest.mark.docker
@pytest.mark.package_index
def test_an_image_without_python_is_named(write_project: Write, launch: Launch, base_image: str) -> None:
    other = "mlflow-azure-test:without-python"
    dockerfile = f"FROM {base_image}\nRUN rm /usr/local/bin/python3\n"
    build = ["docker", "build", "--quiet", "--tag", other, "-"]
    subprocess.run(build, input=dockerfile, text=True, check=True, env={**os.environ, "DOCKER_BUILDKIT": "0"})
    folder = write_project(
        {
            "MLproject": "name: x\npython_env: python_env.yaml\nentry_points: {main: {command: python -V}}\n",
            "python_env.yaml": "dependencies: [six==1.17.0]\n",
        }
    )
    with pytest.raises(ExecutionException, match=r"the image cannot be built: .*python3.* not found"):
        launch(folder, {"environment": {"image": other}})
    docker_says("rmi", other)


@pytest.mark.docker
def test_a_project_with_a_dockerfile_runs_in_its_image_which_is_built_once_for_each_content(
    write_project: Write,
    launch: Launch,
    base_image: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    docker = {"image": "what-mlflow-runs", "build_context": "image", "dockerfile": "image/it's docker"}
    main = {"command": "cat word.txt /words/*; ls -A /words; cat /words/gone"}
    folder = write_project(
        {
            "MLproject": json.dumps({"name": "x", "docker_env": docker, "entry_points": {"main": main}}),
            "word.txt": "code ",
            "image/it's docker": f'FROM {base_image}\nCOPY ["a word", "/words/"]\nCOPY gon[e] dep* /words/\n',
            "image/.dockerignore": "# no comment\ngone\n",
            "image/a word": "image\n",
            "image/gone": "gone",
            "image/.env": "SECRET=canary",
            "image/dependency": "",
        }
    )

    def run() -> tuple[str, str]:
        with contextlib.suppress(ExecutionException):  # the last command fails
            launch(folder, {"environment": None})
        (last,) = mlflow.search_runs(
            experiment_names=["contract"], max_results=1, order_by=["start_time DESC"], output_format="list"
        )
        image: str = last.data.tags["mlflow_azure.image"]
        return image, capfd.readouterr().out

    with monkeypatch.context() as without:
        without.setenv("PATH", "/nowhere")
        with pytest.raises(ExecutionException, match="images are built with the docker command, and there is none"):
            launch(folder, {"environment": None})
    image, log = run()
    assert log.startswith("code image\na word\ndependency\n")
    assert "gone: No such file" in log
    (folder / "word.txt").write_text("changed ")
    assert run()[0] == image
    (folder / "image/a word").write_text("another\n")
    other, log = run()
    assert other != image
    assert log.startswith("changed another\n")
    outside = {"image": "x", "build_context": "image", "dockerfile": "Dockerfile"}
    (folder / "Dockerfile").write_text(f"FROM {base_image}\nCOPY . /words/\n")
    (folder / "MLproject").write_text(json.dumps({"docker_env": outside, "entry_points": {"main": main}}))
    third, log = run()
    assert log.startswith("changed ")
    assert "\nit's docker\n" in log
    assert "dependency" in log
    (folder / "MLproject").write_text(json.dumps({"docker_env": docker, "entry_points": {"main": main}}))
    (folder / "image/it's docker").write_text(f"FROM {base_image}\nRUN echo a reason >&2; exit 3\n")
    with pytest.raises(ExecutionException, match=r"image/it's docker: the image cannot be built: a reason; correct it"):
        launch(folder, {"environment": None})
    (folder / ".gitignore").write_text("image/\n")
    with pytest.raises(ExecutionException, match=r"the snapshot has no image/it's docker, for .gitignore:1 leaves"):
        launch(folder, {"environment": None})
    docker_says("rmi", image, other, third)


@pytest.mark.docker
def test_the_sample_project_runs_in_the_image_that_its_make_rule_builds(store: str, base_image: str) -> None:
    docker_says("tag", base_image, "mlflow-azure/sample-python")
    run = mlflow.projects.run(str(SAMPLES / "docker_env"), backend="azureml", experiment_name="contract")
    assert "".join(run.logs()) == "pi is about 3.1422\n"
    (artifact,) = mlflow.MlflowClient().list_artifacts(run.run_id, "outputs")
    assert artifact.path == "outputs/estimate.json"


@pytest.mark.docker
@pytest.mark.package_index
def test_a_run_of_this_machine_is_repeated_in_a_container_and_back(
    write_project: Write, launch: Launch, base_image: str
) -> None:
    script = (
        "import random, six, sys, pathlib\n"
        "chance = random.Random(7)\n"
        "pathlib.Path('outputs').mkdir(exist_ok=True)\n"
        "pathlib.Path('outputs/model').write_text(repr([chance.gauss(0, 1) for _ in range(100)]))\n"
        "print(six.__version__, sys.version_info[:2], sys.argv[1])\n"
    )
    folder = write_project(
        {
            "MLproject": "name: x\npython_env: python_env.yaml\nentry_points:\n  main:\n"
            "    parameters: {data: path}\n    command: python train.py {data}\n",
            "python_env.yaml": "dependencies: [six==1.17.0]\n",
            "train.py": script,
        }
    )
    base = "python:{}.{}-slim".format(*sys.version_info)
    docker_says("tag", base_image, base)
    try:
        first = launch(folder, {"compute": "local", "environment": None}, parameters={"data": "."})
        second = rerun(first.run_id, Changes({}, compute="docker"), Console())
        assert second.wait()
        third = rerun(second.run_id, Changes({}, compute="local"), Console())
        assert third.wait()
    finally:
        docker_says("rmi", base)
    runs = [mlflow.get_run(run.run_id) for run in (first, second, third)]
    assert [run.data.tags["mlflow_azure.target"] for run in runs] == ["local", "docker", "local"]
    for tag in ("snapshot", "environment"):
        assert len({run.data.tags[f"mlflow_azure.{tag}"] for run in runs}) == 1
    models = [
        Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="outputs/model")).read_bytes()
        for run in runs
    ]
    assert len(set(models)) == 1
    assert {run.info.status for run in runs} == {"FINISHED"}
