"""Seeded training gives the same here and in a container: metrics, step by step, and the bytes of what it leaves."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest

SAMPLES = Path(__file__).parent.parent.parent / "sample_projects"

pytestmark = pytest.mark.docker


def train(
    project: Path, target: str, config: Mapping[str, Any], folder: Path, manager: str | None = None, **parameters: Any
) -> None:
    """Run it in an experiment of its own."""
    mlflow.create_experiment(target, artifact_location=(folder / target).as_uri())
    mlflow.projects.run(
        str(project),
        backend="azureml",
        backend_config=dict(config),
        parameters=parameters,
        experiment_name=target,
        env_manager=manager,
    )


def metrics_of(target: str) -> list[tuple[str, list[float]]]:
    """The history of each metric of each run of an experiment."""
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name(target).experiment_id])
    return sorted(
        (key, [metric.value for metric in client.get_metric_history(run.info.run_id, key)])
        for run in runs
        for key in run.data.metrics
    )


def digests_of(folder: Path) -> list[tuple[str, str]]:
    """Of what training left: files of ``outputs``, models, other artifacts."""
    ours = {"logs", "snapshot", "environment"}
    named = {"MLmodel", "registered_model_meta"}  # they name the run and the time
    found = [path for path in folder.rglob("*") if path.is_file() and not ours & set(path.parts)]
    return sorted((path.name, digest) for path in found if path.name not in named for digest in _digests(path))


def _digests(path: Path) -> list[str]:
    """Of a file; of a model that skops wrote, which holds times and addresses of memory, those of its arrays."""
    if path.suffix != ".skops":
        return [hashlib.sha256(path.read_bytes()).hexdigest()]
    with zipfile.ZipFile(path) as model:
        arrays = [name for name in model.namelist() if name.endswith(".npy")]
        assert arrays
        return [hashlib.sha256(model.read(name)).hexdigest() for name in arrays]


@pytest.mark.parametrize(
    ("sample", "parameters", "left"),
    [
        ("docker_env", {"trials": 1000}, {"estimate.json"}),
        ("multi_step", {}, {"patients.csv"}),
        ("sklearn_diabetes", {"epochs": 3}, {"rmse.png", "requirements.txt"}),
    ],
)
def test_a_sample_project_leaves_the_same_here_and_in_a_container(
    sample: str,
    parameters: dict[str, Any],
    left: set[str],
    store: str,
    own_python_in_docker: dict[str, Any],
    base_image: str,
    tmp_path: Path,
) -> None:
    project = tmp_path / sample
    shutil.copytree(SAMPLES / sample, project)
    declared = (project / "MLproject").read_text().replace("mlflow-azure/sample-python", base_image)
    (project / "MLproject").write_text(declared)
    train(project, "local", {"compute": "local", "environment": "current"}, tmp_path, "local", **parameters)
    shutil.rmtree(project / "outputs", ignore_errors=True)
    train(project, "docker", own_python_in_docker, tmp_path, "local", **parameters)
    assert metrics_of("local") == metrics_of("docker")
    assert digests_of(tmp_path / "local") == digests_of(tmp_path / "docker")
    assert left <= {name for name, _ in digests_of(tmp_path / "docker")}
