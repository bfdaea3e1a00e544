"""What travels into a job beside the project's files: the runtime as one zip, and what its environment is made from.

The zip holds ``runtime/`` under a name of its own, so that it meets no installed copy of this package, and the sealed
installer. MLflow finds its entry points when it is on PYTHONPATH, and ``python3 runtime.zip`` runs a job's command.
"""

from __future__ import annotations

import importlib.metadata
import io
import shlex
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_azure_backend import __version__, runtime
from mlflow_azure_backend.environment import installing
from mlflow_azure_backend.environment.indexes import has_credentials
from mlflow_azure_backend.errors import EnvironmentUnavailable
from mlflow_azure_backend.runtime import doors
from mlflow_azure_backend.runtime.order import FOLDER, LockedEnvironment

if TYPE_CHECKING:
    from mlflow_azure_backend.environment.lock import EnvironmentLock

RUNTIME_FILE: Final = f"{FOLDER}/runtime.zip"
_PACKAGE: Final = "mlflow_azure_runtime"
_MAIN: Final = f"""import sys
if sys.version_info < (3, 8):
    sys.exit("mlflow-azure: this image's python3 is %d.%d, and a job needs 3.8 or newer; name another image"
             % sys.version_info[:2])
from {_PACKAGE}.job import main
main(sys.argv[1:])
"""
"""Readable by Python 2, too."""


def job_command(command: str, variables: Mapping[str, str] | None = None) -> str:
    """The command of the Azure ML job that runs ``command``, a POSIX shell text; it shows in the studio.

    Azure ML's own ``${{inputs.NAME}}`` may stand in it, and in the variables: a path that Azure ML puts there has no
    quotes.

    Args:
        command: What is to be run.
        variables: What must hold in it and only Azure ML knows, such as where an input is; None: nothing.
    """
    words = (command, *(f"{name}={value}" for name, value in (variables or {}).items()))
    return f"python3 -I {RUNTIME_FILE} {' '.join(shlex.quote(word) for word in words)}"


def locked_environment(lock: EnvironmentLock, *, kept_in: str | None) -> LockedEnvironment:
    """The order to install a lock at the job's start; its files are ``lock_files``.

    Args:
        lock: Of the kind ``python`` or ``conda``.
        kept_in: The job's output for packed prefixes; None: they are not kept.
    """
    is_conda = lock.kind == "conda"
    needed = ("uv", "py-rattler") if is_conda else ("uv",)
    return LockedEnvironment(
        key=lock.key,
        kind=lock.kind,
        lock=lock.file_name,
        installers={name: importlib.metadata.version(name) for name in needed},
        python=None if is_conda else ".".join(str(lock.python_version).split(".")[:2]),
        implementation=lock.implementation,
        variables=dict(lock.sources.elsewhere().variables),
        kept_in=kept_in,
    )


def lock_files(lock: EnvironmentLock, project: Path, rattler_config: bytes | None) -> dict[str, bytes]:
    """What the job's start needs to install a lock, by the path in the job's code.

    Args:
        lock: Of the kind ``python`` or ``conda``.
        project: The project's folder: wheels in it are in the job's code, too.
        rattler_config: The user's ``config.toml`` of rattler; None when there is none.

    Raises:
        EnvironmentUnavailable: The packages are where only a password leads, and no password may stand in a job.
    """
    sources = lock.sources.elsewhere(project)
    if sources.channels or sources.secret_variables or any(has_credentials(line) for line in sources.lines):
        raise EnvironmentUnavailable(
            "its packages are behind a password, which must not stand in a job's files",
            next_step='name an image that has the environment: "environment": {"image": NAME}',
        )
    files = {lock.file_name: lock.text.encode()}
    if sources.lines:
        files["indexes.txt"] = "".join(f"{line}\n" for line in sources.lines).encode()
    if lock.kind == "conda" and rattler_config is not None:
        files["config.toml"] = rattler_config
    return {f"{FOLDER}/{name}": content for name, content in files.items()}


@lru_cache
def runtime_zip() -> bytes:
    """The runtime: the same bytes for the same version of this package, on every system."""
    here = Path(str(runtime.__file__)).parent
    sources = {path.name: path for path in here.glob("*.py")}
    sources["installing.py"] = Path(str(installing.__file__))
    files = {f"{_PACKAGE}/{name}": path.read_text(encoding="utf-8") for name, path in sources.items()}
    metadata = f"{_PACKAGE}-{__version__}.dist-info"
    files |= {
        "__main__.py": _MAIN,
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {_PACKAGE}\nVersion: {__version__}\n",
        f"{metadata}/entry_points.txt": doors.entry_points(_PACKAGE),
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:  # zlib's bytes differ between its versions
        for name, text in sorted(files.items()):
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, text.encode())
    return stream.getvalue()
