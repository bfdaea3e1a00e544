"""The places where jobs run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

from mlflow_azure_backend.compute.base import ComputeTarget
from mlflow_azure_backend.compute.cluster import ClusterTarget
from mlflow_azure_backend.compute.docker import DockerTarget
from mlflow_azure_backend.compute.local import LocalTarget
from mlflow_azure_backend.errors import TargetError
from mlflow_azure_backend.job import JobRequest

TARGETS: Final[Mapping[str, type[ComputeTarget]]] = {
    "local": LocalTarget,
    "docker": DockerTarget,
    "cluster": ClusterTarget,
}
"""Every target that this package brings, by the name that the journal keeps."""


def target_for(request: JobRequest) -> ComputeTarget:
    """The target that a request asks for.

    Raises:
        TargetError: This version does not have it.
    """
    if request.target not in TARGETS:
        asked = request.config.compute
        raise TargetError(
            f"compute {asked if isinstance(asked, str) else asked.name!r} is not on this version yet",
            next_step=f"use one of: {', '.join(TARGETS)}",
        )
    return target_named(request.target)


@cache
def target_named(name: str) -> ComputeTarget:
    """The one instance of a target in this process, by the name that the journal keeps.

    Raises:
        TargetError: There is no such target, for a later version has written that journal.
    """
    if name not in TARGETS:
        raise TargetError(f"target {name!r} is not on this version", next_step="upgrade mlflow-azure-backend")
    return TARGETS[name]()
