"""A conda prefix from its lock: ``installing.py`` in a process of its own."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import TYPE_CHECKING, Final

from mlflow_azure_backend.environment.conda.channels import authentication
from mlflow_azure_backend.environment.conda.helper import helper
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_azure_backend.environment.cache import Progress
    from mlflow_azure_backend.environment.lock import EnvironmentLock

_INSTALLER: Final = "mlflow_azure_backend.environment.installing"


def build_conda(path: Path, lock: EnvironmentLock, descriptor: int, on_progress: Progress) -> tuple[str, ...]:
    """Install a lock; returns what the user should know of it.

    Args:
        path: The prefix to make; on any error the caller removes it.
        lock: Of the kind ``conda``.
        descriptor: The lock file's, inherited by the installer so that it keeps the lock if it outlives us.
        on_progress: Told about each stage.

    Raises:
        EnvironmentUnavailable: a package cannot be had, or is not what was locked.
    """
    notes = []
    options = "".join(f"{line}\n" for line in lock.sources.lines)
    with (
        tempfile.TemporaryFile() as file,
        authentication(lock.sources.channels, os.environ) as (variables, inherited),
    ):
        file.write(lock.text.encode("utf-8"))
        file.flush()
        command = [sys.executable, "-W", "ignore", "-m", _INSTALLER, f"/dev/fd/{file.fileno()}", str(path)]
        with helper(
            command,
            options.encode("utf-8"),
            cache=path.parent,
            variables={**lock.sources.variables, **variables},
            inherited=(*inherited, descriptor, file.fileno()),
        ) as process:
            for line in process.lines():
                if line.startswith("! "):
                    notes.append(line[2:])
                else:
                    on_progress(line)
            if process.process.returncode != 0:
                raise _failure(process.last_words())
    return tuple(notes)


def _failure(reason: str) -> EnvironmentUnavailable:
    step = None
    if "is not the one that was locked" in reason or "Hash mismatch" in reason:
        step = "resolve again with `mlflow-azure lock --upgrade`"
    elif "error sending request" in reason or "Failed to fetch" in reason:
        step = "check the network, and the settings of rattler, pip or uv"
    return EnvironmentUnavailable(reason, next_step=step)
