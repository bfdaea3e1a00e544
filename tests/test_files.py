"""Private folders, durable writes and locks, on real disks that are really full."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlflow_azure_backend.errors import JournalError
from mlflow_azure_backend.files import is_locked, make_private_folder, try_lock, wait_for_lock, write_durably


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_is_private_and_whole(nasty_path: Path) -> None:
    path = nasty_path / "state.json"
    write_durably(path, b"first")
    write_durably(path, b"second")
    assert path.read_bytes() == b"second"
    assert mode(path) == 0o600
    assert list(nasty_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_names_the_path_and_the_bytes(small_disk: Path) -> None:
    path = small_disk / "state.json"
    write_durably(path, b"old")
    with pytest.raises(JournalError, match=r"no space left on the disk \(1000000 bytes") as caught:
        write_durably(path, bytes(1_000_000))
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(small_disk.iterdir()) == [path]


def test_a_folder_that_a_link_stands_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").symlink_to(tmp_path / "theirs")
    with pytest.raises(JournalError, match="is a link"):
        make_private_folder(tmp_path / "ours")


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(JournalError, match="another user"):
        make_private_folder(folder)


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="MLFLOW_AZURE_HOME"):
        make_private_folder(tmp_path / "file" / "below")


def test_a_lock_dies_with_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    hold = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mlflow_azure_backend.files import wait_for_lock\n"
        "wait_for_lock(Path(sys.argv[1]))\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        assert is_locked(path)
        assert try_lock(path) is None
        owner.kill()
    assert not is_locked(path)
    descriptor = wait_for_lock(path)
    assert is_locked(path)
    os.close(descriptor)
    assert not is_locked(path)


def test_nobody_holds_a_lock_that_is_not_there(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "lock")


def test_a_folder_that_another_process_removes_meanwhile_is_gone_and_no_link(tmp_path: Path) -> None:
    folder, done = tmp_path / "runs" / "one", threading.Event()

    def remove() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):
                folder.rmdir()

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for _ in range(3000):
            try:
                make_private_folder(folder)
            except JournalError as error:
                assert isinstance(error.__cause__, FileNotFoundError), error
    finally:
        done.set()
        remover.join()
