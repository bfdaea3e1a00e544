"""The fixture that users import into their own ``conftest.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFTEST = "from mlflow_azure_backend.emulator.fixtures import azureml_workspace\n"
USERS_TEST = """
def test_it(azureml_workspace):
    assert azureml_workspace.environment()["MLFLOW_TRACKING_URI"].startswith("azureml://")
    assert azureml_workspace.control("GET", "/faults") == {"value": []}
"""


def test_users_have_a_workspace_as_a_fixture(nasty_path: Path) -> None:
    (nasty_path / "conftest.py").write_text(CONFTEST)
    (nasty_path / "test_users.py").write_text(USERS_TEST)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "test_users.py"]
    done = subprocess.run(argv, cwd=nasty_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout + done.stderr


def test_the_package_itself_needs_no_pytest() -> None:
    code = "import sys, mlflow_azure_backend.emulator; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
