"""What is known of unchanged files: used when it can be trusted, and nowhere else."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_azure_backend.snapshot import SnapshotRules, take_snapshot
from mlflow_azure_backend.snapshot.stat_cache import StatCache

if TYPE_CHECKING:
    from tests.snapshot.conftest import Write

# Files that were written long before this test, which no test can do.
OLD = Path(json.__file__).parent
STATUS = (100, 10**18, 10**18, 7, 0o100644)
HASH = hashlib.sha256(b"x").hexdigest()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def stat_cache(cache: Path) -> StatCache:
    return StatCache(cache, "/project", purpose="test")


def one_file(cache: Path) -> Path:
    (file,) = cache.iterdir()
    return file


def test_an_unchanged_file_is_known(cache: Path) -> None:
    first = stat_cache(cache)
    assert first.all_unchanged({"a\nb": STATUS}) is None
    first.keep("a\nb", STATUS, HASH)
    first.save("whole", 1)
    assert stat_cache(cache).sha256("a\nb", STATUS) == HASH
    assert stat_cache(cache).all_unchanged({"a\nb": STATUS}) == ("whole", [HASH])
    assert StatCache(cache, "/other", purpose="test").sha256("a\nb", STATUS) is None
    assert StatCache(cache, "/project", purpose="other").sha256("a\nb", STATUS) is None


@pytest.mark.parametrize("number", range(5))
def test_whatever_changes_in_its_status_makes_a_file_unknown(number: int, cache: Path) -> None:
    first = stat_cache(cache)
    first.keep("a", STATUS, HASH)
    first.save("whole", 1)
    changed = tuple(value + (index == number) for index, value in enumerate(STATUS))
    assert stat_cache(cache).sha256("a", changed) is None  # type: ignore[arg-type]  # five numbers again
    assert stat_cache(cache).all_unchanged({"a": changed}) is None  # type: ignore[dict-item]  # as above


def test_what_was_not_all_kept_does_not_vouch_for_the_whole(cache: Path) -> None:
    first = stat_cache(cache)
    first.keep("a", STATUS, HASH)
    first.save("hash of two files", 2)
    assert stat_cache(cache).all_unchanged({"a": STATUS}) is None


def test_files_that_come_and_go_are_noticed(cache: Path) -> None:
    first = stat_cache(cache)
    first.keep("a", STATUS, HASH)
    first.keep("b", STATUS, HASH)
    first.save("whole", 2)
    for paths in (["a"], ["a", "b", "c"], ["a", "c"]):
        assert stat_cache(cache).all_unchanged(dict.fromkeys(paths, STATUS)) is None


def test_the_hash_of_a_file_written_just_now_is_not_kept(project: Path, write: Write, cache: Path) -> None:
    write({"a": "old"})
    before = (project / "a").stat()
    take_snapshot(project, SnapshotRules(), cache=cache)
    write({"a": "new"})
    os.utime(project / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    taken = take_snapshot(project, SnapshotRules(), cache=cache)
    assert taken.files[0].sha256 == hashlib.sha256(b"new").hexdigest()
    assert not cache.exists()


def test_old_files_are_not_read_again(cache: Path) -> None:
    taken = take_snapshot(OLD, SnapshotRules(), cache=cache)
    # A hash that no file has can come out of the cache only.
    honest = one_file(cache).read_bytes()
    replace_hash(cache, taken.files[0].sha256, "0" * 64)
    again = take_snapshot(OLD, SnapshotRules(), cache=cache)
    assert again.files[0].sha256 == "0" * 64
    assert again.files[1:] == taken.files[1:]
    assert take_snapshot(OLD, SnapshotRules(), cache=None) == taken
    one_file(cache).write_bytes(honest)
    assert take_snapshot(OLD, SnapshotRules(), cache=cache) == taken
    assert one_file(cache).read_bytes() == honest


def replace_hash(cache: Path, old: str, new: str) -> None:
    import zlib

    head, _, body = one_file(cache).read_bytes().partition(b"\n")
    body = body.replace(old.encode(), new.encode())
    one_file(cache).write_bytes(head[:-8] + f"{zlib.crc32(body):08x}".encode() + b"\n" + body)


def test_files_that_were_not_searched_are_read_again_before_they_leave(cache: Path) -> None:
    taken = take_snapshot(OLD, SnapshotRules(), cache=cache)
    replace_hash(cache, taken.files[0].sha256, "0" * 64)
    assert take_snapshot(OLD, SnapshotRules(), cache=cache, leaves_machine=True) == taken


def test_the_cache_is_private(cache: Path) -> None:
    take_snapshot(OLD, SnapshotRules(), cache=cache)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert one_file(cache).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "foreign", "writable", "link", "folder", "pipe"])
def test_a_cache_that_cannot_be_trusted_is_not_used(damage: str, cache: Path, tmp_path: Path) -> None:
    taken = take_snapshot(OLD, SnapshotRules(), cache=cache)
    replace_hash(cache, taken.files[0].sha256, "0" * 64)
    file = one_file(cache)
    content = file.read_bytes()
    if damage == "flipped":
        file.write_bytes(content.replace(b"0" * 64, b"1" + b"0" * 63))
    elif damage == "truncated":
        file.write_bytes(content[:-10])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "foreign":
        os.chown(file, 4242, 4242)
    elif damage == "writable":
        cache.chmod(0o777)
    else:
        file.unlink()
        if damage == "link":
            (tmp_path / "elsewhere").write_bytes(content)
            file.symlink_to(tmp_path / "elsewhere")
        elif damage == "folder":
            file.mkdir()
        else:
            os.mkfifo(file)
    assert take_snapshot(OLD, SnapshotRules(), cache=cache) == taken


@pytest.mark.parametrize("place", ["a file", "full disk"])
def test_a_cache_that_cannot_be_written_costs_nothing_but_time(place: str, tmp_path: Path, small_disk: Path) -> None:
    cache = small_disk / "cache"
    if place == "a file":
        cache = tmp_path / "file"
        cache.touch()
    else:
        filler = (b"x" * 4096 for _ in range(16))
        with pytest.raises(OSError, match="No space left"), (small_disk / "filler").open("wb") as file:
            file.writelines([*filler, b"x"])
    assert take_snapshot(OLD, SnapshotRules(), cache=cache) == take_snapshot(OLD, SnapshotRules(), cache=None)
    assert not list(small_disk.rglob(".stat-*"))


TAKE = """
import sys
from pathlib import Path
from mlflow_azure_backend.snapshot import SnapshotRules, take_snapshot
for number in range(20):
    rules = SnapshotRules(exclude=(f"*{sys.argv[3]}*",) if number % 2 else ())
    print(take_snapshot(Path(sys.argv[1]), rules, cache=Path(sys.argv[2])).content_hash)
"""


def test_many_may_write_the_cache_at_once(cache: Path) -> None:
    excluded = ("decoder", "encoder", "scanner", "tool")
    start = [sys.executable, "-c", TAKE, str(OLD), str(cache)]
    running = [subprocess.Popen([*start, name], stdout=subprocess.PIPE, text=True) for name in excluded]
    for name, process in zip(excluded, running, strict=True):
        said = process.communicate()[0].split()
        rules = (SnapshotRules(), SnapshotRules(exclude=(f"*{name}*",)))
        assert said == [take_snapshot(OLD, rule, cache=None).content_hash for rule in rules] * 10
    assert len(list(cache.iterdir())) == 1
