"""Where azureml-mlflow is in a job's environment with MLflow 3, whose models it cannot log: our doors answer instead.

It asks for ``logged-models``, which a workspace does not have, so ``log_model`` and autologging fail (404). MLflow
takes the last plug-in of a name that it finds, and PYTHONPATH comes before what is installed. But it loads those that
tell in which context a run is made after those that keep runs, so one of the former puts ours in place. With MLflow 2
an installed plug-in works, and stays; so does any other than azureml-mlflow.
"""

from __future__ import annotations

import contextlib
from typing import Any

from mlflow.tracking.context.abstract_context import RunContextProvider
from mlflow.version import VERSION

from . import doors

_THEIRS = "azureml."
"""What the names of azureml-mlflow's modules begin with."""


class Precedence(RunContextProvider):
    """No context of its own; made once, while MLflow is imported."""

    def __init__(self) -> None:
        if int(VERSION.split(".")[0]) >= 3:
            # A registry that a later MLflow has elsewhere is left as it is: importing MLflow must not fail.
            with contextlib.suppress(ImportError, AttributeError):
                _take_over()

    def in_context(self) -> bool:
        """Whether runs are made in it."""
        return False

    def tags(self) -> dict[str, str]:
        """The tags of runs that are made in it."""
        return {}


def _take_over() -> None:
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
    from mlflow.tracking._model_registry.utils import _get_store_registry
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    ours: list[tuple[Any, Any]] = [
        (_tracking_store_registry, doors.tracking_store),
        (_get_store_registry(), doors.model_registry_store),
        (_artifact_repository_registry, doors.artifact_repository),
    ]
    for registry, door in ours:
        theirs = registry._registry.get("azureml")
        if getattr(theirs, "__module__", "").startswith(_THEIRS):
            registry.register("azureml", door)
