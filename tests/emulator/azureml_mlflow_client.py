"""What a user does with azureml-mlflow, in an environment that has nothing of ours; prints what came back as JSON.

``azureml_mlflow_client.py FOLDER all|resume|look RUN`` with an emulator's variables; ``FOLDER`` is empty and may be written to.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag

FOLDER = Path(sys.argv[1])
CLIENT = mlflow.MlflowClient()


def names(files: Iterable[Any]) -> list[str]:
    """Paths of a listing; a folder's ends with a slash."""
    return sorted(one.path + ("/" if one.is_dir else "") for one in files)


def contents(folder: str) -> dict[str, str]:
    """Texts below a folder by their paths in it."""
    found = Path(folder)
    return {one.relative_to(found).as_posix(): one.read_text() for one in sorted(found.rglob("*")) if one.is_file()}


def track() -> str:
    """A run with everything that can be logged."""
    mlflow.set_experiment("an experiment")
    with mlflow.start_run(run_name="first", tags={"colour": "blue"}) as run:
        mlflow.log_params({"alpha": 0.3, "quoted": 'it\'s "so"\nünd ☃'})
        mlflow.log_metric("loss", 2.0, step=0)
        batch = [Metric("loss", 1 / step, 1_700_000_000_000 + step, step) for step in range(1, 250)]
        CLIENT.log_batch(run.info.run_id, batch, [Param("many", "p")], [RunTag("many", "t")])
        data = FOLDER / "data"
        (data / "a folder").mkdir(parents=True)
        (data / "a folder" / "ü #1.txt").write_text("nested")
        (data / "plain.txt").write_text("plain")
        mlflow.log_artifact(str(data / "plain.txt"))
        mlflow.log_artifacts(str(data), "dir")
        mlflow.log_dict({"x": 1}, "d.json")
        with mlflow.start_run(nested=True, run_name="child"):
            mlflow.log_metric("loss", 9)
    return str(run.info.run_id)


def read(run_id: str) -> dict[str, object]:
    """All of it again."""
    run = CLIENT.get_run(run_id)
    uri = run.info.artifact_uri
    found = mlflow.search_runs(
        experiment_names=["an experiment"], filter_string="tags.colour = 'blue'", output_format="list"
    )
    # By artifact URI: with runs:/ MLFlow 3 also asks for logged models, and fails on the 404 as it does in Azure.
    return {
        "status": run.info.status,
        "artifact_uri": uri,
        "params": run.data.params,
        "metrics": run.data.metrics,
        "history": len(CLIENT.get_metric_history(run_id, "loss")),
        "tags": {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")},
        "found": [one.info.run_id for one in found],
        "root": names(CLIENT.list_artifacts(run_id)),
        "dir": names(mlflow.artifacts.list_artifacts(artifact_uri=f"{uri}/dir")),
        "downloaded": contents(mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/dir", dst_path=str(FOLDER))),
        "missing": failure(lambda: mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/none.txt")),
        "logged_models": failure(lambda: CLIENT.search_logged_models([run.info.experiment_id])),
    }


def register(run_id: str) -> dict[str, object]:
    """A model from the run and one from a local folder."""
    model = FOLDER / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {}\n")
    mlflow.log_artifacts(str(model), "model", run_id=run_id)
    CLIENT.create_registered_model("a-model", tags={"team": "x"})
    source = f"{CLIENT.get_run(run_id).info.artifact_uri}/model"
    first = CLIENT.create_model_version("a-model", source, run_id)
    second = CLIENT.create_model_version("a-model", model.as_uri())
    CLIENT.transition_model_version_stage("a-model", first.version, "Production")
    CLIENT.set_model_version_tag("a-model", first.version, "checked", "yes")
    return {
        "sources": [first.source, second.source],
        "stage": CLIENT.get_model_version("a-model", first.version).current_stage,
        "tags": CLIENT.get_model_version("a-model", first.version).tags,
        "production": [one.version for one in CLIENT.get_latest_versions("a-model", ["Production"])],
        "found": sorted(one.version for one in CLIENT.search_model_versions("name = 'a-model'")),
        "uri": CLIENT.get_model_version_download_uri("a-model", first.version),
        "files": [
            sorted(contents(mlflow.artifacts.download_artifacts(f"models:/a-model/{one.version}")))
            for one in (first, second)
        ],
        "renamed": failure(lambda: CLIENT.rename_registered_model("a-model", "other")),
    }


def failure(call: Callable[[], object]) -> str:
    """What the exception says."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "it did not fail"


def asynchronous() -> dict[str, float]:
    """Metrics that are sent by a route that azureml-mlflow alone has."""
    with mlflow.start_run() as run:
        mlflow.log_metrics({"late": 3.0}, synchronous=False)
        mlflow.flush_async_logging()
    metrics: dict[str, float] = CLIENT.get_run(run.info.run_id).data.metrics
    return metrics


def everything() -> dict[str, object]:
    """A run, what is read of it, and models."""
    run_id = track()
    return {"run_id": run_id, "read": read(run_id), "registered": register(run_id), "late": asynchronous()}


def resume() -> dict[str, object]:
    """Go on with the run that the variables name, as a job's code does."""
    (FOLDER / "inside.txt").write_text("from inside")
    with mlflow.start_run() as run:
        mlflow.log_metric("resumed", 1)
        mlflow.log_artifact(str(FOLDER / "inside.txt"))
    info = CLIENT.get_run(run.info.run_id)
    uri = f"{info.info.artifact_uri}/inside.txt"
    text = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri)).read_text()
    return {"run_id": run.info.run_id, "metrics": info.data.metrics, "artifact": text}


def look() -> dict[str, object]:
    """What there is of the run that is named third."""
    run = CLIENT.get_run(sys.argv[3])
    uri = run.info.artifact_uri
    return {
        "params": run.data.params,
        "metrics": run.data.metrics,
        "history": len(CLIENT.get_metric_history(run.info.run_id, "loss")),
        "root": names(CLIENT.list_artifacts(run.info.run_id)),
        "downloaded": contents(mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/dir", dst_path=str(FOLDER))),
    }


if __name__ == "__main__":
    print(json.dumps({"all": everything, "resume": resume, "look": look}[sys.argv[2]]()))
