"""Jobs as Azure ML starts them: the zip and its order, in a working folder with a nasty name, as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mlflow_azure_backend.runtime import report
from mlflow_azure_backend.runtime.order import ORDER_VARIABLE, JobOrder
from mlflow_azure_backend.workspace.travelling import RUNTIME_FILE, job_command, runtime_zip
from tests.conda_channel import conda_cache, conda_forge, conda_server
from tests.environment.conftest import cache, folder, index, lab, machine, make_wheel, read, read_conda, uv_cache

__all__ = ["cache", "conda_cache", "conda_forge", "conda_server", "folder", "index", "lab", "machine"]
__all__ += ["make_wheel", "read", "read_conda", "uv_cache"]


@dataclass
class Node:
    """One node's working folder of one job.

    Attributes:
        working: The folder.
        variables: What Azure ML sets.
        python: Folder of the image's ``python3``.
    """

    working: Path
    variables: dict[str, str]
    python: Path = field(default_factory=lambda: Path(sys.executable).parent)

    def lay(self, files: Mapping[str, bytes]) -> None:
        for name, content in {RUNTIME_FILE: runtime_zip(), **files}.items():
            path = self.working / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def start(self, command: str, order: JobOrder | None = None, /, **variables: str) -> subprocess.Popen[bytes]:
        """What Azure ML does with a job's command."""
        if not (self.working / RUNTIME_FILE).exists():
            self.lay({})
        environ = {
            "PATH": f"{self.python}:/usr/local/bin:/usr/bin:/bin",
            ORDER_VARIABLE: (order or JobOrder()).to_json(),
            **self.variables,
            **variables,
        }
        return subprocess.Popen(
            ["/bin/bash", "-c", job_command(command)],
            cwd=self.working,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, command: str, order: JobOrder | None = None, /, **variables: str) -> Done:
        process = self.start(command, order, **variables)
        out, err = process.communicate(timeout=200)
        return Done(process.returncode, out.decode(), err.decode())

    def report(self, rank: int = 0) -> report.JobReport:
        return report.from_json((self.working / report.report_name(rank)).read_text())


@dataclass
class Done:
    """What became of a job's process."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The last line that it wrote, read as JSON."""
        return json.loads(self.out.splitlines()[-1])


def pythons() -> list[Path]:
    """The folder of this Python, and of an old one where there is one."""
    old = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return [Path(sys.executable).parent, *sorted(path.parent for path in old.glob("3.8.*/bin/python3"))]


@pytest.fixture
def node(nasty_path: Path, tmp_path: Path) -> Node:
    return Node(nasty_path, {"MLFLOW_AZURE_CACHE": str(tmp_path / "node"), "HOME": str(tmp_path)})
