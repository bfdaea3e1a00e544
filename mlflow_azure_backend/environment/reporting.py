"""Whether what runs in an environment can report to MLflow, and what it has from Azure's older ways of doing so."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow_azure_backend.environment.lock import EnvironmentLock
    from mlflow_azure_backend.environment.spec import EnvironmentSpec

INJECTED: Final = "environment.inject_mlflow"
"""The origin of an MLflow that the user has put in by configuration."""

_MLFLOWS: Final = frozenset({"mlflow", "mlflow-skinny"})
_DATABASES: Final = frozenset({"sqlite", "postgresql", "mysql", "mssql"})
_REPLACED: Final[Mapping[str, str]] = {
    "azureml-mlflow": "this backend itself tells MLflow where to report; remove it",
    "azureml-core": "its Run.get_context() finds no run here; mlflow.log_metric() and its kin replace run.log()",
}


def with_mlflow(spec: EnvironmentSpec) -> EnvironmentSpec:
    """Ask for MLflow, of the client's minor version, where the project asks for none of its own.

    It is resolved with all the rest, so a clash is said as any other.
    """
    from mlflow_azure_backend.environment.requirements import RequirementLine

    if spec.kind not in ("python", "conda") or any(name in _MLFLOWS for name, _ in _asked(spec)):
        return spec
    minor = ".".join(metadata.version("mlflow").split(".")[:2])
    return replace(spec, requirements=(*spec.requirements, RequirementLine(f"mlflow=={minor}.*", "mlflow", INJECTED)))


def notes_on_reporting(
    environment: EnvironmentLock, spec: EnvironmentSpec, *, file: str | None, tracking_uri: str | None
) -> Iterator[str]:
    """What the user should know before the job starts, one line each.

    Args:
        environment: What the job runs in.
        spec: What was asked for.
        file: The environment file that the user can mend; None when there is none.
        tracking_uri: Where the run is tracked; None when that is not known yet.
    """
    if environment.kind not in ("python", "conda"):
        return
    where = file or "the environment"
    if environment.mlflow_version is None:
        yield (
            f"{where} has no mlflow, so nothing that the program logs will be tracked; add mlflow to its dependencies,"
            ' or set "environment": {"inject_mlflow": true}'
        )
    elif _needs_database(tracking_uri) and environment.version_of("mlflow") is None:
        missing = [name for name in ("sqlalchemy", "alembic") if environment.version_of(name) is None]
        if missing:
            yield (
                f"{where} has mlflow-skinny without {' and '.join(missing)}, which cannot report to a database"
                f" ({urlsplit(str(tracking_uri)).scheme}); take mlflow instead"
            )
    for name, origin in _asked(spec):
        if (instead := _REPLACED.get(name)) is not None:
            yield f"{origin}: {name} is not needed: {instead}"


def _asked(spec: EnvironmentSpec) -> Iterator[tuple[str, str]]:
    """Name and origin of every package that the project itself names."""
    yield from ((line.name, line.origin) for line in spec.requirements)
    yield from ((line.name, line.origin) for line in (() if spec.conda is None else spec.conda.requirements))


def _needs_database(tracking_uri: str | None) -> bool:
    return urlsplit(tracking_uri or "").scheme.partition("+")[0] in _DATABASES
