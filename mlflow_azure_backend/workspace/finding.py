"""Which workspace is meant: what the configuration says, the tracking URI, ``config.json``, or the variables."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mlflow_azure_backend.errors import WorkspaceError
from mlflow_azure_backend.runtime.clouds import CLOUDS, PUBLIC, Cloud, cloud_named, cloud_of_host
from mlflow_azure_backend.runtime.reference import (
    FORM,
    MalformedReference,
    WorkspaceReference,
    from_tracking_uri,
    from_variables,
)

SHORT_URIS: Final = frozenset({"azureml:", "azureml:/", "azureml://", "azureml:///"})
"""Tracking URIs that leave it to us to find the workspace."""
_CONFIG_FOLDERS: Final = (".", ".azureml", "aml_config")
"""Where a folder may have its ``config.json``, as Azure's SDKs look for it."""
_NAMES: Final = ("subscription_id", "resource_group", "workspace_name")


def find_workspace(
    configured: Mapping[str, str] | str | None, tracking_uri: str | None, folder: Path, environ: Mapping[str, str]
) -> WorkspaceReference:
    """The workspace that is meant.

    Args:
        configured: ``workspace`` of the backend configuration: its three names, or the path of a ``config.json``.
        tracking_uri: MLflow's; only an ``azureml:`` one counts.
        folder: Where the search for ``config.json`` starts; it goes upwards.
        environ: The client's variables.

    Raises:
        WorkspaceError: Nothing names one, or what names it is malformed.
    """
    if isinstance(configured, Mapping):
        return WorkspaceReference(*(configured[name] for name in _NAMES))
    if configured is not None:
        return _of_file(folder / configured)
    if tracking_uri is not None and tracking_uri.startswith("azureml:") and tracking_uri not in SHORT_URIS:
        try:
            return from_tracking_uri(tracking_uri)
        except MalformedReference as error:
            raise WorkspaceError(str(error)) from None
    if (file := _config_file(folder)) is not None:
        return _of_file(file)
    if (reference := from_variables(environ)) is not None:
        return reference
    raise WorkspaceError(
        "no Azure ML workspace is named",
        next_step="download its config.json from the studio into this folder, set AZUREML_ARM_SUBSCRIPTION, "
        f"AZUREML_ARM_RESOURCEGROUP and AZUREML_ARM_WORKSPACE_NAME, or set MLFLOW_TRACKING_URI={FORM}",
    )


def cloud_of(reference: WorkspaceReference, environ: Mapping[str, str]) -> Cloud:
    """The cloud that a workspace is in: its host says it, else AZUREML_CURRENT_CLOUD, as for Azure's SDK.

    Raises:
        WorkspaceError: There is no cloud of that name.
    """
    if reference.host is not None and (cloud := cloud_of_host(reference.host)) is not None:
        return cloud
    name = environ.get("AZUREML_CURRENT_CLOUD", PUBLIC.name)
    if (named := cloud_named(name)) is None:
        raise WorkspaceError(
            f"there is no cloud {name!r}",
            where="AZUREML_CURRENT_CLOUD",
            next_step=f"set it to one of {', '.join(cloud.name for cloud in CLOUDS)}",
        )
    return named


def _config_file(folder: Path) -> Path | None:
    for above in (folder, *folder.parents):
        for place in _CONFIG_FOLDERS:
            if _names_a_workspace(file := above / place / "config.json"):
                return file
    return None


def _names_a_workspace(file: Path) -> bool:
    """Whether a ``config.json`` is a workspace's: other programs have files of that name, too."""
    return file.is_file() and os.access(file, os.R_OK) and '"workspace_name"' in file.read_text("utf-8", "replace")


def _of_file(file: Path) -> WorkspaceReference:
    try:
        told: Any = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise WorkspaceError(f"cannot be read ({error.strerror})", where=file) from None
    except ValueError as error:
        raise WorkspaceError(f"is no JSON ({error})", where=file) from None
    told = told if isinstance(told, dict) else {}
    if missing := [name for name in _NAMES if not isinstance(told.get(name), str) or not told[name]]:
        raise WorkspaceError(
            f"lacks {' and '.join(missing)}", where=file, next_step="download it again from the studio"
        )
    return WorkspaceReference(*(told[name] for name in _NAMES))
