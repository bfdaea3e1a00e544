"""The recipe: list the files, weigh them, read what has changed, and pack them on the way if that is wanted."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_azure_backend.errors import SnapshotError
from mlflow_azure_backend.files import fault_point
from mlflow_azure_backend.snapshot.archive import new_archive
from mlflow_azure_backend.snapshot.contents import BLOCK, changed, is_executable, read_file
from mlflow_azure_backend.snapshot.rules import ignore_command
from mlflow_azure_backend.snapshot.stat_cache import StatCache
from mlflow_azure_backend.snapshot.values import Snapshot, SnapshotFile, content_hash
from mlflow_azure_backend.snapshot.walk import list_files

if TYPE_CHECKING:
    from mlflow_azure_backend.snapshot.archive import ArchiveWriter
    from mlflow_azure_backend.snapshot.contents import FileStatus
    from mlflow_azure_backend.snapshot.key_material import Finding
    from mlflow_azure_backend.snapshot.listing import Listing
    from mlflow_azure_backend.snapshot.rules import SnapshotRules


def take_snapshot(
    root: Path,
    rules: SnapshotRules,
    *,
    cache: Path | None,
    leaves_machine: bool = False,
    archive: Path | None = None,
) -> Snapshot:
    """List and hash the files of a project.

    Args:
        root: The project's folder.
        rules: The user's rules.
        cache: A folder of ours for what is known of unchanged files; made when it is not there. None: read every file.
        leaves_machine: The files are going to be copied off this machine, so look for credentials in them.
        archive: Also pack the files into this archive, which reads each of them only once; see ``write_archive``.

    Raises:
        SnapshotError: The files cannot be packaged, or must not be: too large, unreadable, changing, ambiguous, a
            secret. Then there is no archive.
    """
    listing = list_files(root, rules)
    statuses = listing.statuses()
    _check_size(statuses, rules.max_size, root)
    known = StatCache(cache, listing.root, purpose="searched" if leaves_machine else "hashed")
    fault_point("snapshot.before_hashing")
    reading = _Reading(listing, statuses, known, search=leaves_machine)
    if archive is None:
        files, identity = reading.hash_files()
    else:
        with new_archive(archive) as writer:
            files, identity = reading.pack_files(writer)
    return Snapshot(Path(listing.root), tuple(files), tuple(listing.left_out), identity, listing.elsewhere)


def write_archive(snapshot: Snapshot, destination: Path) -> None:
    """Pack the files of a snapshot as a ``.tar.zst``.

    Raises:
        SnapshotError: A file is not what it was when the snapshot was taken, or the archive cannot be written. Then
            there is no archive.
    """
    with new_archive(destination) as writer:
        fault_point("snapshot.packing")
        for file in snapshot.files:
            data: bytes | None = None
            location = snapshot.location(file.path)
            if file.size < BLOCK:
                content = read_file(file.path, location)
                if (content.sha256, is_executable(content.status)) != (file.sha256, file.executable):
                    raise changed(file.path)
                data = content.data
            _append(writer, file, data, location)


class _Reading:
    """Reads the listed files, unless their status says that they are what they were."""

    def __init__(self, listing: Listing, statuses: dict[str, FileStatus], known: StatCache, *, search: bool) -> None:
        self._listing = listing
        self._statuses = statuses
        self._known = known
        self._search = search
        self._credentials: list[tuple[str, Finding]] = []

    def hash_files(self) -> tuple[list[SnapshotFile], str]:
        """The files, and the hash of them all."""
        statuses = self._statuses
        unchanged = self._known.all_unchanged(statuses)
        if unchanged is not None:
            identity, hashes = unchanged
            sizes = [status[0] for status in statuses.values()]
            return list(map(SnapshotFile, statuses, sizes, hashes, map(is_executable, statuses.values()))), identity
        return self._finish(
            [self._known_file(path, status) or self._read(path, status)[0] for path, status in statuses.items()]
        )

    def pack_files(self, archive: ArchiveWriter) -> tuple[list[SnapshotFile], str]:
        """As ``hash_files``, and append them to an archive; a file that fits into the memory is read once."""
        files = []
        for path, status in self._statuses.items():
            data: bytes | None = None
            file = self._known_file(path, status) if status[0] >= BLOCK else None
            if file is None:
                file, data = self._read(path, status)
            _append(archive, file, data, self._listing.location(path))
            files.append(file)
        return self._finish(files)

    def _known_file(self, path: str, status: FileStatus) -> SnapshotFile | None:
        sha256 = self._known.sha256(path, status)
        return None if sha256 is None else _file(path, status, sha256)

    def _read(self, path: str, known: FileStatus) -> tuple[SnapshotFile, bytes | None]:
        content = read_file(path, self._listing.location(path), known=known, search=self._search)
        if content.finding is None:
            self._known.keep(path, content.status, content.sha256)
        elif not self._listing.allows(path):
            self._credentials.append((path, content.finding))
        return _file(path, content.status, content.sha256), content.data

    def _finish(self, files: list[SnapshotFile]) -> tuple[list[SnapshotFile], str]:
        identity = content_hash(files)
        self._known.save(identity, len(files))
        if self._credentials:
            raise _credentials_found(self._credentials)
        return files, identity


def _file(path: str, status: FileStatus, sha256: str) -> SnapshotFile:
    return SnapshotFile(path, status[0], sha256, is_executable(status))


def _append(archive: ArchiveWriter, file: SnapshotFile, data: bytes | None, location: str) -> None:
    if data is not None:
        archive.add(file.path, data, executable=file.executable)
    else:
        archive.add_blocks(file.path, location, size=file.size, sha256=file.sha256, executable=file.executable)


def _credentials_found(found: list[tuple[str, Finding]]) -> SnapshotError:
    (path, finding), *more = found
    also = ", ".join(f"{other}:{second.line}" for other, second in more[:3])
    beyond = f" and {len(more) - 3} more" if len(more) > 3 else ""
    return SnapshotError(
        f"holds {finding.kind}, and would leave this machine{f' (so do {also}{beyond})' if more else ''}",
        where=f"{path}:{finding.line}",
        next_step=f"leave it out: {ignore_command(path)}; or add {json.dumps(path)} to snapshot.allow",
    )


def _check_size(statuses: dict[str, FileStatus], max_size: int, root: Path) -> None:
    total = sum(status[0] for status in statuses.values())
    if total <= max_size:
        return
    offenders = _largest({path: status[0] for path, status in statuses.items()})
    shown = ", ".join(f"{path} ({_in_words(size)})" for path, size in offenders)
    raise SnapshotError(
        f"the project's files are {_in_words(total)}, more than snapshot.max_size ({_in_words(max_size)}); "
        f"the largest: {shown}",
        where=root,
        next_step=f"leave some out: {ignore_command(offenders[0][0])}; or raise snapshot.max_size",
    )


def _largest(sizes: dict[str, int], above: str = "") -> list[tuple[str, int]]:
    """The three largest files or folders of a folder, or of the only folder in it that matters."""
    children: defaultdict[str, int] = defaultdict(int)
    for path, size in sizes.items():
        if path.startswith(above):
            name, slash, _ = path[len(above) :].partition("/")
            children[f"{above}{name}{slash}"] += size
    largest = sorted(children.items(), key=lambda child: (-child[1], child[0]))[:3]
    heaviest, weight = largest[0]
    if heaviest.endswith("/") and weight > 0.9 * sum(children.values()):
        return _largest(sizes, heaviest)
    return largest


def _in_words(size: int) -> str:
    """Bytes as people say them, in decimal units."""
    amount, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.3g} {unit}"
