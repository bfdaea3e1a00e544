"""Our copy of a job's log: each byte once, whoever fetches it and wherever a writer was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_azure_backend.workspace.remote_log import RemoteLog

ONE = "user_logs/std_log.txt"


class Service:
    """Logs that grow; counts the bytes that were read of them."""

    def __init__(self) -> None:
        self.logs: dict[str, bytes] = {}
        self.read_bytes = 0

    def read(self, name: str, offset: int, length: int) -> bytes:
        data = self.logs[name][offset : offset + length]
        self.read_bytes += len(data)
        return data


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def file(nasty_path: Path) -> Path:
    return nasty_path / "std_log.txt"


def rank(number: int) -> str:
    return f"user_logs/std_log_process_{number:02}.txt"


def test_the_log_of_one_process_is_copied_byte_for_byte_and_read_once(service: Service, file: Path) -> None:
    whole = b"\x00\xff\r10%\r20%\nno end" * 1000
    for length in (0, 7, 5000, len(whole)):
        service.logs[ONE] = whole[:length]
        RemoteLog(file, service.read).fetch(service.logs, final=False)  # each time another process
    assert file.read_bytes() == whole
    assert service.read_bytes == len(whole)


def test_nothing_is_copied_before_there_is_a_log(service: Service, file: Path) -> None:
    service.logs["system_logs/lifecycler/lifecycler.log"] = b"not the project's"
    assert RemoteLog(file, service.read).fetch(service.logs, final=True) == 0
    assert not file.exists()


def test_several_ranks_are_told_apart_by_whole_lines(service: Service, file: Path) -> None:
    log = RemoteLog(file, service.read)
    service.logs = {rank(0): b"a\nb", rank(1): b"x\n\ny\n"}
    assert log.fetch(service.logs, final=False) == 7
    assert file.read_bytes() == b"[rank 0] a\n[rank 1] x\n[rank 1] \n[rank 1] y\n"
    service.logs[rank(0)] += b"c\nend"
    log.fetch(service.logs, final=False)
    assert file.read_bytes().endswith(b"[rank 1] y\n[rank 0] bc\n")
    log.fetch(service.logs, final=True)
    log.fetch(service.logs, final=True)
    assert file.read_bytes().endswith(b"[rank 0] bc\n[rank 0+] end\n")


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_line_that_a_killed_writer_left_is_fetched_again(service: Service, file: Path, cut: int) -> None:
    service.logs = {rank(0): b"one\ntwo\n", rank(1): b"three\n"}
    RemoteLog(file, service.read).fetch(service.logs, final=True)
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    RemoteLog(file, service.read).fetch(service.logs, final=True)
    assert sorted(file.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_rank_that_comes_late_or_vanishes_does_no_harm(service: Service, file: Path) -> None:
    log = RemoteLog(file, service.read)
    service.logs = {rank(1): b"late\n"}
    log.fetch(service.logs, final=False)
    service.logs = {rank(0): b"first\n"}
    log.fetch(service.logs, final=False)
    assert file.read_bytes() == b"[rank 1] late\n[rank 0] first\n"


def test_a_line_that_is_too_long_is_shown_in_pieces_and_none_of_it_is_lost(
    service: Service, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow_azure_backend.workspace.remote_log._CHUNK", 4)
    service.logs = {rank(0): b"0123456789\nab\n"}
    log = RemoteLog(file, service.read)
    log.fetch(service.logs, final=False)
    log.fetch(service.logs, final=True)
    assert file.read_bytes() == b"[rank 0+] 0123\n[rank 0+] 4567\n[rank 0] 89\n[rank 0] ab\n"


def test_a_link_in_its_place_is_not_followed(service: Service, file: Path, tmp_path: Path) -> None:
    from mlflow_azure_backend.errors import JournalError

    file.symlink_to(tmp_path / "elsewhere")
    service.logs[ONE] = b"x"
    with pytest.raises(JournalError):
        RemoteLog(file, service.read).fetch(service.logs, final=False)
    assert not (tmp_path / "elsewhere").exists()
