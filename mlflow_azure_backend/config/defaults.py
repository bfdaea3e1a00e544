"""Find and read the files of defaults: ``mlflow-azure.yaml`` in or above the project, and the user's own."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlflow_azure_backend.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME: Final = "mlflow-azure.yaml"
_OTHER_NAMES: Final = ("mlflow-azure.yml", ".mlflow-azure.yaml", "mlflow_azure.yaml")


@dataclass(frozen=True, slots=True)
class DefaultsFile:
    """A file of defaults as it was read.

    Attributes:
        path: Where it is, absolute.
        values: What it holds, ``profiles`` included.
        lines: The line of each key, by the keys that lead to it.
    """

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[tuple[str, ...], int]


def read_defaults(project_folder: Path | None, environ: Mapping[str, str]) -> tuple[list[DefaultsFile], list[str]]:
    """Read the user's file and then the project's, those that exist.

    Looking for them costs a few ``stat`` calls; PyYAML is imported only for a file that is there.

    Args:
        project_folder: Where the project is; None when it has no folder yet, then only the user's file counts.
        environ: The client's environment: ``XDG_CONFIG_HOME`` and ``HOME`` say where the user's file is.

    Returns:
        The files, the one that gives way first, and a note for each file that is misnamed and therefore not read.

    Raises:
        ConfigError: A file cannot be read, is no YAML mapping, or could have been put there by somebody else.
    """
    project_file, notes = (None, []) if project_folder is None else _find_project_file(project_folder)
    user_file = _find_user_file(environ)
    paths = [path for path in (user_file, project_file) if path is not None]
    return [_read(path) for path in dict.fromkeys(paths)], notes


def _find_project_file(folder: Path) -> tuple[Path | None, list[str]]:
    """The nearest file in ``folder`` or above it, up to the root of its git work tree, else of the file system."""
    start = folder.resolve()
    notes = [
        f"{start / name} is not read: its name would have to be {FILE_NAME}"
        for name in _OTHER_NAMES
        if _status(start / name) is not None
    ]
    owner = _status(start)
    owners = {0, os.getuid() if hasattr(os, "getuid") else 0, 0 if owner is None else owner.st_uid}
    for place in (start, *start.parents):
        path = place / FILE_NAME
        if (status := _status(path)) is not None:
            # In a folder that others may write to, such as /tmp, they could put settings above our projects.
            if status.st_uid not in owners:
                raise ConfigError(
                    f"belongs to another user (uid {status.st_uid}), so it is not trusted with your runs",
                    where=path,
                    next_step="move the project to a folder of your own, or put a file of your own into it",
                )
            return path, notes
        if _status(place / ".git") is not None:
            break
    return None, notes


def _find_user_file(environ: Mapping[str, str]) -> Path | None:
    """``$XDG_CONFIG_HOME/mlflow-azure/…``, which must be absolute to count (XDG Base Directory 0.8), else in HOME."""
    home = environ.get("HOME") or environ.get("USERPROFILE")
    base = Path(environ.get("XDG_CONFIG_HOME", ""))
    if not base.is_absolute():
        if not home:
            return None
        base = Path(home, ".config")
    path = (base / "mlflow-azure" / FILE_NAME).resolve()
    return path if _status(path) is not None else None


def _status(path: Path) -> os.stat_result | None:
    """What the path leads to; None when there is nothing that we could read."""
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def _read(path: Path) -> DefaultsFile:
    from mlflow_azure_backend.config.yaml_file import read_yaml

    status = _status(path)
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise ConfigError("is not a file", where=path, next_step=f"rename it: {FILE_NAME} holds our settings")
    return DefaultsFile(path, *read_yaml(path))
