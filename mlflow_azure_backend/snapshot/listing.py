"""Which files of a project's folder belong to its snapshot, and by which rule the others do not.

The walk goes into no folder that is left out, unless ``snapshot.include`` names something in it or git
tracks it. It opens nothing but ignore files, and follows links only to what lies in the project.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_azure_backend.errors import SnapshotError
from mlflow_azure_backend.snapshot.contents import unreadable
from mlflow_azure_backend.snapshot.patterns import FolderPatterns, Layer
from mlflow_azure_backend.snapshot.rules import (
    ENVIRONMENT,
    ENVIRONMENT_MARKERS,
    IGNORE_FILES,
    with_project_lists,
)
from mlflow_azure_backend.snapshot.values import LeftOut
from mlflow_azure_backend.snapshot.work_tree import TrackedFiles, find_work_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_azure_backend.snapshot.patterns import Pattern
    from mlflow_azure_backend.snapshot.rules import SnapshotRules
    from mlflow_azure_backend.snapshot.work_tree import WorkTree

_CAN_SCAN_OPEN_FOLDERS: Final = os.scandir in os.supports_fd
_FOLDER: Final = sum(getattr(os, flag, 0) for flag in ("O_RDONLY", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC"))


@dataclass(frozen=True, slots=True)
class Listing:
    """What a walk found.

    Attributes:
        root: The project's folder, resolved.
        files: NFC POSIX paths below it, sorted, and the status of each.
        elsewhere: Where the content of a file is, when that is not ``root / path``: a link, or a name in another
            Unicode form.
        left_out: Sorted by path.
        patterns: The patterns of the project's folder, to ask about other paths.
    """

    root: str
    files: dict[str, os.stat_result]
    elsewhere: dict[str, str]
    left_out: list[LeftOut]
    patterns: FolderPatterns = field(repr=False)

    def location(self, path: str) -> str:
        """Where the content of a file is."""
        return self.elsewhere.get(path) or f"{self.root}/{path}"

    def allows(self, path: str) -> bool:
        """Whether ``snapshot.allow`` names the file or a folder above it."""
        return _allows(self.patterns, path)


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
    outer = _rules_from_above(Path(resolved), work_tree) if work_tree else FolderPatterns()
    walk = _Walk(resolved, with_project_lists(outer, rules), in_work_tree=work_tree is not None)
    walk.run()
    files = {path: walk.files[path] for path in sorted(walk.files)}
    return Listing(resolved, files, walk.elsewhere, sorted(walk.left_out), walk.patterns)


class _Standing(Enum):
    """How a folder came to be walked."""

    ORDINARY = "no rule speaks of it"
    NAMED = "`include` names it"
    BELOW_NAMED = "`include` names a folder above it"
    LEFT_OUT = "left out, and walked for the exceptions in it"


class _Folder(NamedTuple):
    """A folder that is still to be walked.

    Attributes:
        path: NFC POSIX path below the root with a slash at the end; empty for the root.
        location: The same folder on disk.
        patterns: The patterns for the names in it, its own ignore files not yet among them.
        standing: How it came to be walked.
        against: The pattern by which it is left out; None unless its standing is ``LEFT_OUT``.
        through_link: A link led here.
    """

    path: str
    location: str
    patterns: FolderPatterns
    standing: _Standing = _Standing.ORDINARY
    against: Pattern | None = None
    through_link: bool = False


class _Walk:
    def __init__(self, root: str, patterns: FolderPatterns, *, in_work_tree: bool) -> None:
        self.root = root
        self.patterns = patterns
        self.files: dict[str, os.stat_result] = {}
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
            # Through an open folder its names are looked up faster, and nobody can put a link in its place.
            opened = os.open(folder.location, _FOLDER) if _CAN_SCAN_OPEN_FOLDERS else None
            try:
                with os.scandir(folder.location if opened is None else opened) as scan:
                    self._walk_names(folder, {entry.name: entry for entry in scan})
            finally:
                if opened is not None:
                    os.close(opened)
        except OSError as error:
            raise unreadable(folder.path or ".", error) from error

    def _walk_names(self, folder: _Folder, entries: dict[str, os.DirEntry[str]]) -> None:
        is_environment = folder.path and not entries.keys().isdisjoint(ENVIRONMENT_MARKERS)
        if is_environment and folder.standing in (_Standing.ORDINARY, _Standing.BELOW_NAMED):
            self.left_out.append(LeftOut(folder.path, ENVIRONMENT))
            return
        patterns = folder.patterns
        if not entries.keys().isdisjoint(IGNORE_FILES):
            patterns = patterns.extended(_ignore_lines(folder.location, folder.path), Layer.IGNORE_FILE)
            folder = folder._replace(patterns=patterns)
        ordinary = folder.standing is _Standing.ORDINARY and folder.location == _join(self.root, folder.path[:-1])
        may_match, files, above = patterns.may_match, self.files, folder.path
        for name, entry in entries.items():
            # Nearly all names take one of the two short ways, so nothing is asked on them that is not needed.
            if not ordinary or may_match(name) or not name.isascii():
                self._consider(folder, entry)
            elif entry.is_file(follow_symlinks=False):
                files[above + name] = entry.stat(follow_symlinks=False)
            elif entry.is_dir(follow_symlinks=False):
                location = _join(folder.location, name)
                self._pending.append(_Folder(f"{above}{name}/", location, patterns.entered(name)))
            else:
                self._consider(folder, entry)

    def _consider(self, folder: _Folder, entry: os.DirEntry[str]) -> None:
        """Decide about one name by all rules."""
        name = unicodedata.normalize("NFC", entry.name)
        is_folder = os.path.isdir(_join(folder.location, entry.name))  # noqa: PTH112 (unlike DirEntry.is_dir, it never raises)
        path = folder.path + name
        found = folder.patterns.matches(name, is_folder=is_folder)
        against = self._against(folder, path, found, is_folder=is_folder)
        if against is None:
            self._keep(folder, entry, path, named=_hit(found, Layer.INCLUDE) is not None, is_folder=is_folder)
            return
        if folder.standing is not _Standing.LEFT_OUT:
            self._leave_out(path, against.where, is_folder=is_folder)
        if is_folder and not entry.is_symlink() and self._has_exceptions(folder, name, against):
            below = folder.patterns.entered(name)
            location = _join(folder.location, entry.name)
            self._pending.append(_Folder(f"{path}/", location, below, _Standing.LEFT_OUT, against))

    def _against(self, folder: _Folder, path: str, found: dict[Layer, Pattern], *, is_folder: bool) -> Pattern | None:
        """The pattern that leaves a path out; None when it belongs to the snapshot."""
        secret = None if is_folder else _hit(found, Layer.SECRET)
        if secret is not None and not _allows(self.patterns, path):
            self._refuse_if_asked_for(path, found)
            return secret
        if (exclude := _hit(found, Layer.EXCLUDE)) is not None:
            return exclude
        if _hit(found, Layer.INCLUDE) is not None:
            return None
        if (built_in := _hit(found, Layer.BUILT_IN)) is not None:
            return built_in
        if folder.standing in (_Standing.NAMED, _Standing.BELOW_NAMED):
            return None
        # Below a folder that is left out an ignore file cannot bring anything back, as git has it.
        ignored = folder.against or _hit(found, Layer.IGNORE_FILE)
        if ignored is not None and not is_folder and _is_of_git(ignored) and self._is_tracked(path):
            return None
        return ignored

    def _has_exceptions(self, folder: _Folder, name: str, against: Pattern) -> bool:
        """Whether something may belong to the snapshot that lies below a folder that does not."""
        if against.layer not in (Layer.IGNORE_FILE, Layer.BUILT_IN):
            return False
        if folder.patterns.entered(name).names_below(Layer.INCLUDE):
            return True
        return _is_of_git(against) and self._is_tracked(f"{folder.path}{name}/")

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
            if pattern.last.literal or _hit(self.patterns.matches(text, is_folder=False), Layer.SECRET):
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
            self.files[path] = os.lstat(location)
            if location != _join(self.root, path):
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
        if not is_folder and not os.path.isfile(target):  # noqa: PTH113 (must not raise)
            return "not a regular file"
        # A harmless name must not carry a secret into the snapshot, nor the repository or an environment.
        names = unicodedata.normalize("NFC", os.path.relpath(target, self.root)).replace(os.sep, "/")
        on_the_way = list(_on_the_way(self.patterns, names, is_folder=is_folder))
        secret = None if is_folder else _hit(on_the_way[-1], Layer.SECRET)
        if secret is not None and not _allows(self.patterns, path) and not _allows(self.patterns, names):
            return secret.where
        built_in = next((hit for found in on_the_way if (hit := _hit(found, Layer.BUILT_IN))), None)
        return None if built_in is None else built_in.where

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


def _hit(found: dict[Layer, Pattern], layer: Layer) -> Pattern | None:
    """The pattern that decides in a layer, unless it is a negation."""
    pattern = found.get(layer)
    return None if pattern is None or pattern.negated else pattern


def _is_of_git(pattern: Pattern) -> bool:
    """Whether a pattern stands in one of git's own files, so that tracking a file overrules it."""
    return pattern.layer is Layer.IGNORE_FILE and pattern.where.rpartition(":")[0].endswith(
        (".gitignore", "info/exclude")
    )


