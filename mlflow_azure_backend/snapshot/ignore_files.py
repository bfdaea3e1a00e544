"""Ignore files: those of a folder, and those of the git work tree above a project."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

from mlflow_azure_backend.snapshot.contents import unreadable
from mlflow_azure_backend.snapshot.patterns import FolderPatterns, Layer, Pattern, hit
from mlflow_azure_backend.snapshot.rules import IGNORE_FILES

if TYPE_CHECKING:
    from mlflow_azure_backend.snapshot.work_tree import WorkTree

_CLONES_OWN = ".git/info/exclude"


def lines_in(folder: str, shown: str) -> list[tuple[str, str]]:
    """The lines of a folder's ignore files, weakest first, each with what the user is told about it.

    Args:
        folder: Where they are.
        shown: The same as the user is told it, with a slash at the end unless it is empty.

    Raises:
        SnapshotError: One of them cannot be read.
    """
    return [line for name in IGNORE_FILES for line in _lines_of(Path(f"{folder}/{name}"), shown + name)]


def patterns_from_above(root: Path, work_tree: WorkTree) -> FolderPatterns:
    """The rules that the work tree's folders above the project have for it, and those of this clone only.

    Left aside are the user's rules for all repositories (``core.excludesFile``), for a snapshot must not depend on who
    takes it; and all of them when they ignore the project's folder, for whoever runs that folder wants what is in it.
    """
    patterns = FolderPatterns().extended(_lines_of(work_tree.exclude_file, _CLONES_OWN), Layer.IGNORE_FILE)
    folder = work_tree.top
    below = root.relative_to(work_tree.top).parts
    for depth, part in enumerate(below):
        name = unicodedata.normalize("NFC", part)
        lines = lines_in(str(folder), "../" * (len(below) - depth))
        patterns = patterns.extended(lines, Layer.IGNORE_FILE)
        if hit(patterns.matches(name, is_folder=True), Layer.IGNORE_FILE) is not None:
            return FolderPatterns()
        patterns = patterns.entered(name)
        folder /= part
    return patterns


def is_of_git(pattern: Pattern) -> bool:
    """Whether a pattern stands in one of git's own files, so that a file that git tracks is not left out by it."""
    file = pattern.where.rpartition(":")[0]
    return pattern.layer is Layer.IGNORE_FILE and (file == _CLONES_OWN or file.endswith(IGNORE_FILES[0]))


def _lines_of(file: Path, shown: str) -> list[tuple[str, str]]:
    try:
        if not S_ISREG(file.stat().st_mode):
            return []
        content = file.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(shown, error) from error
    text = unicodedata.normalize("NFC", content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape"))
    return [(f"{shown}:{number}", line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1)]
