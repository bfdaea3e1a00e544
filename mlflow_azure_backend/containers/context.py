"""From a lock to what ``docker build`` builds its image from: a function of values, the same for every builder.

The project's code is not in it, so a change of code builds nothing; nor is a credential: a build gets those as secrets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mlflow_azure_backend.environment import installing
from mlflow_azure_backend.environment.indexes import Sources, has_credentials
from mlflow_azure_backend.environment.lock import EnvironmentLock

PREFIX: Final = "/opt/mlflow-azure/environment"
"""Where the environment is in the image."""

ACTIVATE: Final = "/opt/mlflow-azure/lock/activate.sh"
"""In the image of a conda environment, what a job's shell reads first: the scripts of ``activate.d``."""

_ACTIVATE: Final = f"""for script in {PREFIX}/etc/conda/activate.d/*.sh; do
  [ ! -r "$script" ] || . "$script"
done
"""
_CERTIFICATES: Final = "SSL_CERT_FILE"
_INSTALLER: Final = "/tmp/installer"  # noqa: S108 - in the image that is being built, and gone before that is whole


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What an image is built from.

    Attributes:
        files: Name and content of each file, the ``Dockerfile`` among them.
        secrets: By its id, what the build must see and the image must not hold.
    """

    files: Mapping[str, bytes]
    secrets: Mapping[str, str]


def base_image_for(lock: EnvironmentLock) -> str:
    """The image to build on when nobody names one: the registry's own of the lock's Python.

    For a conda environment, which brings a Python of its own, it is only what the installer runs in.
    """
    if lock.kind == "conda":
        return "python:3.12-slim"
    major, minor = str(lock.python_version).split(".")[:2]
    return f"python:{major}.{minor}-slim"


def build_context(
    lock: EnvironmentLock,
    base: str,
    *,
    installers: Mapping[str, str],
    certificates: bytes | None = None,
    rattler_config: bytes | None = None,
    logins: Mapping[str, Any] | None = None,
) -> BuildContext:
    """What builds the environment of ``lock`` on ``base``.

    Args:
        lock: A lock of the kind ``python`` or ``conda``.
        base: The image to build on; it must have a Python with venv and pip, for a ``python`` lock the lock's own.
        installers: The versions of uv and py-rattler: those that made the lock.
        certificates: Of those who may sign the index's; None for the image's own.
        rattler_config: The user's ``config.toml`` of rattler, which says where mirrors are; None when there is none.
        logins: What opens conda channels, as rattler's authentication file has it; None when nothing must be opened.
    """
    sources = lock.sources.elsewhere()
    secrets = _secrets(sources)
    if logins:
        secrets["channels"] = json.dumps(logins)
    files = {lock.file_name: lock.text.encode()}
    if lock.kind == "conda":
        files |= {"installing.py": Path(str(installing.__file__)).read_bytes(), "activate.sh": _ACTIVATE.encode()}
        if rattler_config is not None:
            files["config.toml"] = rattler_config
    if sources.lines and "indexes" not in secrets:
        files["indexes.txt"] = "".join(f"{line}\n" for line in sources.lines).encode()
    if certificates is not None:
        files["certificates.pem"] = certificates
    names = sorted(files)
    files["Dockerfile"] = _dockerfile(lock, base, installers, names, sorted(secrets), sources).encode()
    return BuildContext(files, secrets)


def _secrets(sources: Sources) -> dict[str, str]:
    secrets = {}
    if any(has_credentials(line) for line in sources.lines):
        secrets["indexes"] = "".join(f"{line}\n" for line in sources.lines)
    if hidden := sources.secret_variables:
        secrets["variables"] = "".join(f"export {name}={_quoted(value)}\n" for name, value in sorted(hidden.items()))
    return secrets


def _dockerfile(
    lock: EnvironmentLock,
    base: str,
    installers: Mapping[str, str],
    files: list[str],
    secrets: list[str],
    sources: Sources,
) -> str:
    mounts = "".join(f"--mount=type=secret,id={name} " for name in secrets)
    hidden = sources.secret_variables
    public = {name: value for name, value in sources.variables.items() if name not in hidden}
    if "certificates.pem" in files:
        public |= {"PIP_CERT": "certificates.pem", _CERTIFICATES: "certificates.pem"}
    indexes = "/run/secrets/indexes" if "indexes" in secrets else "indexes.txt" if "indexes.txt" in files else ""
    if lock.kind == "conda":
        needed, check, install = ["uv", "py-rattler"], [], _conda_steps(indexes, has_logins="channels" in secrets)
    else:
        needed, check, install = ["uv"], [_python_check(lock)], _python_steps(lock, indexes)
    wanted = " ".join(f"{name}=={installers[name]}" for name in needed)
    pip = f"{_INSTALLER}/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir"
    steps = [
        *check,
        *([". /run/secrets/variables"] if "variables" in secrets else []),
        *(f"export {name}={_quoted(value)}" for name, value in sorted(public.items())),
        f"python3 -m venv {_INSTALLER}",
        f"{pip} {f'--requirement {indexes} ' if indexes else ''}{wanted}",
        *install,
        f"rm -rf {_INSTALLER}",
    ]
    script = " \\\n && ".join(steps)
    return (
        f"FROM {base}\n"
        "USER 0:0\n"
        "WORKDIR /opt/mlflow-azure/lock\n"
        f"COPY {' '.join(files)} ./\n"
        f"RUN {mounts}{script}\n"
        f"ENV PATH={PREFIX}/bin:$PATH {_active(lock)}\n"
    )


def _python_steps(lock: EnvironmentLock, indexes: str) -> list[str]:
    steps = [f"python3 -m venv --without-pip {PREFIX}"]
    if not lock.packages:
        return steps
    options = ["--compile-bytecode", "--no-cache"]
    if all(package.hashes for package in lock.packages):
        options.append("--require-hashes")
    install = f"{_INSTALLER}/bin/uv pip sync - --python {PREFIX}/bin/python {' '.join(options)}"
    return [*steps, f"cat {indexes} {lock.file_name} | {install}".replace("cat  ", "cat ")]


def _conda_steps(indexes: str, *, has_logins: bool) -> list[str]:
    """The sealed installer; rattler's and uv's caches go with it."""
    caches = f"RATTLER_HOME=. RATTLER_CACHE_DIR={_INSTALLER}/rattler UV_CACHE_DIR={_INSTALLER}/uv"
    if has_logins:
        caches += " RATTLER_AUTH_FILE=/run/secrets/channels"
    command = f"{_INSTALLER}/bin/python installing.py --compile conda-lock.yml {PREFIX}"
    return [f"{caches} {command} < {indexes or '/dev/null'}"]


def _active(lock: EnvironmentLock) -> str:
    """The variables that activation sets, apart from PATH."""
    if lock.kind == "python":
        return f"VIRTUAL_ENV={PREFIX}"
    variables = {"CONDA_PREFIX": PREFIX, "CONDA_DEFAULT_ENV": PREFIX, "CONDA_SHLVL": "1"}
    variables |= installing.lock_variables(lock.text)
    return " ".join(f"{name}={_in_dockerfile(value)}" for name, value in variables.items())


def _in_dockerfile(value: str) -> str:
    """A value as ``ENV`` reads it verbatim."""
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def _python_check(lock: EnvironmentLock) -> str:
    wanted = str(lock.python_version).split(".")[:2]
    code = (
        f'import sys; found = sys.version_info[:2]; found == ({", ".join(wanted)}) or sys.exit("error: the image has'
        f' Python %d.%d, and the environment is for {".".join(wanted)}" % found)'
    )
    return f"python3 -c {_quoted(code)}"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"
