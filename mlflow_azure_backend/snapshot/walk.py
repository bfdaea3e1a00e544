"""Which files of a project's folder belong to its snapshot, and by which rule the others do not.

The walk goes into no folder that is left out, unless ``snapshot.include`` names something in it or git tracks it. It
opens nothing but ignore files, and follows links only to what lies in the project.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_azure_backend.errors import SnapshotError
from mlflow_azure_backend.snapshot.contents import unreadable
from mlflow_azure_backend.snapshot.ignore_files import is_of_git, lines_in, patterns_from_above
from mlflow_azure_backend.snapshot.listing import FolderFiles, Listing
from mlflow_azure_backend.snapshot.patterns import FolderPatterns, Layer, hit
from mlflow_azure_backend.snapshot.rules import (
    ENVIRONMENT,
    ENVIRONMENT_MARKERS,
    IGNORE_FILES,
    allows,
    with_project_lists,
)
from mlflow_azure_backend.snapshot.values import LeftOut
from mlflow_azure_backend.snapshot.work_tree import TrackedFiles, find_work_tree

if TYPE_CHECKING:
    from mlflow_azure_backend.snapshot.patterns import Pattern
    from mlflow_azure_backend.snapshot.rules import SnapshotRules


def list_files(root: Path, rules: SnapshotRules) -> Listing:
    """Walk through a project's folder.

    Raises:
        SnapshotError: The folder is not there; a folder or an ignore file cannot be read; a rule asks for a secret; two
            names are the same in NFC.
    """
    resolved = os.path.realpath(root)
    if not Path(resolved).is_dir():
        raise SnapshotError("the project's folder does not exist", where=root)
    work_tree = find_work_tree(Path(resolved))
    above = patterns_from_above(Path(resolved), work_tree) if work_tree else FolderPatterns()
    walk = _Walk(resolved, with_project_lists(above, rules), in_work_tree=work_tree is not None)
    walk.run()
    return Listing(resolved, walk.folders, walk.elsewhere, sorted(walk.left_out), walk.patterns)


class _Standing(Enum):
    """How a folder came to be walked."""

    ORDINARY = "no rule speaks of it"
    NAMED = "`include` names it"
    BELOW_NAMED = "`include` names a folder above it"
    LEFT_OUT = "left out, and walked for the exceptions in it"


@dataclass(slots=True)
class _Folder:
    """A folder that is still to be walked.

    Attributes:
        path: NFC POSIX path below the root with a slash at the end; empty for the root.
        location: The same folder on disk.
        patterns: The patterns for the names in it, its own ignore files not yet among them.
        standing: How it came to be walked.
        against: The pattern by which it is left out; None unless its standing is ``LEFT_OUT``.
        through_link: A link led here.
        names: The files in it that belong to the snapshot and are where their path says.
    """

    path: str
    location: str
    patterns: FolderPatterns
    standing: _Standing = _Standing.ORDINARY
    against: Pattern | None = None
    through_link: bool = False
    names: list[str] = field(default_factory=list)


class _Walk:
    def __init__(self, root: str, patterns: FolderPatterns, *, in_work_tree: bool) -> None:
        self.root = root
        self.patterns = patterns
        self.folders: list[FolderFiles] = []
        self.elsewhere: dict[str, str] = {}
        self.left_out: list[LeftOut] = []
        self._pending = [_Folder("", root, patterns)]
        self._spelled: dict[str, str] = {}
        self._in_work_tree = in_work_tree
        self._tracked: TrackedFiles | None = None

    def run(self) -> None:
        while self._pending:
            self._walk(self._pending.pop())

    def _walk(self, folder: _Folder) -> None:
        try:
            with os.scandir(folder.location) as scan:
                entries = {entry.name: entry for entry in scan}
        except OSError as error:
            raise unreadable(folder.path or ".", error) from error
        is_environment = folder.path and not entries.keys().isdisjoint(ENVIRONMENT_MARKERS)
        if is_environment and folder.standing in (_Standing.ORDINARY, _Standing.BELOW_NAMED):
            self.left_out.append(LeftOut(folder.path, ENVIRONMENT))
            return
        if not entries.keys().isdisjoint(IGNORE_FILES):
            lines = lines_in(folder.location, folder.path)
            folder.patterns = folder.patterns.extended(lines, Layer.IGNORE_FILE)
        ordinary = folder.standing is _Standing.ORDINARY and folder.location == _join(self.root, folder.path[:-1])
        patterns, names = folder.patterns, folder.names
        for name, entry in entries.items():
            # Nearly all names take one of the two short ways, so nothing is asked on them that is not needed.
            if not ordinary or patterns.may_match(name) or not name.isascii():
                self._consider(folder, entry)
            elif entry.is_file(follow_symlinks=False):
                names.append(name)
            elif entry.is_dir(follow_symlinks=False):
                location = _join(folder.location, name)
                self._pending.append(_Folder(f"{folder.path}{name}/", location, patterns.entered(name)))
            else:
                self._consider(folder, entry)
        if names:
            self.folders.append(FolderFiles(folder.path, folder.location, names))

    def _consider(self, folder: _Folder, entry: os.DirEntry[str]) -> None:
        """Decide about one name by all rules."""
        name = unicodedata.normalize("NFC", entry.name)
        # Unlike the entry's own question it never raises, not for a link to itself either.
        is_folder = os.path.isdir(_join(folder.location, entry.name))  # noqa: PTH112
        path = folder.path + name
        found = folder.patterns.matches(name, is_folder=is_folder)
        against = self._against(folder, path, found, is_folder=is_folder)
        if against is None:
            self._keep(folder, entry, path, named=hit(found, Layer.INCLUDE) is not None, is_folder=is_folder)
            return
        if folder.standing is not _Standing.LEFT_OUT:
            self._leave_out(path, against.where, is_folder=is_folder)
        if is_folder and not entry.is_symlink() and self._has_exceptions(folder, name, against):
            below = folder.patterns.entered(name)
            location = _join(folder.location, entry.name)
            self._pending.append(_Folder(f"{path}/", location, below, _Standing.LEFT_OUT, against))

    def _against(self, folder: _Folder, path: str, found: dict[Layer, Pattern], *, is_folder: bool) -> Pattern | None:
        """The pattern that leaves a path out; None when it belongs to the snapshot."""
        secret = None if is_folder else hit(found, Layer.SECRET)
        if secret is not None and not allows(self.patterns, path):
            self._refuse_if_asked_for(path, found)
            return secret
        if (exclude := hit(found, Layer.EXCLUDE)) is not None:
            return exclude
        if hit(found, Layer.INCLUDE) is not None:
            return None
        if (built_in := hit(found, Layer.BUILT_IN)) is not None:
            return built_in
        if folder.standing in (_Standing.NAMED, _Standing.BELOW_NAMED):
            return None
        # Below a folder that is left out an ignore file cannot bring anything back, as git has it.
        ignored = folder.against or hit(found, Layer.IGNORE_FILE)
        if ignored is not None and not is_folder and is_of_git(ignored) and self._is_tracked(path):
            return None
        return ignored

    def _has_exceptions(self, folder: _Folder, name: str, against: Pattern) -> bool:
        """Whether something may belong to the snapshot that lies below a folder that does not."""
        if against.layer not in (Layer.IGNORE_FILE, Layer.BUILT_IN):
            return False
        if folder.patterns.entered(name).names_below(Layer.INCLUDE):
            return True
        return is_of_git(against) and self._is_tracked(f"{folder.path}{name}/")

    def _is_tracked(self, path: str) -> bool:
        """Whether git tracks a file, or anything in a folder; git is asked once, at the first need."""
        if not self._in_work_tree:
            return False
        if self._tracked is None:
            self._tracked = TrackedFiles(Path(self.root))
        return self._tracked.has(path)

    def _refuse_if_asked_for(self, path: str, found: dict[Layer, Pattern]) -> None:
        """A rule that plainly means a secret is a question for the user; `*` or `!*.*` is not."""
        include, ignore = found.get(Layer.INCLUDE), found.get(Layer.IGNORE_FILE)
        asking = [include] if include is not None and not include.negated else []
        asking += [ignore] if ignore is not None and ignore.negated else []
        for pattern in asking:
            text = pattern.last.text
            if pattern.last.literal or hit(self.patterns.matches(text, is_folder=False), Layer.SECRET):
                raise SnapshotError(
                    f"looks like a secret, and {pattern.where} asks for it",
                    where=path,
                    next_step=f'add "{path}" to snapshot.allow if it may be copied, else take the pattern away',
                )

    def _keep(self, folder: _Folder, entry: os.DirEntry[str], path: str, *, named: bool, is_folder: bool) -> None:
        """Take a file, or go into a folder, if it is one that can be taken."""
        location = _join(folder.location, entry.name)
        through_link = folder.through_link
        obstacle: str | None = None
        if not _is_utf8(path):
            obstacle = "name is not UTF-8"
        elif entry.is_symlink():
            obstacle = self._link_obstacle(folder, location, path, is_folder=is_folder)
            location, through_link = os.path.realpath(location), True
        elif not is_folder and not entry.is_file(follow_symlinks=False):
            obstacle = "not a regular file"
        if obstacle is not None:
            self._leave_out(path, obstacle, is_folder=is_folder)
            return
        self._check_spelling(path, _join(folder.location, entry.name))
        if not is_folder:
            if location == _join(self.root, path):
                folder.names.append(entry.name)
            else:
                self.elsewhere[path] = location
            return
        standing = _Standing.ORDINARY
        if named:
            standing = _Standing.NAMED
        elif folder.standing in (_Standing.NAMED, _Standing.BELOW_NAMED):
            standing = _Standing.BELOW_NAMED
        below = folder.patterns.entered(path.rpartition("/")[2])
        self._pending.append(_Folder(f"{path}/", location, below, standing, None, through_link))

    def _link_obstacle(self, folder: _Folder, location: str, path: str, *, is_folder: bool) -> str | None:
        """Why a link cannot be taken as what it leads to; None when it can."""
        try:
            target = os.path.realpath(location, strict=True)
        except OSError:
            return "link that leads nowhere"
        if target != self.root and not target.startswith(self.root + os.sep):
            return "link out of the project"
        if is_folder and f"{folder.location}/".startswith(f"{target}/"):
            return "link to a folder that holds it"
        if is_folder and folder.through_link:
            return "link to a folder, in a folder that is linked itself"
        if not is_folder and not os.path.isfile(target):  # noqa: PTH113
            return "not a regular file"
        # A harmless name must not carry a secret into the snapshot, nor the repository or an environment.
        names = unicodedata.normalize("NFC", os.path.relpath(target, self.root)).replace(os.sep, "/")
        on_the_way = list(self.patterns.along(names, is_folder=is_folder))
        secret = None if is_folder else hit(on_the_way[-1], Layer.SECRET)
        if secret is not None and not allows(self.patterns, path) and not allows(self.patterns, names):
            return secret.where
        built_in = [pattern.where for found in on_the_way if (pattern := hit(found, Layer.BUILT_IN))]
        return built_in[0] if built_in else None

    def _check_spelling(self, path: str, location: str) -> None:
        if path.isascii():
            return
        other = self._spelled.setdefault(path, location)
        if other != location:
            raise SnapshotError(
                "two names are the same once they are normalised to NFC",
                where=path,
                next_step="rename one of them; to see both: ls | cat -A",
            )

    def _leave_out(self, path: str, rule: str, *, is_folder: bool) -> None:
        printable = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        self.left_out.append(LeftOut(f"{printable}/" if is_folder else printable, rule))


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _join(folder: str, name: str) -> str:
    """One spelling of a location on every system, so that two can be compared; an empty name is the folder itself."""
    return f"{folder}/{name}" if name else folder
