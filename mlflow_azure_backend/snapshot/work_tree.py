"""The git work tree that a project lies in: which of its rules reach into the project, and what it tracks anyway."""

from __future__ import annotations

import bisect
import os
import subprocess
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Git sets these for its hooks; there they would point us to the repository that is being committed to.
_OF_ANOTHER_REPOSITORY: Final = frozenset(
    {"GIT_COMMON_DIR", "GIT_DIR", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_WORK_TREE"}
)


@dataclass(frozen=True, slots=True)
class WorkTree:
    """A git work tree.

    Attributes:
        top: Its folder.
        git_folder: The folder that its linked work trees share, ``.git`` as a rule.
    """

    top: Path
    git_folder: Path

    @property
    def exclude_file(self) -> Path:
        """The ignore rules of this clone only."""
        return self.git_folder / "info" / "exclude"


def find_work_tree(folder: Path) -> WorkTree | None:
    """The innermost work tree that holds the folder; None when there is none that may be trusted.

    As git does, a work tree that belongs to somebody else is not trusted: a ``.gitignore`` that a stranger put into
    ``/tmp`` must not decide what a project there consists of.
    """
    owners = {folder.stat().st_uid, os.geteuid()} if hasattr(os, "geteuid") else None
    for top in (folder, *folder.parents):
        entry = top / ".git"
        try:
            if owners is not None and entry.lstat().st_uid not in owners:
                continue
            git_folder = _git_folder(entry)
        except OSError:
            continue
        if git_folder is not None:
            return WorkTree(top, git_folder)
    return None


def _git_folder(entry: Path) -> Path | None:
    """Follow ``.git`` where a submodule or a linked work tree has a file; see gitrepository-layout(5)."""
    if entry.is_file():
        link = entry.read_text(encoding="utf-8", errors="surrogateescape")
        if not link.startswith("gitdir:"):
            return None
        entry = entry.parent / link.removeprefix("gitdir:").strip()
    if not (entry / "HEAD").is_file():
        return None
    common = entry / "commondir"
    return entry / common.read_text(encoding="utf-8").strip() if common.is_file() else entry


class TrackedFiles:
    """The files below a folder that git tracks, as NFC POSIX paths.

    A file that git tracks although an ignore rule matches it belongs to the project, to git and so to us. Where git is
    missing or refuses, nothing is known to be tracked: a file is then left out by the rule that matches it, and said.
    """

    def __init__(self, folder: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in _OF_ANOTHER_REPOSITORY}
        # `--ignored` would leave less to read, but takes git ten times as long.
        command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), "ls-files", "-z", "--cached"]
        try:
            listed = subprocess.run(command, capture_output=True, check=True, env=environment, timeout=60).stdout
        except (OSError, subprocess.SubprocessError):
            listed = b""
        self._sorted = sorted(unicodedata.normalize("NFC", os.fsdecode(listed)).split("\0"))

    def has(self, path: str) -> bool:
        """Whether the file, or anything in the folder if the path ends in a slash, is tracked."""
        at = bisect.bisect_left(self._sorted, path)
        found = self._sorted[at] if at < len(self._sorted) else ""
        return found.startswith(path) if path.endswith("/") else found == path
