"""The lock of a conda environment: a ``conda-lock.yml`` that another process makes, and what of it counts here."""

from __future__ import annotations

import json
import os
import pickle
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from mlflow_azure_backend.environment.cache import Progress
from mlflow_azure_backend.environment.conda.channels import Credentials, authentication, split_channel
from mlflow_azure_backend.environment.conda.helper import helper
from mlflow_azure_backend.environment.conda.wanted import local_platform
from mlflow_azure_backend.environment.lock import EnvironmentLock, LockedPackage
from mlflow_azure_backend.errors import EnvironmentUnavailable
from mlflow_azure_backend.files import fault_point

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_azure_backend.environment.indexes import Machine
    from mlflow_azure_backend.environment.spec import EnvironmentSpec

_FORMAT: Final = "mlflow-azure conda lock 1"
_SOLVER: Final = "mlflow_azure_backend.environment.conda.solver"
VARIABLES: Final = "variables"
"""The key of a lock's own metadata for what ``variables:`` sets, as JSON; ``installing.py`` looks for it, too."""


def question(_spec: EnvironmentSpec) -> tuple[str, ...]:
    """What besides the specification decides the answer: our rules and this platform."""
    return _FORMAT, local_platform()


def solve(spec: EnvironmentSpec, machine: Machine, *, cache: Path, upgrade: bool, on_progress: Progress) -> str:
    """Resolve, and give what is to be kept: what counts here on one line, then the lock's text.

    Raises:
        EnvironmentUnavailable: no such packages, no channel or index, or they do not fit together.
    """
    from mlflow_azure_backend.environment.conda.solver import Order

    fault_point("environment.resolving")
    order = pickle.dumps(Order(spec, machine, cache.absolute(), upgrade))
    text: str | None = None
    with authentication(_credentials(spec), os.environ) as (variables, inherited):
        command = [sys.executable, "-W", "ignore", "-m", _SOLVER]
        with helper(command, order, cache=cache, variables=variables, inherited=inherited) as process:
            for line in process.lines():
                report = json.loads(line)
                if "stage" in report:
                    on_progress(report["stage"])
                elif "error" in report:
                    what, where, next_step = report["error"]
                    raise EnvironmentUnavailable(what, where=where, next_step=next_step)
                else:
                    text = report["text"]
            if text is None:
                raise EnvironmentUnavailable(f"the conda solver failed: {process.last_words()}")
    return json.dumps(_facts(text)) + "\n" + text


def _credentials(spec: EnvironmentSpec) -> tuple[Credentials, ...]:
    channels = () if spec.conda is None else spec.conda.channels
    return tuple(found for channel in channels if (found := split_channel(channel)[1]) is not None)


def read(kept: str, spec: EnvironmentSpec, machine: Machine) -> EnvironmentLock:
    """Understand what ``solve`` gave; no YAML is read."""
    facts, _, text = kept.partition("\n")
    return _lock(json.loads(facts), text, spec, machine)


def read_recorded(text: str, spec: EnvironmentSpec, machine: Machine) -> EnvironmentLock:
    """Understand a ``conda-lock.yml`` that was made elsewhere or earlier, also by conda-lock itself.

    Raises:
        EnvironmentUnavailable: It is none, or has nothing for this platform.
    """
    return _lock(_facts(text), text, spec, machine)


def _facts(text: str) -> dict[str, Any]:
    """What of a lock counts on this machine: its packages here, and the variables that it sets."""
    import yaml

    try:
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
        platforms = document["metadata"]["platforms"]
        custom = document["metadata"].get("custom_metadata") or {}
        here = local_platform()
        found = [package for package in document["package"] if package["platform"] == here]
        packages = [
            [one["manager"], one["name"], one["version"], _hash(one), (one.get("source") or one)["url"]]
            for one in found
        ]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        step = "make it anew with `mlflow-azure lock --upgrade`"
        what = f"no conda-lock file of version 1 ({type(error).__name__}: {' '.join(str(error).split())[:80]})"
        raise EnvironmentUnavailable(what, where="conda-lock.yml", next_step=step) from None
    if here not in platforms:
        step = "run the project anew, which resolves its environment for this machine"
        what = f"the recorded environment is for {', '.join(platforms)}, and this is {here}"
        raise EnvironmentUnavailable(what, next_step=step)
    variables = json.loads(custom.get(VARIABLES, "{}"))
    return {"platform": here, "packages": packages, "variables": variables}


def _hash(package: dict[str, Any]) -> str:
    hashes = package["hash"]
    return f"sha256:{hashes['sha256']}" if hashes.get("sha256") else f"md5:{hashes['md5']}"


def _lock(facts: dict[str, Any], text: str, spec: EnvironmentSpec, machine: Machine) -> EnvironmentLock:
    packages = tuple(
        LockedPackage(name, version, (digest,), url, manager)
        for manager, name, version, digest, url in facts["packages"]
    )
    python = next((one.version for one in packages if (one.manager, one.name) == ("conda", "python")), None)
    # Not where they lie: the same bytes from a mirror are the same environment.
    contents = sorted([one.manager, one.name, one.version, one.hashes] for one in packages)
    return EnvironmentLock(
        kind="conda",
        spec_fingerprint=spec.fingerprint,
        python_version=python,
        implementation="cpython",
        packages=packages,
        text=text,
        identity=json.dumps([_FORMAT, facts["platform"], contents, facts["variables"]]),
        sources=replace(
            machine.sources(spec.indexes, folder=spec.folder, environ=os.environ), channels=_credentials(spec)
        ),
    )