def _on_the_way(patterns: FolderPatterns, path: str, *, is_folder: bool) -> Iterator[dict[Layer, Pattern]]:
    """What matches each name of a path, from the root down."""
    *folders, last = path.split("/")
    for name in folders:
        yield patterns.matches(name, is_folder=True)
        patterns = patterns.entered(name)
    yield patterns.matches(last, is_folder=is_folder)


def _allows(patterns: FolderPatterns, path: str) -> bool:
    """Whether ``snapshot.allow`` names a file, or a folder above it."""
    hits = [found[Layer.ALLOW] for found in _on_the_way(patterns, path, is_folder=False) if Layer.ALLOW in found]
    return bool(hits) and not hits[-1].negated


def _rules_from_above(root: Path, work_tree: WorkTree) -> FolderPatterns:
    """The ignore rules of the work tree's folders above the project.

    A work tree that ignores the project's folder has nothing to say about it, for whoever asks to run that folder wants
    what is in it.
    """
    lines = _lines_of(str(work_tree.exclude_file), ".git/info/exclude")
    patterns = FolderPatterns().extended(lines, Layer.IGNORE_FILE)
    folder = work_tree.top
    below = root.relative_to(work_tree.top).parts
    for depth, part in enumerate(below):
        prefix = "../" * (len(below) - depth)
        name = unicodedata.normalize("NFC", part)
        patterns = patterns.extended(_ignore_lines(str(folder), prefix), Layer.IGNORE_FILE)
        if _hit(patterns.matches(name, is_folder=True), Layer.IGNORE_FILE) is not None:
            return FolderPatterns()
        patterns = patterns.entered(name)
        folder /= part
    return patterns


def _ignore_lines(folder: str, prefix: str) -> list[tuple[str, str]]:
    """The lines of a folder's ignore files, weakest first, each with what the user is told about it."""
    return [line for name in IGNORE_FILES for line in _lines_of(_join(folder, name), prefix + name)]


def _lines_of(location: str, shown: str) -> list[tuple[str, str]]:
    try:
        if not stat.S_ISREG(Path(location).stat().st_mode):
            return []
        content = Path(location).read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(shown, error) from error
    text = unicodedata.normalize("NFC", content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape"))
    return [(f"{shown}:{number}", line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1)]
