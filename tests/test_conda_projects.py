"""A conda.yaml project from one end to the other, on a machine without conda."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
import pytest

from mlflow_azure_backend.config import load_config
from mlflow_azure_backend.errors import ConfigError
from tests.conda_channel import PLACEHOLDER, PYTHON, CondaServer, conda_cache, conda_forge, conda_server

__all__ = ["conda_cache", "conda_forge", "conda_server"]
Write = Callable[[Mapping[str, str]], Path]
SAMPLE = Path(__file__).parent.parent / "sample_projects/sklearn_conda"
MINOR = ".".join(PYTHON.split(".")[:2])
OURS = str(Path(sys.executable).parent / "mlflow-azure")


def ask(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([OURS, *arguments], capture_output=True, text=True, timeout=600, cwd=cwd)


def test_a_project_runs_is_recorded_and_repeated_elsewhere(
    store: str,
    write_project: Write,
    conda_server: CondaServer,
    conda_forge: CondaServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    channel = conda_server.channel("greetings")
    channel.add("greet", "1.0", {"bin/greet": f'#!/bin/sh\necho "$GREETING from {PLACEHOLDER}"\n'})
    channel.index()
    conda_server.private.add("greetings")
    monkeypatch.setenv("CHANNEL_USER", conda_server.user)
    monkeypatch.setenv("CHANNEL_PASSWORD", conda_server.password)
    address = conda_server.url.replace("://", "://$CHANNEL_USER:$CHANNEL_PASSWORD@") + "/greetings"
    folder = write_project(
        {
            "MLproject": "conda_env: conda.yaml\nentry_points:\n  main: {command: greet}\n",
            "conda.yaml": f"channels: ['{address}']\nvariables: {{GREETING: hello}}\ndependencies: [greet]\n",
        }
    )
    done = ask("run", str(folder), "--experiment-name", "contract")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no python, 1 package, to be built" in done.stderr
    assert f"hello from {os.environ['MLFLOW_AZURE_CACHE']}/environments/" in done.stdout
    client = mlflow.MlflowClient()
    (old,) = client.search_runs([client.get_experiment_by_name("contract").experiment_id])
    assert old.data.tags["mlflow.project.env"] == "conda"
    artifacts = Path(client.download_artifacts(old.info.run_id, "", str(tmp_path)))
    lock = (artifacts / "environment/conda-lock.yml").read_text()
    assert f"{conda_server.url}/greetings/noarch/greet-1.0-0.conda" in lock

    for name in ("MLFLOW_AZURE_HOME", "MLFLOW_AZURE_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / f"other {name}"))
    empty = tmp_path / "an empty folder"
    empty.mkdir()
    again = ask("rerun", old.info.run_id, cwd=empty)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"hello from {tmp_path}/other MLFLOW_AZURE_CACHE/environments/" in again.stdout
    runs = client.search_runs([old.info.experiment_id])
    assert len({run.data.tags["mlflow_azure.environment"] for run in runs}) == 1
    said = done.stdout + done.stderr + again.stdout + again.stderr + json.dumps([run.to_dictionary() for run in runs])
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert b"canary" not in b"".join(kept) + said.encode()


def test_credentials_of_channels_are_refused_in_the_configuration() -> None:
    def load(channel: str) -> None:
        config = {"environment": {"channels": [channel]}}
        load_config(config, project_folder=None, environ={})

    load("https://$USER:${PASSWORD}@example.org/channel")
    load("https://example.org/t/$TOKEN/channel")
    for channel in ("https://me:canary@example.org/channel", "https://example.org/t/canary/channel"):
        with pytest.raises(ConfigError, match="credentials would be stored with the run") as caught:
            load(channel)
        assert "canary" not in str(caught.value)


@pytest.mark.timeout(900)
@pytest.mark.package_index
def test_the_sample_project_is_locked_run_listed_and_pruned(
    store: str, tmp_path: Path, conda_forge: CondaServer
) -> None:
    project = tmp_path / "sklearn conda"
    shutil.copytree(SAMPLE, project)
    locked = ask("lock", str(project))
    assert locked.returncode == 0, locked.stderr
    facts = json.loads(ask("lock", str(project), "--check", "--json").stdout)
    assert {"python", "numpy", "scikit-learn", "mlflow"} <= facts["packages"].keys()
    done = ask("run", str(project), "--experiment-name", "contract")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the environment is locked by conda-lock.yml" in done.stderr
    assert f"bottles=178  in {os.environ['MLFLOW_AZURE_CACHE']}/environments/" in done.stdout
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("contract").experiment_id])
    assert run.data.metrics["accuracy"] > 0.9
    assert run.data.tags["mlflow_azure.environment"] == facts["key"]
    stored = Path(client.download_artifacts(run.info.run_id, "environment/conda-lock.yml", str(tmp_path)))
    assert stored.read_text() == (project / "conda-lock.yml").read_text()
    plan = ask("plan", str(project))
    assert f"python {MINOR}, {len(facts['packages'])} packages, cached" in plan.stderr

    (one,) = json.loads(ask("env", "list", "--json").stdout)
    assert (one["key"], one["state"], one["python"]) == (facts["key"][:32], "ready", PYTHON)
    assert ask("prune", "--older-than", "1d").stderr.startswith("· 0 environments removed")
    pruned = ask("prune", "--max-size", "1MB")
    assert (pruned.returncode, "1 environment removed, " in pruned.stderr) == (0, True)
    assert json.loads(ask("env", "list", "--json").stdout) == []
    assert ", to be built" in ask("plan", str(project)).stderr
