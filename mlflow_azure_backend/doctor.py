"""What is right and wrong with this installation, and the one line that mends each fault."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from mlflow_azure_backend import __version__
from mlflow_azure_backend.errors import BackendError
from mlflow_azure_backend.files import make_private_folder
from mlflow_azure_backend.journal import Journal, cache_home, state_home
from mlflow_azure_backend.planning import counted
from mlflow_azure_backend.redaction import without_credentials

_GROUP: Final = "mlflow.project_backend"
_OURS: Final = "mlflow_azure_backend.backend:AzureMLBackend"
_NEEDED: Final = {"git": "only needed for git projects: apt-get install git"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        good: Whether it is as it should be.
        found: What was found.
        fix: The line that mends it; None when there is nothing to mend.
    """

    name: str
    good: bool
    found: str
    fix: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same, for JSON."""
        return asdict(self)


def examine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at everything; quick things first."""
    yield Finding("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield _version()
    yield _plugin()
    yield from (_tool(name, fix) for name, fix in _NEEDED.items())
    yield _folder("state", state_home(environ))
    yield _folder("cache", cache_home(environ))
    yield _environments(cache_home(environ))
    yield _unwritten(Journal(state_home(environ)))
    yield _tracking()


def _version() -> Finding:
    mlflow = metadata.version("mlflow")
    return Finding("versions", True, f"mlflow-azure-backend {__version__}, mlflow {mlflow}")


def _plugin() -> Finding:
    """MLflow takes the first project backend of a name, and azureml-mlflow has the same one."""
    found = [point for point in metadata.entry_points(group=_GROUP) if point.name == "azureml"]
    if not found:
        return Finding(
            "plugin", False, "MLflow does not find `azureml`", "pip install --force-reinstall mlflow-azure-backend"
        )
    rivals = [point for point in found if point.value != _OURS]
    owners = ", ".join(sorted({point.dist.name for point in rivals if point.dist is not None}))
    if found[0].value != _OURS:
        return Finding(
            "plugin",
            False,
            f"`--backend azureml` reaches {owners}, not this package; `--backend azure` always reaches this one",
            "pip uninstall azureml-mlflow",
        )
    if rivals:
        return Finding(
            "plugin", False, f"{owners} claims `azureml` too; this package wins now", "pip uninstall azureml-mlflow"
        )
    return Finding("plugin", True, "`--backend azureml` reaches this package")


def _tool(name: str, fix: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, path is not None, path or "is not on the PATH", None if path else fix)


def _folder(name: str, folder: Path) -> Finding:
    """State and caches must be private and writable."""
    try:
        make_private_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (BackendError, OSError) as error:
        return Finding(
            name, False, f"{folder}: {error}", f"export MLFLOW_AZURE_{name.upper().replace('STATE', 'HOME')}=…"
        )
    free = shutil.disk_usage(folder).free
    return Finding(name, True, f"{folder}, {free / 1e9:.0f} GB free")


def _environments(cache: Path) -> Finding:
    """How many are built; how large they are, `env list` says, which reads every folder of theirs."""
    from mlflow_azure_backend.environment.inventory import count_whole

    try:
        count = count_whole(cache)
    except BackendError as error:
        return Finding("environments", False, f"{cache}: {error.what}", error.next_step)
    return Finding("environments", True, f"{counted(count, 'environment')} built in {cache}")


def _unwritten(journal: Journal) -> Finding:
    overdue = sum(run.is_overdue for run in journal.active())
    if overdue:
        return Finding(
            "runs", False, f"the ends of {overdue} runs are not in their tracking stores", "mlflow-azure sync"
        )
    return Finding("runs", True, f"{len(journal.active())} active")


def _tracking() -> Finding:
    import mlflow

    from mlflow_azure_backend import tracking_store

    uri = tracking_store.absolute_tracking_uri(mlflow.get_tracking_uri(), Path.cwd())
    try:
        tracking_store.check_store(uri)
    except BackendError as error:
        return Finding("tracking", False, error.what, f"cannot use {without_credentials(uri)}: {error.next_step}")
    return Finding("tracking", True, without_credentials(uri))
