"""What a run leaves: files in ``./outputs`` that are new or have changed, and the outputs that have names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_azure_backend.errors import TargetError

if TYPE_CHECKING:
    from mlflow_azure_backend.config import DataOutput

OUTPUTS = "outputs"

OUTPUT_VARIABLE = "AZURE_ML_OUTPUT_"
"""Before the name of an output: the variable of the job that says where to write it, as in Azure ML's own jobs."""


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """Where a job on this machine writes one of its named outputs.

    Attributes:
        folder: The folder that it may write to.
        file: Name of the file in it that is the output; empty when the folder is.
    """

    folder: Path
    file: str = ""


def make_places(outputs: Mapping[str, DataOutput], own: Path) -> dict[str, OutputPlace]:
    """Make the folder of each named output: where its ``path`` says, else below ``own``, which is collected at the end.

    Raises:
        TargetError: A folder cannot be made.
    """
    places = {}
    for name, output in outputs.items():
        is_file = output.type == "uri_file"
        if output.path is None:
            place = OutputPlace(own / name, name if is_file else "")
        else:
            path = Path(output.path)
            place = OutputPlace(path.parent, path.name) if is_file else OutputPlace(path)
        try:
            place.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"the folder {place.folder} cannot be made: {error.strerror}"
            raise TargetError(what, where=f"outputs.{name}", next_step="name another path") from None
        places[name] = place
    return places


def list_outputs(work_folder: Path) -> dict[str, tuple[int, int]]:
    """Every regular file below ``outputs``: POSIX path relative to ``outputs`` -> (bytes, mtime in nanoseconds)."""
    return _files_below(work_folder / OUTPUTS)


def changed_outputs(work_folder: Path, before: Mapping[str, tuple[int, int]]) -> list[str]:
    """The files below ``outputs`` that are new or different since ``before`` was listed, sorted."""
    return sorted(path for path, status in list_outputs(work_folder).items() if before.get(path) != status)


def named_outputs(own: Path) -> list[str]:
    """The files of the named outputs that were written below ``own``, sorted: ``NAME/…``."""
    return sorted(_files_below(own))


def _files_below(root: Path) -> dict[str, tuple[int, int]]:
    """Links are not followed. A folder that is not there, or a link in its place, has no files."""
    found: dict[str, tuple[int, int]] = {}
    folders = [] if root.is_symlink() else [str(root)]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                found[Path(entry.path).relative_to(root).as_posix()] = (status.st_size, status.st_mtime_ns)
    return found
