"""Our doors for built environments: a zip that MLflow finds on PYTHONPATH, and that asks this interpreter for the rest.

The project's environment holds what the project asked for and nothing else, so this package and its dependencies cannot
be put there. A zip can be laid beside it, and serves every Python and every MLflow: its project backend hands over to
this interpreter, and what answers for ``azureml://`` is what travels into jobs of a workspace.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_azure_backend import __version__
from mlflow_azure_backend.environment.cache import private_folder
from mlflow_azure_backend.files import write_durably
from mlflow_azure_backend.runtime import doors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_azure_backend.environment.lock import EnvironmentLock

_DISTRIBUTION: Final = "mlflow-azure-backend"
_MODULE: Final = "mlflow_azure_delegate"
_PYTHON_VARIABLE: Final = "MLFLOW_AZURE_PYTHON"
"""``delegate.PYTHON_VARIABLE``; that file stands apart, for it imports MLflow."""
_RUNTIME: Final = "mlflow_azure_runtime"
_ENTRY_POINTS: Final = f"""{doors.entry_points(_RUNTIME)}[mlflow.project_backend]
azureml = {_MODULE}:DelegatingBackend
azure = {_MODULE}:DelegatingBackend
"""


def with_plugin(variables: Mapping[str, str], environment: EnvironmentLock, *, cache: Path) -> dict[str, str]:
    """The variables of a process whose MLflow is to know our backend.

    Args:
        variables: The process's own.
        environment: What it runs in. One that has this package, or no MLflow, needs nothing.
        cache: The cache's folder; the zip is made there once for each version.

    Raises:
        EnvironmentUnavailable: the cache belongs to somebody else or cannot be used.
        JournalError: the zip cannot be written.
    """
    has_ours = environment.kind == "current" or environment.version_of(_DISTRIBUTION) is not None
    if has_ours or environment.mlflow_version is None:
        return dict(variables)
    plugin = str(_ensure_zip(cache.absolute() / "plugins"))
    before = [part for part in variables.get("PYTHONPATH", "").split(os.pathsep) if part not in ("", plugin)]
    # Last, so that nothing of the project's own can be hidden by it.
    return {**variables, "PYTHONPATH": os.pathsep.join((*before, plugin)), _PYTHON_VARIABLE: sys.executable}


def _ensure_zip(folder: Path) -> Path:
    content = _zip()
    path = private_folder(folder) / f"{_MODULE}-{hashlib.sha256(content).hexdigest()[:12]}.zip"
    if not path.is_file() or path.read_bytes() != content:
        write_durably(path, content)
    return path


def _zip() -> bytes:
    """The same bytes for the same version of this package."""
    metadata = f"{_MODULE}-{__version__}.dist-info"
    travelling = {f"{_RUNTIME}/{path.name}": path for path in sorted(Path(doors.__file__).parent.glob("*.py"))}
    files = {
        **{name: path.read_text(encoding="utf-8") for name, path in travelling.items()},
        f"{_MODULE}.py": (Path(__file__).parent.parent / "delegate.py").read_text(encoding="utf-8"),
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {_MODULE}\nVersion: {__version__}\n",
        f"{metadata}/entry_points.txt": _ENTRY_POINTS,
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return stream.getvalue()
