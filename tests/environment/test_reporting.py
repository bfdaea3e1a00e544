"""Whether a job can report to MLflow is known before it starts."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_azure_backend.environment.python_lock import current_lock
from mlflow_azure_backend.environment.reporting import notes_on_reporting, with_mlflow
from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.environment.spec import EnvironmentSpec
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from tests.environment.conftest import MakeWheel, ReadProject

MINOR = ".".join(importlib.metadata.version("mlflow").split(".")[:2])


@pytest.mark.parametrize(
    ("lines", "uri", "expected"),
    [
        (["alpha"], None, ["python_env.yaml has no mlflow, so nothing that the program logs will be tracked; add"]),
        (["mlflow"], "sqlite:///x.db", []),
        (["mlflow-skinny"], "http://h", []),
        (["mlflow-skinny"], "sqlite:///x.db", ["python_env.yaml has mlflow-skinny without sqlalchemy and alembic"]),
        (["mlflow-skinny", "sqlalchemy", "alembic"], "postgresql+psycopg2://u@h/x", []),
        (["mlflow", "azureml-mlflow"], None, ["python_env.yaml:5: azureml-mlflow is not needed: this backend itself"]),
        (["mlflow", "azureml_core"], None, ["python_env.yaml:5: azureml-core is not needed: its Run.get_context()"]),
    ],
)
def test_what_cannot_be_reported_is_said(
    cache: Path, make_wheel: MakeWheel, read: ReadProject, lines: list[str], uri: str | None, expected: list[str]
) -> None:
    for name in ("alpha", "mlflow", "mlflow_skinny", "sqlalchemy", "alembic", "azureml_mlflow", "azureml_core"):
        make_wheel(name, "1.0")
    spec = read(*lines)
    lock = resolve(spec, cache=cache)
    notes = list(notes_on_reporting(lock, spec, file="python_env.yaml", tracking_uri=uri))
    assert [note[: len(text)] for note, text in zip(notes, expected, strict=True)] == expected


def test_the_current_interpreter_is_not_judged(tmp_path: Path) -> None:
    spec = EnvironmentSpec("current", tmp_path)
    assert with_mlflow(spec) is spec
    assert list(notes_on_reporting(current_lock(), spec, file=None, tracking_uri="sqlite:///x")) == []


def test_mlflow_is_put_in_when_asked_and_resolved_with_the_rest(
    cache: Path, make_wheel: MakeWheel, read: ReadProject
) -> None:
    for version in ("1.0", f"{MINOR}.0", f"{MINOR}.9", "99.0"):
        make_wheel("mlflow", version)
    make_wheel("alpha", "1.0", requires=("mlflow<2",))
    make_wheel("beta", "1.0")
    assert resolve(with_mlflow(read("beta")), cache=cache).version_of("mlflow") == f"{MINOR}.9"
    own = read("beta", "mlflow==1.0")
    assert with_mlflow(own) is own
    with pytest.raises(EnvironmentUnavailable, match=r"environment\.inject_mlflow: no versions fit together"):
        resolve(with_mlflow(read("alpha")), cache=cache)


def test_mlflow_is_put_into_a_conda_environment_by_pip(
    cache: Path, make_wheel: MakeWheel, read_conda: ReadProject
) -> None:
    for version in (f"{MINOR}.9", "99.0"):
        make_wheel("mlflow", version)
    make_wheel("gamma", "1.0")
    lock = resolve(with_mlflow(read_conda("python", pip=("gamma",))), cache=cache)
    assert [(one.manager, one.version) for one in lock.packages if one.name == "mlflow"] == [("pip", f"{MINOR}.9")]
