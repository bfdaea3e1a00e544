"""What the environment cache holds, and making room in it.

A prefix is in use while somebody holds its use file (``store.hold``): the supervisor of a job that runs in it does, for
as long as the job lives. One without a valid marker is broken, whatever broke it, and goes at the next occasion.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from mlflow_azure_backend.environment.cache import unusable
from mlflow_azure_backend.environment.store import key_of, remove_prefix, use_file
from mlflow_azure_backend.files import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

State = Literal["ready", "in use", "broken"]

_NAME: Final = re.compile(r"[0-9a-f]{32}")
_BLOCK: Final = 512  # bytes, whatever the file system's own blocks are: POSIX st_blocks
_LINKED_BY_ITSELF: Final = 1


@dataclass(frozen=True, slots=True)
class CachedEnvironment:
    """An environment on disk.

    Attributes:
        path: Its folder.
        state: ``broken`` is one that no run would use: its marker is missing or wrong, or its Python is gone.
        python: Its Python's version; None where nothing says it.
        packages: How many are installed in it.
        size: Bytes on disk.
        own_size: Those of them that nothing else holds too, such as uv's cache, whose files it shares by hard links:
            what removing it makes free.
        last_used: Seconds since the epoch: the last run in it, else when it was built.
    """

    path: Path
    state: State
    python: str | None
    packages: int
    size: int
    own_size: int
    last_used: float

    @property
    def key(self) -> str:
        """The beginning of its environment key that its folder is named by."""
        return self.path.name


def list_environments(cache: Path) -> list[CachedEnvironment]:
    """All that are on disk, the last used one first; none in a cache that is not there.

    Args:
        cache: The environment cache's folder.

    Raises:
        EnvironmentUnavailable: The cache cannot be read.
    """
    return sorted(map(_look_at, _folders(cache)), key=lambda found: found.last_used, reverse=True)


def count_whole(cache: Path) -> int:
    """How many environments a run could use at once; their sizes, which take a walk through all files, are not asked.

    Args:
        cache: The environment cache's folder.

    Raises:
        EnvironmentUnavailable: The cache cannot be read.
    """
    return sum(key_of(path) is not None for path in _folders(cache))


def _folders(cache: Path) -> list[Path]:
    folder = cache.absolute() / "environments"
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if _NAME.fullmatch(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unusable(error, folder) from None


def prune(
    cache: Path, *, older_than: float | None = None, max_size: int | None = None, dry_run: bool = False
) -> Iterator[CachedEnvironment]:
    """Remove environments, the longest unused first, and yield each that is gone. One that is in use stays.

    Broken ones always go; without a limit, all go that nobody uses.

    Args:
        cache: The environment cache's folder.
        older_than: Seconds; only what was not used for so long.
        max_size: Bytes; only until the rest fits into so many.
        dry_run: Remove nothing, and yield what would be.

    Raises:
        EnvironmentUnavailable: One cannot be removed.
        JournalError: A lock file beside one cannot be opened, such as in a cache that can only be read.
    """
    found = list_environments(cache)
    for chosen in list(_choose(found, older_than, max_size)):
        if dry_run or _remove_unless_used(chosen.path):
            yield chosen


def _choose(
    found: Iterable[CachedEnvironment], older_than: float | None, max_size: int | None
) -> Iterator[CachedEnvironment]:
    found = list(found)
    left, now = sum(one.size for one in found), time.time()
    for one in sorted(found, key=lambda one: (one.state != "broken", one.last_used)):
        too_old = older_than is not None and now - one.last_used > older_than
        too_large = max_size is not None and left > max_size
        unlimited = older_than is None and max_size is None
        if one.state == "broken" or (one.state == "ready" and (too_old or too_large or unlimited)):
            left -= one.size
            yield one


def _remove_unless_used(path: Path) -> bool:
    """Under both locks, so that nobody begins to build or to use it meanwhile; False when somebody has."""
    locks: list[int] = []
    try:
        for file in (use_file(path), path.with_suffix(".lock")):
            descriptor = try_lock(file)
            if descriptor is None:
                return False
            locks.append(descriptor)
        remove_prefix(path)
    except OSError as error:
        raise unusable(error, path) from None
    finally:
        for descriptor in locks:
            os.close(descriptor)
    return True


def _look_at(path: Path) -> CachedEnvironment:
    size, own_size = _sizes(path)
    state: State = "ready"
    # One that is being built has no marker yet, and its builder holds the lock.
    if _is_held(use_file(path)) or _is_held(path.with_suffix(".lock")):
        state = "in use"
    elif key_of(path) is None:
        state = "broken"
    return CachedEnvironment(path, state, _python_of(path), _count_packages(path), size, own_size, _last_use(path))


def _is_held(file: Path) -> bool:
    """True while somebody holds the file's lock, be it together with others."""
    import fcntl

    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _last_use(path: Path) -> float:
    for file in (use_file(path), path):
        with contextlib.suppress(OSError):
            return file.lstat().st_mtime
    return 0.0


def _python_of(path: Path) -> str | None:
    """From ``pyvenv.cfg``, else from the name of conda's own record of the package."""
    with contextlib.suppress(OSError):
        text = (path / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+\.\d+)", text, re.M):
            return found[1]
    records = (re.match(r"python-(\d+\.\d+\.\d+)-", record.name) for record in path.glob("conda-meta/python-*.json"))
    return next((record[1] for record in records if record), None)


def _count_packages(path: Path) -> int:
    installed = sum(1 for _ in path.glob("lib/python*/site-packages/*.dist-info"))
    return max(installed, sum(1 for _ in path.glob("conda-meta/*.json")))


def _sizes(path: Path) -> tuple[int, int]:
    """Bytes on disk, and those that only this folder holds. Links are not followed."""
    size = own = 0
    seen: set[int] = set()
    for folder, _, names in os.walk(path):
        for file in (folder, *(os.path.join(folder, name) for name in names)):  # noqa: PTH118 - 10,000 files a time
            with contextlib.suppress(OSError):
                found = os.lstat(file)
                if found.st_ino in seen:
                    continue
                seen.add(found.st_ino)
                size += found.st_blocks * _BLOCK
                is_shared = found.st_nlink > _LINKED_BY_ITSELF and file != folder
                own += 0 if is_shared else found.st_blocks * _BLOCK
    return size, own
