"""A lock as ``pylock.toml`` (PEP 751), to lie beside a project and be read by every tool.

uv writes it, from the exact packages that were resolved before. A table of ours says which wish it answers.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from mlflow_azure_backend.environment.carried import TABLE, wish
from mlflow_azure_backend.environment.indexes import has_credentials
from mlflow_azure_backend.environment.interpreters import find_python, platform_tag
from mlflow_azure_backend.environment.uv_process import run_uv, uv_failure
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from mlflow_azure_backend.environment.lock import EnvironmentLock
    from mlflow_azure_backend.environment.spec import EnvironmentSpec

_ADDRESS: Final = re.compile(r'\burl = ("[^"\n]*")')


def pylock_of(lock: EnvironmentLock, spec: EnvironmentSpec) -> str:
    """The text of a ``pylock.toml`` beside the project: the same for the same lock and index.

    Args:
        lock: What ``spec`` was resolved to.
        spec: What the project wants.

    Raises:
        EnvironmentUnavailable: The index cannot be asked, or an address must not or cannot stand in such a file.
    """
    python = find_python(lock.python_version, environ=os.environ, implementation=lock.implementation)
    command = ["pip", "compile", "-", "--no-deps", "--format", "pylock.toml", "--no-header", "--no-annotate"]
    done = run_uv(
        [*command, "--python", str(python.executable)],
        environ={**os.environ, **lock.sources.variables},
        text="".join(f"{line}\n" for line in lock.sources.lines) + lock.text,
    )
    if done.returncode != 0:
        raise uv_failure(done.stderr, origins={}, folder=spec.folder)
    body = _ADDRESS.sub(lambda match: _portable(json.loads(match[1]), spec.folder), done.stdout)
    said = {"wish": wish(spec), "python": python.version, "platform": platform_tag()}
    table = "".join(f"{name} = {json.dumps(value)}\n" for name, value in said.items())
    return f"{body.rstrip()}\n\n[tool.{TABLE}]\n{table}"


def _portable(address: str, folder: Path) -> str:
    """An address as the file may have it: a file of the project's by its path there."""
    if has_credentials(address):
        what = "the index gives addresses with credentials in them, which would stand in the lock"
        raise EnvironmentUnavailable(what, next_step="run without a lock beside the project")
    parts = urlsplit(address)
    if parts.scheme != "file":
        return f"url = {json.dumps(address)}"
    path = Path(unquote(parts.path))
    if not path.is_relative_to(folder.resolve()):
        what = f"{path} is a file of this machine, which no lock beside a project can name"
        step = "name an index for this call, UV_DEFAULT_INDEX=https://HOST/simple, or run without a lock"
        raise EnvironmentUnavailable(what, next_step=step)
    return f"path = {json.dumps(path.relative_to(folder.resolve()).as_posix(), ensure_ascii=False)}"
