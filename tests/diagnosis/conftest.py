"""What the tests of the diagnosis share: evidence made up or won by a real run, and the text of tracebacks."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlflow_azure_backend.diagnosis import Evidence
from mlflow_azure_backend.status import TerminationReason

TAIL = 64 * 1024


def evidence_of(log_tail: bytes, folder: Path, **known: Any) -> Evidence:
    """Evidence of a command that exited with 1, of which nothing else is known than what is given."""
    return replace(
        Evidence(
            exit_code=1,
            signal=None,
            reason=TerminationReason.EXIT_CODE.value,
            message=None,
            log_tail=log_tail,
            project_folder=folder,
            left_out=lambda _path: None,
            python_version=sys.version.split()[0],
            packages=None,
            environment_file=None,
            entry_point="main",
            parameters={},
            tracking_uri="",
            oom=None,
            max_rss=None,
            timeout=None,
            working_folder_is_snapshot=False,
        ),
        **known,
    )


@pytest.fixture(scope="session")
def evidence() -> Callable[..., Evidence]:
    return evidence_of


@pytest.fixture(scope="session")
def run_script() -> Callable[[Path, str, str], Evidence]:
    """Run a command beside a ``train.py`` and an MLproject that says so."""

    def run(folder: Path, command: str, source: str) -> Evidence:
        (folder / "train.py").write_text(textwrap.dedent(source).lstrip("\n"), encoding="utf-8")
        project = yaml.safe_dump({"entry_points": {"main": {"command": command}}}, width=1000)
        (folder / "MLproject").write_text(project, encoding="utf-8")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env={"PATH": path, "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode > 0
        return evidence_of(done.stdout[-TAIL:], folder, exit_code=done.returncode)

    return run


@pytest.fixture(scope="session")
def traceback_of() -> Callable[..., bytes]:
    """The text of an exception that was raised in a library, called by the first line of train.py."""

    def text(folder: Path, error: str, source: str = "main()", library: str | None = None) -> bytes:
        lines = [
            "Traceback (most recent call last):",
            f'  File "{folder}/train.py", line 1, in <module>',
            f"    {source}",
        ]
        if library is not None:
            lines += [f'  File "/env/lib/python3.11/site-packages/{library}", line 7, in f', "    g(x)"]
        return "\n".join([*lines, error, ""]).encode()

    return text
