"""What a user gets: the wheel in a clean environment, by pip and by uv, which resolve differently; then every door."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from uv import find_uv_bin

UV = find_uv_bin()
ROOT = Path(__file__).parent.parent
HELLO = ROOT / "sample_projects" / "hello_world"
DOORS = {
    "every module": """
import importlib, pkgutil, mlflow_azure_backend
for module in pkgutil.walk_packages(mlflow_azure_backend.__path__, "mlflow_azure_backend."):
    if ".emulator." in module.name:
        continue  # what it needs is an extra, which is not installed here
    importlib.import_module(module.name)
    print(module.name)
""",
    "every entry point": """
from importlib.metadata import entry_points
for point in entry_points(group="mlflow.project_backend"):
    print(point.name, point.load().__name__)
""",
}


def run(*command: str | Path, cwd: Path | None = None, variables: Mapping[str, str] | None = None) -> str:
    """The output of a command that must end well; its words are the failure's when it does not."""
    # Not PYTHONPATH, and not PYTHONDONTWRITEBYTECODE, which makes every start of MLflow compile it again.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**inherited, **(variables or {})})
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this work tree."""
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module", params=["uv", "pip"])
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of a virtual environment that holds the wheel and what the installer chose for it."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    if request.param == "uv":
        run(UV, "venv", "--quiet", "--python", sys.executable, venv)
        run(UV, "pip", "install", "--quiet", "--python", venv, wheel)
    else:
        run(sys.executable, "-m", "venv", venv)
        run(venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile", wheel)
    return venv / "bin"


@pytest.mark.package_index
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mlflow_azure_backend").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert set(names) - metadata == sources
    assert "mlflow_azure_backend/py.typed" in names
    assert [name for name in metadata if name.endswith("/licenses/LICENSE")]


@pytest.mark.package_index
@pytest.mark.timeout(1200)
def test_every_door_opens(installed: Path, tmp_path: Path) -> None:
    python = installed / "python"
    run(UV, "pip", "check", "--quiet", "--python", python)
    modules = run(python, "-I", "-c", DOORS["every module"]).splitlines()
    assert {"mlflow_azure_backend.backend", "mlflow_azure_backend.compute.local"} < set(modules)
    points = run(python, "-I", "-c", DOORS["every entry point"]).splitlines()
    assert sorted(points) == ["azure AzureMLBackend", "azureml AzureMLBackend"]

    private = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_AZURE_HOME": str(tmp_path / "home"),
        "MLFLOW_AZURE_CACHE": str(tmp_path / "cache"),
        "PATH": f"{installed}{os.pathsep}{os.environ['PATH']}",
    }
    version = run(installed / "mlflow-azure", "--version", variables=private)
    assert version.split()[-1] in next(installed.parent.glob("lib/*/site-packages/mlflow_azure_backend-*")).name
    findings = json.loads(run(installed / "mlflow-azure", "doctor", "--json", cwd=tmp_path, variables=private))
    assert next(finding for finding in findings if finding["name"] == "plugin")["good"]
    ran = run(
        installed / "mlflow", "run", HELLO, "--backend", "azureml", "-P", "name=you", cwd=tmp_path, variables=private
    )
    assert ran == "hello, you\n"
    (listed,) = json.loads(run(installed / "mlflow-azure", "list", "--json", variables=private))
    assert listed["status"] == "FINISHED"
