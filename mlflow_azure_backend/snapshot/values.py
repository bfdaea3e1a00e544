"""What a snapshot is: frozen values, and the hash that is its identity."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_VERSION: Final = 1


class SnapshotFile(NamedTuple):
    """A file of a snapshot (a tuple, for a snapshot may have many thousands).

    Attributes:
        path: POSIX path below the project's folder, in Unicode's form NFC.
        size: Bytes.
        sha256: Of its content, in hexadecimal.
        executable: Whether its owner may execute it; False where the system does not know, on Windows.
    """

    path: str
    size: int
    sha256: str
    executable: bool


class LeftOut(NamedTuple):
    """A file or folder that is there but not in the snapshot.

    Attributes:
        path: As in ``SnapshotFile``; a folder, of which nothing more is said, ends in a slash.
        rule: Why, as the user is told it: ``src/.gitignore:3``, ``exclude``, ``secret``, ``built-in: caches``.
    """

    path: str
    rule: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of a project at one moment.

    Attributes:
        root: The project's folder, resolved.
        files: Sorted by path.
        left_out: Sorted by path.
        content_hash: SHA-256 in hexadecimal over paths, sizes, hashes and executable bits: the same wherever and
            whenever the same files are checked out.
        elsewhere: Where the content of a file is, when that is not ``root / path``: a link's target, or a name that the
            disk spells in another Unicode form.
    """

    root: Path
    files: tuple[SnapshotFile, ...]
    left_out: tuple[LeftOut, ...]
    content_hash: str
    elsewhere: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def location(self, path: str) -> str:
        """Where on this machine the content of one of the files is."""
        return self.elsewhere.get(path) or f"{self.root}/{path}"

    def manifest(self) -> dict[str, Any]:
        """All of it but the places on this machine, ready for JSON."""
        return {
            "version": _VERSION,
            "content_hash": self.content_hash,
            "size": self.size,
            "files": [file._asdict() for file in self.files],
            "left_out": [entry._asdict() for entry in self.left_out],
        }


def rule_for(manifest: Mapping[str, Any], path: str) -> str | None:
    """The rule that leaves out a path, or a folder above it.

    Args:
        manifest: What ``Snapshot.manifest`` gave.
        path: POSIX path below the project's folder; a leading ``./`` and a trailing slash do not matter.

    Returns:
        None when the path is in the snapshot, or when no rule speaks of it: it is not there at all.
    """
    parts = [part for part in unicodedata.normalize("NFC", path).split("/") if part not in ("", ".")]
    wanted = "/".join(parts)
    if any(file["path"] == wanted for file in manifest["files"]):
        return None
    names = {wanted} | {"/".join(parts[:count]) + "/" for count in range(1, len(parts) + 1)}
    return next((entry["rule"] for entry in manifest["left_out"] if entry["path"] in names), None)


def content_hash(files: Iterable[SnapshotFile]) -> str:
    """The identity of files that are sorted by path; a path holds no NUL, so that no two snapshots read the same."""
    lines = [f"{path}\0{size}\0{sha256}\0{'x' if executable else '-'}\n" for path, size, sha256, executable in files]
    return hashlib.sha256(f"mlflow-azure-backend snapshot {_VERSION}\n{''.join(lines)}".encode()).hexdigest()
