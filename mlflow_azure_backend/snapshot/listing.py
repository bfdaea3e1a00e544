"""What a walk through a project's folder found, and the status of each file."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_azure_backend.snapshot.contents import file_status, unreadable
from mlflow_azure_backend.snapshot.rules import allows

if TYPE_CHECKING:
    from mlflow_azure_backend.snapshot.contents import FileStatus
    from mlflow_azure_backend.snapshot.patterns import FolderPatterns
    from mlflow_azure_backend.snapshot.values import LeftOut

_FOLDER: Final = sum(getattr(os, flag, 0) for flag in ("O_RDONLY", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC"))


class FolderFiles(NamedTuple):
    """The files of one folder that belong to the snapshot.

    Attributes:
        path: NFC POSIX path of the folder below the root, with a slash at the end; empty for the root.
        location: The folder on disk.
        names: Of the files, the same on disk and in the snapshot.
    """

    path: str
    location: str
    names: list[str]


@dataclass(frozen=True, slots=True)
class Listing:
    """What a walk found.

    Attributes:
        root: The project's folder, resolved.
        folders: The files, folder by folder.
        elsewhere: More files: NFC POSIX path, and where the content is, when that is not ``root / path`` because of a
            link or of a name that the disk spells in another Unicode form.
        left_out: Sorted by path.
        patterns: The patterns of the project's folder, to ask about other paths.
    """

    root: str
    folders: list[FolderFiles]
    elsewhere: dict[str, str]
    left_out: list[LeftOut]
    patterns: FolderPatterns = field(repr=False)

    def paths(self) -> list[str]:
        """NFC POSIX paths of all files below the root, sorted."""
        return sorted([folder.path + name for folder in self.folders for name in folder.names] + list(self.elsewhere))

    def statuses(self) -> dict[str, FileStatus]:
        """The status of each file by path, sorted, but for files that have gone since the walk.

        Raises:
            SnapshotError: The system does not give it.
        """
        found: dict[str, FileStatus] = {}
        for folder in self.folders:
            try:
                _add_statuses(folder, found)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise unreadable(folder.path or ".", error) from error
        for path, location in self.elsewhere.items():
            with contextlib.suppress(OSError):  # what has become of a link's target is seen when it is read
                found[path] = file_status(os.lstat(location))
        return {path: found[path] for path in sorted(found)}

    def location(self, path: str) -> str:
        """Where the content of a file is."""
        return self.elsewhere.get(path) or f"{self.root}/{path}"

    def allows(self, path: str) -> bool:
        """Whether ``snapshot.allow`` names the file or a folder above it."""
        return allows(self.patterns, path)


def _add_statuses(folder: FolderFiles, found: dict[str, FileStatus]) -> None:
    above, location, names = folder
    # Through the open folder the system need not walk to it again for each name.
    opened = os.open(location, _FOLDER) if os.stat in os.supports_dir_fd else None
    try:
        for name in names:
            try:
                if opened is None:
                    status = os.lstat(f"{location}/{name}")
                else:
                    status = os.stat(name, dir_fd=opened, follow_symlinks=False)
            except FileNotFoundError:
                continue
            found[above + name] = file_status(status)
    finally:
        if opened is not None:
            os.close(opened)
