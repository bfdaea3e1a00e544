"""The zoo again, through the real backend: a project is refused before anything is made, or its run says what went wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import ExecutionException

from tests.diagnosis.test_zoo import PROJECTS, ZOO

SPECS = {name: json.loads((ZOO / name / "fix.json").read_text(encoding="utf-8")) for name in PROJECTS}
ORDINARY = [
    name
    for name, spec in SPECS.items()
    if not set(spec.get("conditions", {})) - {"parameters", "timeout"} and not (ZOO / name / "python_env.yaml").exists()
]
"""Those that need nothing but this interpreter."""


def test_every_project_is_refused_or_says_cause_place_and_fix(store: str, home: Path, tmp_path: Path) -> None:
    client = mlflow.MlflowClient()
    said, refused, wrong = [], [], []
    for name in ORDINARY:
        spec = SPECS[name]
        folder = tmp_path / "projects" / name
        shutil.copytree(ZOO / name, folder)
        experiment = client.create_experiment(name, artifact_location=(tmp_path / name).as_uri())
        config = {"compute": "local", "environment": "current"}
        conditions = spec.get("conditions", {})
        config |= {"timeout": conditions["timeout"]} if "timeout" in conditions else {}
        with pytest.raises(ExecutionException) as failure:
            mlflow.projects.run(
                str(folder),
                backend="azureml",
                backend_config=config,
                experiment_id=experiment,
                parameters=dict(conditions.get("parameters", {})),
            )
        runs = client.search_runs([experiment])
        if not runs:
            assert "\n" not in str(failure.value)
            refused.append(name)
            continue
        (run,) = runs
        tags, expected = run.data.tags, spec["expect"]
        said.append(name)
        if run.info.status != "FAILED" or expected["cause contains"] not in tags.get("mlflow_azure.cause", ""):
            wrong.append((name, "cause", tags.get("mlflow_azure.cause")))
        elif tags.get("mlflow_azure.at") != expected["at"]:
            wrong.append((name, "at", tags.get("mlflow_azure.at")))
        elif expected.get("fix contains", "") not in tags.get("mlflow_azure.fix", ""):
            wrong.append((name, "fix", tags.get("mlflow_azure.fix")))
    print(f"{len(said)} projects failed and said why, {len(refused)} were refused: {', '.join(refused)}")
    assert wrong == []
    assert len(said) >= 30
    assert refused
    assert not [path for path in (home / "runs").iterdir() if not (path / "recorded.json").exists()]
