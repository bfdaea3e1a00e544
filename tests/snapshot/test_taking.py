"""The content hash, the size, what may not leave the machine, and files that do not hold still."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_azure_backend.errors import SnapshotError
from mlflow_azure_backend.snapshot import SnapshotFile, SnapshotRules, take_snapshot
from mlflow_azure_backend.snapshot.contents import BLOCK

if TYPE_CHECKING:
    from tests.snapshot.conftest import Listed, Take, Write

# Nobody's keys: random characters of the right form.
BASE64 = "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5zA7bC9dE1fG3hI5jK7lM9nO1pQ3rS5tU7vW9xY1zA3bC5dE7fG"
KEY = {
    "a private key": f"-----BEGIN PRIVATE KEY-----\n{BASE64[:64]}\n",
    "a private key in JSON": rf'{{"private_key": "-----BEGIN RSA PRIVATE KEY-----\n{BASE64[:64]}\n"}}',
    "an Azure storage account key": f"DefaultEndpointsProtocol=https;AccountName=x;AccountKey={BASE64[:86]}==",
    "an Azure access key": f"Endpoint=sb://x/;SharedAccessKeyName=a;SharedAccessKey={BASE64[:43]}=",
    "an Azure shared access signature": f"https://x/c?sv=2022-11-02&se=2030-01-01T00%3A00Z&sp=r&sig={BASE64[:43]}%3D",
    "an Azure shared access signature, turned round": f"?sig={BASE64[:43]}%3D&sp=r&se=2030-01-01",
    "an Azure client secret": f"secret = 'abc8Q~{BASE64[:34]}'",
    "an AWS secret access key": f"aws_secret_access_key = {BASE64[:40]}",
    "an AWS secret access key, exported": f'export AWS_SECRET_ACCESS_KEY="{BASE64[:40]}"',
    "a GitHub token": f"token: ghp_{BASE64[:36]}",
    "a GitHub token, fine-grained": f"github_pat_{BASE64[:82]}",
}
NO_KEY = {
    "a header without a key": 'if "-----BEGIN PRIVATE KEY-----" in text: pass',
    "a public key": f"-----BEGIN PUBLIC KEY-----\n{BASE64[:64]}\n",
    "a placeholder": "AccountKey=<your key>; aws_secret_access_key=XXXX; ?sig=...&se=2030",
    "the emulator's key": (
        "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    ),
    "the example of AWS's documentation": "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "a hash": f"sha256={BASE64[:64]}",
}


def test_a_snapshot_says_what_it_holds(project: Path, write: Write, take: Take) -> None:
    write({"b": "two", "a": "one"})
    (project / "b").chmod(0o755)
    snapshot = take()
    hashes = [hashlib.sha256(text).hexdigest() for text in (b"one", b"two")]
    assert snapshot.files == (SnapshotFile("a", 3, hashes[0], False), SnapshotFile("b", 3, hashes[1], True))
    assert snapshot.size == 6
    lines = f"mlflow-azure-backend snapshot 1\na\0003\0{hashes[0]}\0-\nb\0003\0{hashes[1]}\0x\n"
    assert snapshot.content_hash == hashlib.sha256(lines.encode()).hexdigest()


def test_the_hash_is_the_same_in_every_checkout(project: Path, tmp_path: Path, write: Write, take: Take) -> None:
    write({"a": "1", "b/c": "2", ".gitignore": "*.log\n"})
    first = take()
    other = tmp_path / "other"
    shutil.copytree(project, other)
    (other / "only-here.log").touch()
    (other / "__pycache__").mkdir()
    os.utime(other / "a", (0, 0))
    (other / "a").chmod(0o600)
    assert take(other).content_hash == first.content_hash


@pytest.mark.parametrize("change", ["content", "name", "executable", "more", "less"])
def test_the_hash_tells_what_differs(change: str, project: Path, write: Write, take: Take) -> None:
    write({"a": "1", "b": "2"})
    before = take().content_hash
    if change == "content":
        (project / "a").write_text("3")
    elif change == "name":
        (project / "a").rename(project / "c")
    elif change == "executable":
        (project / "a").chmod(0o744)
    elif change == "more":
        (project / "c").touch()
    else:
        (project / "b").unlink()
    assert take().content_hash != before


def test_a_project_without_files_is_a_snapshot_too(take: Take) -> None:
    assert (take().files, take().size) == ((), 0)


def test_too_many_bytes_are_refused_before_they_are_read(project: Path, write: Write, listed: Listed) -> None:
    write(
        {"src/train.py": "x" * 100, "src/it's big/b.bin": "x" * 3_000, "src/c.csv": "x" * 2_000, "src/d": "x" * 1_000}
    )
    (project / "src/it's big/a.bin").touch()
    os.truncate(project / "src/it's big/a.bin", 8_000_000_000_000)
    with pytest.raises(SnapshotError) as refused:
        listed()
    line = str(refused.value)
    assert "are 8 TB, more than snapshot.max_size (300 MB); the largest: src/it's big/a.bin (8 TB)" in line
    assert "src/it's big/b.bin (3 kB)" in line
    subprocess.run(["sh", "-c", re.search(r"echo .* >> \.mlflowignore", line)[0]], cwd=project, check=True)  # type: ignore[index]
    assert listed() == [".mlflowignore", "src/c.csv", "src/d", "src/it's big/b.bin", "src/train.py"]
    with pytest.raises(SnapshotError, match=r"6\.1\d kB.*6\.1 kB.*src/it's big/ \(3 kB\), src/c\.csv \(2 kB\), src/d"):
        listed(max_size=6_100)


@pytest.mark.parametrize("kind", KEY)
def test_key_material_does_not_leave_the_machine(kind: str, project: Path, write: Write, tmp_path: Path) -> None:
    write({"src/a.py": f"# first line\n\n{KEY[kind]}\n", "b.py": ""})
    archive = tmp_path / "a.tar.zst"
    where = rf"^src/a\.py:3: holds {kind.partition(',')[0].removesuffix(' in JSON')}.*snapshot\.allow"
    for packed in (None, archive):
        with pytest.raises(SnapshotError, match=where):
            take_snapshot(project, SnapshotRules(), cache=None, leaves_machine=True, archive=packed)
    assert [path.name for path in tmp_path.iterdir()] == [project.name]
    assert len(take_snapshot(project, SnapshotRules(), cache=None).files) == 2
    allowed = SnapshotRules(allow=("src/a.py",))
    assert len(take_snapshot(project, allowed, cache=None, leaves_machine=True).files) == 2


@pytest.mark.parametrize("kind", NO_KEY)
def test_what_only_resembles_key_material_may_leave(kind: str, project: Path, write: Write) -> None:
    write({"a": NO_KEY[kind]})
    assert take_snapshot(project, SnapshotRules(), cache=None, leaves_machine=True).files


def test_all_files_with_key_material_are_named(project: Path, write: Write) -> None:
    write(dict.fromkeys("abcdef", KEY["a GitHub token"]))
    with pytest.raises(SnapshotError, match=r"^a:1: .*so do b:1, c:1, d:1 and 2 more"):
        take_snapshot(project, SnapshotRules(), cache=None, leaves_machine=True)


@pytest.mark.parametrize("offset", range(-120, 40, 20))
def test_key_material_across_the_border_of_two_blocks_is_found(offset: int, project: Path) -> None:
    before = BLOCK + offset
    text = KEY["an Azure storage account key"]
    (project / "a").write_bytes(b"\n" * before + text.encode() + b" " * BLOCK)
    with pytest.raises(SnapshotError, match=rf"^a:{before + 1}: "):
        take_snapshot(project, SnapshotRules(), cache=None, leaves_machine=True)


TOUCH_FOR_EVER = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_WRONLY)
print("writing", flush=True)
while True:
    os.pwrite(descriptor, b"x", 0)
    os.utime(descriptor)
"""


def test_a_file_that_is_being_written_to_is_named(project: Path, tmp_path: Path, write: Write, take: Take) -> None:
    write({"a": "", "growing file.bin": ""})
    # So large that it cannot be read between two writes.
    os.truncate(project / "growing file.bin", 8 * BLOCK)
    command = [sys.executable, "-c", TOUCH_FOR_EVER, str(project / "growing file.bin")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        said = r"^growing file\.bin: changed while the snapshot was taken.*>> \.mlflowignore"
        with pytest.raises(SnapshotError, match=said):
            take()
        with pytest.raises(SnapshotError, match=said):
            take_snapshot(project, SnapshotRules(), cache=None, archive=tmp_path / "a.tar.zst")
        writer.kill()
    assert [path.name for path in tmp_path.iterdir()] == [project.name]
