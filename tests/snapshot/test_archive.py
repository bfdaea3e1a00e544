"""Archives: the same bytes for the same files, whole or not there, and nothing unpacked that we would not have packed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from mlflow_azure_backend.errors import SnapshotError
from mlflow_azure_backend.snapshot import SnapshotRules, extract_archive, take_snapshot, write_archive
from mlflow_azure_backend.snapshot.contents import BLOCK

if TYPE_CHECKING:
    from tests.snapshot.conftest import Take, Write

NAMES = ["a", "b/ü\n.txt", "b/" + "x" * 99, "c/" + "é" * 120, "/".join(["deep" * 10] * 10), "-rf", "it's", "日本/x.py"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "snapshot.tar.zst"


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "unpacked"


def hostile(archive: Path, *members: tuple[dict[str, Any], bytes], end: bytes = bytes(1024)) -> None:
    """Write an archive as somebody else could."""
    data = io.BytesIO()
    for fields, content in members:
        member = tarfile.TarInfo()
        member.size = len(content)
        for name, value in fields.items():
            setattr(member, name, value)
        data.write(member.tobuf(tarfile.PAX_FORMAT))
        data.write(content + bytes(-len(content) % 512))
    archive.write_bytes(zstandard.compress(data.getvalue() + end))


def nothing_but(folder: Path, *names: str) -> bool:
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_what_is_packed_comes_out_again(
    project: Path, write: Write, take: Take, archive: Path, destination: Path
) -> None:
    write({name: name * 1000 for name in NAMES} | {"empty": "", "large": os.urandom(2 * BLOCK + 7)})
    (project / "a").chmod(0o755)
    (project / "link").symlink_to("a")
    snapshot = take()
    write_archive(snapshot, archive)
    extract_archive(archive, destination)
    assert take(destination).files == snapshot.files
    assert not list(destination.rglob("*.lnk")) and not (destination / "link").is_symlink()
    listed = subprocess.run(["tar", "--list", "--zstd", "--file", str(archive)], capture_output=True, check=True).stdout
    assert len(listed.splitlines()) == len(snapshot.files)


def test_one_pass_makes_the_same_bytes_in_another_place_and_time(
    project: Path, tmp_path: Path, write: Write, take: Take, archive: Path
) -> None:
    write({name: name * 1000 for name in NAMES} | {"large": b"x" * (BLOCK + 1)})
    write_archive(take(), archive)
    other = tmp_path / "other"
    shutil.copytree(project, other)
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
    taken = take_snapshot(other, SnapshotRules(), cache=None, archive=tmp_path / "other.tar.zst")
    assert taken.content_hash == take().content_hash
    assert (tmp_path / "other.tar.zst").read_bytes() == archive.read_bytes()
    assert archive.stat().st_mode & 0o777 == 0o600


def test_an_archive_holds_no_time_and_no_owner(write: Write, take: Take, archive: Path) -> None:
    write(dict.fromkeys(NAMES, "x"))
    write_archive(take(), archive)
    with tarfile.open(
        fileobj=io.BytesIO(zstandard.ZstdDecompressor().stream_reader(archive.read_bytes()).read())
    ) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == sorted(NAMES)
    assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in members} == {
        (0, 0, 0, "", 0o644)
    }


@pytest.mark.parametrize("name", ["small", "large"])
@pytest.mark.parametrize("change", ["content", "size", "gone", "link"])
def test_a_file_that_changed_since_the_snapshot_is_named(
    name: str, change: str, project: Path, tmp_path: Path, write: Write, take: Take, archive: Path
) -> None:
    write({"a": "a", "small": "small", "large": b"x" * (BLOCK + 1)})
    snapshot = take()
    if change == "content":
        with (project / name).open("r+b") as file:
            file.write(b"!")
    elif change == "size":
        with (project / name).open("ab") as file:
            file.write(b"!")
    else:
        (project / name).unlink()
        if change == "link":
            (project / name).symlink_to("a")
    with pytest.raises(SnapshotError, match=rf"^{name}: "):
        write_archive(snapshot, archive)
    assert nothing_but(tmp_path, project.name)


def test_a_full_disk_leaves_no_archive(write: Write, take: Take, small_disk: Path) -> None:
    write({"a": os.urandom(1_000_000)})
    with pytest.raises(SnapshotError, match=r"cannot be written: No space left on device; df -h"):
        write_archive(take(), small_disk / "a.tar.zst")
    assert nothing_but(small_disk)


def test_a_full_disk_leaves_nothing_unpacked(write: Write, take: Take, archive: Path, small_disk: Path) -> None:
    write({"a": "a", "b/c": os.urandom(1_000_000)})
    write_archive(take(), archive)
    with pytest.raises(SnapshotError, match="No space left on device"):
        extract_archive(archive, small_disk)
    assert nothing_but(small_disk)


def test_an_archive_is_not_written_into_a_folder_that_does_not_exist(write: Write, take: Take, tmp_path: Path) -> None:
    write({"a": "a"})
    with pytest.raises(SnapshotError, match="No such file or directory"):
        write_archive(take(), tmp_path / "nowhere" / "a.tar.zst")


def test_an_archive_is_unpacked_into_an_empty_folder_only(
    write: Write, take: Take, archive: Path, destination: Path
) -> None:
    write({"a": "a"})
    write_archive(take(), archive)
    destination.mkdir()
    extract_archive(archive, destination)
    with pytest.raises(SnapshotError, match="empty folder"):
        extract_archive(archive, destination)
    assert nothing_but(destination, "a")


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "../evil"},
        {"name": "a/../../evil"},
        {"name": "/evil"},
        {"name": "a//b"},
        {"name": "./a"},
        {"name": "a/"},
        {"name": ""},
        {"name": "é/../../evil"},
        {"name": "evil", "type": tarfile.SYMTYPE, "linkname": "/etc"},
        {"name": "evil", "type": tarfile.LNKTYPE, "linkname": "/etc/passwd"},
        {"name": "evil", "type": tarfile.CHRTYPE},
        {"name": "evil", "type": tarfile.BLKTYPE},
        {"name": "evil", "type": tarfile.FIFOTYPE},
        {"name": "evil", "type": tarfile.DIRTYPE},
        {"name": "evil", "type": tarfile.GNUTYPE_SPARSE},
        {"name": "evil", "type": tarfile.GNUTYPE_LONGNAME},
        {"name": "evil", "size": 10**12},
        {"name": "evil", "pax_headers": {"size": "-5"}},
        {"name": "evil", "pax_headers": {"size": "many"}},
        {"name": "evil", "pax_headers": {"path": "../evil"}},
        {"name": "first"},
        {"name": "first/evil"},
        {"name": "a/" * 1500 + "a"},
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_hostile_members_are_refused(fields: dict[str, Any], tmp_path: Path, archive: Path, destination: Path) -> None:
    hostile(archive, ({"name": "first"}, b"harmless"), (fields, b""))
    with pytest.raises(SnapshotError):
        extract_archive(archive, destination)
    assert nothing_but(tmp_path, archive.name)


def test_a_harmless_archive_of_another_tool_is_unpacked(archive: Path, destination: Path) -> None:
    hostile(archive, ({"name": "a/b", "mode": 0o700}, b"x" * 600), ({"name": "é"}, b""))
    extract_archive(archive, destination)
    assert (destination / "a/b").read_bytes() == b"x" * 600
    assert os.access(destination / "a/b", os.X_OK)
    assert not (destination / "é").stat().st_mode & 0o111


@pytest.mark.parametrize(
    "members",
    [
        [({"name": f"{number}"}, bytes(1_000_000)) for number in range(3)],
        [({"name": "a"}, bytes(3_000_000))],
    ],
    ids=["many", "large"],
)
def test_more_bytes_than_allowed_are_refused(
    members: list[tuple[dict[str, Any], bytes]], archive: Path, destination: Path
) -> None:
    hostile(archive, *members)
    with pytest.raises(SnapshotError, match="unpacks to more than 2000000 bytes"):
        extract_archive(archive, destination, max_size=2_000_000)
    assert not destination.exists()
    extract_archive(archive, destination, max_size=3_000_000)


def test_a_name_that_fills_the_memory_is_refused(archive: Path, destination: Path) -> None:
    hostile(archive, ({"name": "x" * 10_000_000}, b""))
    with pytest.raises(SnapshotError, match="a name is too long"):
        extract_archive(archive, destination)


def test_an_archive_that_is_cut_anywhere_is_refused(write: Write, take: Take, archive: Path, destination: Path) -> None:
    write({"a": "a" * 600, "b": os.urandom(300_000), "é": "c"})
    write_archive(take(), archive)
    whole = archive.read_bytes()
    for length in [*range(40), *range(40, len(whole), len(whole) // 40), *range(len(whole) - 20, len(whole) - 4)]:
        archive.write_bytes(whole[:length])
        with pytest.raises(SnapshotError):
            extract_archive(archive, destination)
        assert not destination.exists(), length


def test_a_flipped_bit_is_noticed(write: Write, take: Take, archive: Path, destination: Path) -> None:
    write({"a": "a" * 600, "b": os.urandom(30_000)})
    write_archive(take(), archive)
    whole = archive.read_bytes()
    for position in range(6, len(whole), len(whole) // 50):
        archive.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(SnapshotError):
            extract_archive(archive, destination)
        assert not destination.exists(), position


@pytest.mark.parametrize(
    "content", [b"", b"no archive at all", zstandard.compress(b""), zstandard.compress(b"x" * 2048)]
)
def test_what_is_no_archive_is_refused(content: bytes, archive: Path, destination: Path) -> None:
    archive.write_bytes(content)
    with pytest.raises(SnapshotError, match="damaged"):
        extract_archive(archive, destination)


def test_an_archive_without_an_end_is_refused(archive: Path, destination: Path) -> None:
    for end in (b"", bytes(512), bytes(512) + b"x" * 512, bytes(2048)):
        hostile(archive, ({"name": "a"}, b"x"), end=end)
        with pytest.raises(SnapshotError, match="damaged"):
            extract_archive(archive, destination)
    assert not destination.exists()


def test_an_archive_that_is_not_there_is_named(archive: Path, destination: Path) -> None:
    with pytest.raises(SnapshotError, match=r"snapshot\.tar\.zst: .*cannot be read: No such file"):
        extract_archive(archive, destination)
