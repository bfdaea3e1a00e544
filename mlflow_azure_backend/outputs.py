"""The files that a run leaves in ``./outputs``: those that were not there before, or have changed since."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

OUTPUTS = "outputs"


def list_outputs(work_folder: Path) -> dict[str, tuple[int, int]]:
    """Every regular file below ``outputs``: POSIX path relative to ``outputs`` -> (bytes, mtime in nanoseconds).

    Links are not followed. A folder that is not there, or a link in its place, has no files.
    """
    found: dict[str, tuple[int, int]] = {}
    root = work_folder / OUTPUTS
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


def changed_outputs(work_folder: Path, before: Mapping[str, tuple[int, int]]) -> list[str]:
    """The files below ``outputs`` that are new or different since ``before`` was listed, sorted."""
    return sorted(path for path, status in list_outputs(work_folder).items() if before.get(path) != status)
