"""Files into blobs and blobs into files, over a storage service that misbehaves."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from azure.storage.blob import ContentSettings

from mlflow_azure_backend.runtime.blobs import SignedAddress, list_blobs, put_bytes, read_range, size_of
from mlflow_azure_backend.runtime.downloads import RANGE, get_file
from mlflow_azure_backend.runtime.parallel import side_by_side
from mlflow_azure_backend.runtime.refusals import ServiceError
from mlflow_azure_backend.runtime.transport import Transport
from mlflow_azure_backend.runtime.uploads import ONE_REQUEST, put_file
from tests.artifacts.conftest import Container

BIG = random.Random(7).randbytes(2 * ONE_REQUEST + 12_345)
NAMES = [
    "plain.txt",
    "a folder/with space.txt",
    "ünï ☃.txt",
    "100%.txt",
    "a+b.txt",
    "what?.txt",
    "#1.txt",
    "%41.txt",
    "a&b=c'.txt",
]


@pytest.fixture
def big(tmp_path: Path) -> Path:
    file = tmp_path / "big.bin"
    file.write_bytes(BIG)
    return file


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_names_characters_are_the_names(
    container: Container, transport: Transport, tmp_path: Path, name: str
) -> None:
    address = container.address().within(name)
    assert put_bytes(transport, address, b"content")
    assert [(one.name, one.size) for one in list_blobs(transport, container.address())] == [(name, 7)]
    assert container.blob(name).download_blob().readall() == b"content"
    get_file(transport, address, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize("size", [0, 1, RANGE, RANGE + 1, ONE_REQUEST, ONE_REQUEST + 1])
def test_a_file_comes_back_as_it_went(container: Container, transport: Transport, tmp_path: Path, size: int) -> None:
    (tmp_path / "up").write_bytes(BIG[:size])
    up: list[int] = []
    down: list[int] = []
    address = container.address().within("blob")
    assert put_file(transport, address, tmp_path / "up", progress=up.append)
    get_file(transport, address, tmp_path / "down", progress=down.append)
    assert (tmp_path / "down").read_bytes() == BIG[:size]
    assert (sum(up), sum(down), size_of(transport, address)) == (size, size, size)
    md5 = container.blob("blob").get_blob_properties().content_settings.content_md5
    assert md5 == bytearray(hashlib.md5(BIG[:size]).digest())  # noqa: S324 - the storage's checksum
    assert names(tmp_path) == ["down", "up"]


def test_a_listing_is_of_a_prefix_and_in_order(container: Container, transport: Transport) -> None:
    side_by_side(lambda name: put_bytes(transport, container.address().within(name), b""), ["b/2", "a/1", "b/1", "b"])
    assert [one.name for one in list_blobs(transport, container.address(), "b/")] == ["b/1", "b/2"]


def test_a_growing_blob_is_read_as_far_as_it_goes(container: Container, transport: Transport) -> None:
    log = container.blob("log")
    address = container.address().within("log")
    with pytest.raises(ServiceError, match="404 BlobNotFound"):
        read_range(transport, address, 0, 100)
    log.create_append_blob()
    assert read_range(transport, address, 0, 100) == b""
    log.append_block(b"one two")
    assert read_range(transport, address, 0, 100) == b"one two"
    assert read_range(transport, address, 7, 100) == b""
    log.append_block(b" three")
    assert read_range(transport, address, 7, 3) == b" th"


def test_what_must_not_be_overwritten_is_left(container: Container, transport: Transport, big: Path) -> None:
    address = container.address().within("blob")
    assert size_of(transport, address) is None
    assert put_bytes(transport, address, b"first", overwrite=False, metadata={"upload_status": "completed"})
    assert not put_bytes(transport, address, b"second", overwrite=False)
    assert not put_file(transport, address, big, overwrite=False)
    properties = container.blob("blob").get_blob_properties()
    assert (properties.size, properties.metadata) == (5, {"upload_status": "completed"})


def test_blocks_that_arrived_are_not_sent_again(container: Container, transport: Transport, big: Path) -> None:
    address = container.address().within("blob")
    container.emulator.fault("forbidden", method="PUT", path=f"/{container.name}/blob", after=1, times=None)
    with pytest.raises(ServiceError, match="403"):
        put_file(transport, address, big, workers=1)
    assert size_of(transport, address) is None
    container.emulator.clear()
    fault = container.emulator.fault("latency", seconds=0, method="PUT", path=f"/{container.name}/blob", times=None)
    put_file(transport, address, big)
    (order,) = [one for one in container.emulator.faults() if one["number"] == fault]
    assert order["struck"] == 3, "two blocks of three, and the list"
    assert container.blob("blob").download_blob().readall() == BIG


def test_a_file_that_changes_meanwhile_is_not_uploaded(container: Container, transport: Transport, big: Path) -> None:
    def change(_: int) -> None:
        big.write_bytes(BIG[::-1])

    with pytest.raises(ServiceError, match=r"big.bin changed while it was uploaded, so it was not \(PUT "):
        put_file(transport, container.address().within("blob"), big, progress=change, workers=1)
    assert size_of(transport, container.address().within("blob")) is None


FAULTS = [
    {"kind": "status", "status": 500, "after": 1},
    {"kind": "garbage", "after": 2},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "-".join(str(value) for value in fault.values()))
def test_a_service_that_fails_for_a_while(
    container: Container, transport: Transport, big: Path, tmp_path: Path, fault: dict[str, object]
) -> None:
    address = container.address().within("blob")
    container.emulator.fault(**fault, method="PUT", path=f"/{container.name}/*")  # type: ignore[arg-type]
    assert put_file(transport, address, big)
    assert container.blob("blob").download_blob().readall() == BIG
    container.emulator.clear()
    container.emulator.fault(**fault, method="GET", path=f"/{container.name}/*")  # type: ignore[arg-type]
    get_file(transport, address, tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == BIG
    assert names(tmp_path) == ["big.bin", "down"]


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_a_signature_that_ends_meanwhile_is_renewed(
    container: Container, transport: Transport, big: Path, tmp_path: Path, method: str
) -> None:
    asked: list[int] = []

    def renew() -> str:
        asked.append(1)
        return container.url(minutes=90)

    address = SignedAddress(container.url(), renew).within("blob")
    container.emulator.fault("expired-sas", method=method, path=f"/{container.name}/blob", after=2)
    put_file(transport, address, big)
    get_file(transport, address, tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == BIG
    assert asked == [1]


def test_a_signature_that_has_ended_is_renewed_by_one_for_all(
    container: Container, transport: Transport, big: Path
) -> None:
    asked: list[int] = []

    def renew() -> str:
        asked.append(1)
        return container.url()

    old = SignedAddress(container.url(minutes=-5), renew)
    side_by_side(lambda name: put_bytes(transport, old.within(name), b"x"), "abcdefgh")
    assert asked == [1]


@pytest.mark.parametrize("renew", [True, False])
def test_a_signature_that_stays_refused_is_said_without_it(
    container: Container, transport: Transport, tmp_path: Path, renew: bool
) -> None:
    old = container.url(minutes=-5)
    address = SignedAddress(old, (lambda: container.url(minutes=-9)) if renew else None)
    with pytest.raises(ServiceError, match="403") as raised:
        put_bytes(transport, address.within("blob"), b"x")
    said = str(raised.value)
    assert "its firewall or private endpoint" in said
    assert "sig=" not in said
    assert "\n" not in said


def test_a_lost_connection_says_nothing_of_the_signature() -> None:
    signature = "sig=" + "SECRET".lower()
    with pytest.raises(ServiceError) as raised:
        put_bytes(Transport(None, patience=0), SignedAddress(f"https://127.0.0.1:9/c?{signature}").within("blob"), b"")
    assert signature not in "".join(traceback.format_exception(raised.value))


def test_what_is_not_what_was_written_is_no_file(container: Container, transport: Transport, tmp_path: Path) -> None:
    for size in (100, RANGE + 100):
        wrong = ContentSettings(content_md5=bytearray(16))
        container.blob("blob").upload_blob(BIG[:size], overwrite=True)
        container.blob("blob").set_http_headers(wrong)
        with pytest.raises(ServiceError, match="what came is not what the storage has"):
            get_file(transport, container.address().within("blob"), tmp_path / "down")
        assert names(tmp_path) == []


def test_a_blob_that_changes_meanwhile_is_no_file(container: Container, transport: Transport, tmp_path: Path) -> None:
    blob = container.blob("blob")
    blob.upload_blob(BIG)

    def change(_: int) -> None:
        blob.upload_blob(BIG[::-1], overwrite=True)

    with pytest.raises(ServiceError, match="changed while it was downloaded"):
        get_file(transport, container.address().within("blob"), tmp_path / "down", progress=change, workers=1)
    assert names(tmp_path) == []


def test_a_log_that_grows_meanwhile_is_read_as_far_as_it_went(
    container: Container, transport: Transport, tmp_path: Path
) -> None:
    log = container.blob("log")
    log.create_append_blob()
    for start in range(0, len(BIG), RANGE):
        log.append_block(BIG[start : start + RANGE])

    def grow(_: int) -> None:
        log.append_block(b"more")

    get_file(transport, container.address().within("log"), tmp_path / "down", progress=grow, workers=1)
    assert (tmp_path / "down").read_bytes() == BIG


def test_an_interrupted_download_goes_on(container: Container, transport: Transport, tmp_path: Path) -> None:
    container.blob("blob").upload_blob(BIG)
    address = container.address().within("blob")
    container.emulator.fault("forbidden", method="GET", after=3, times=None, path=f"/{container.name}/*")
    with pytest.raises(
        ServiceError, match=r"what has come is kept in .*partial, and the next download goes on from there"
    ):
        get_file(transport, address, tmp_path / "down", workers=1)
    (left,) = names(tmp_path)
    assert left.endswith(".partial")
    container.emulator.clear()
    fault = container.emulator.fault("latency", seconds=0, method="GET", path=f"/{container.name}/*", times=None)
    get_file(transport, address, tmp_path / "down")
    (order,) = [one for one in container.emulator.faults() if one["number"] == fault]
    assert order["struck"] == 1 + -(-len(BIG) // RANGE) - 3
    assert (tmp_path / "down").read_bytes() == BIG
    assert names(tmp_path) == ["down"]


KILLED = """
import os, signal, sys
from pathlib import Path
from mlflow_azure_backend.runtime.blobs import SignedAddress
from mlflow_azure_backend.runtime.downloads import get_file
from mlflow_azure_backend.runtime.transport import Transport

come = []

def progress(size):
    come.append(size)
    if len(come) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

get_file(Transport(None), SignedAddress(sys.argv[1]).within("blob"), Path(sys.argv[2]), progress=progress, workers=1)
"""


def test_a_killed_download_leaves_no_half_file(container: Container, transport: Transport, tmp_path: Path) -> None:
    container.blob("blob").upload_blob(BIG)
    argv = [sys.executable, "-c", KILLED, container.url(), str(tmp_path / "down")]
    assert subprocess.run(argv, env=container.emulator.environment(os.environ)).returncode == -signal.SIGKILL
    assert [name for name in names(tmp_path) if not name.endswith(".partial")] == []
    container.emulator.fault("latency", seconds=0, method="GET", path=f"/{container.name}/*", times=None)
    get_file(transport, container.address().within("blob"), tmp_path / "down")
    (order,) = container.emulator.faults()
    assert order["struck"] == 1 + -(-len(BIG) // RANGE) - 3
    assert (tmp_path / "down").read_bytes() == BIG
    assert names(tmp_path) == ["down"]


def test_two_at_once_do_not_disturb_each_other(container: Container, transport: Transport, tmp_path: Path) -> None:
    container.blob("blob").upload_blob(BIG)
    address = container.address().within("blob")
    side_by_side(lambda _: get_file(transport, address, tmp_path / "down", workers=2), range(4))
    assert (tmp_path / "down").read_bytes() == BIG
    assert names(tmp_path) == ["down"]


def test_a_disk_that_refuses_leaves_nothing(container: Container, transport: Transport, tmp_path: Path) -> None:
    container.blob("blob").upload_blob(BIG)
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "in the way").touch()
    with pytest.raises(OSError, match="down"):
        get_file(transport, container.address().within("blob"), tmp_path / "down")
    assert names(tmp_path) == ["down"]


def test_silence_ends_and_is_said(container: Container, transport: Transport) -> None:
    container.emulator.fault("hang", path=f"/{container.name}/*", times=None)
    with pytest.raises(ServiceError, match="does not answer in time"):
        put_bytes(Transport(None, patience=1), container.address().within("blob"), b"x")


INTERRUPTED = """
import signal, sys
from mlflow_azure_backend.runtime.blobs import SignedAddress, put_bytes
from mlflow_azure_backend.runtime.parallel import side_by_side
from mlflow_azure_backend.runtime.transport import Transport

signal.signal(signal.SIGINT, signal.default_int_handler)
transport, container = Transport(None), SignedAddress(sys.argv[1])

def put(number):
    print(number, flush=True)
    put_bytes(transport, container.within(f"blob {number}"), b"x")

side_by_side(put, range(100), workers=4)
"""


def test_an_interrupt_does_not_wait_for_the_service(container: Container, transport: Transport) -> None:
    container.emulator.fault("hang", path=f"/{container.name}/*", times=None)
    argv = [sys.executable, "-c", INTERRUPTED, container.url()]
    environment = container.emulator.environment(os.environ)
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in process.stderr.read()
        assert process.wait() == -signal.SIGINT


@pytest.mark.parametrize("failure", [ValueError("first"), KeyboardInterrupt()])
def test_the_first_failure_ends_the_work(failure: BaseException) -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 5:
            raise failure
        return number

    with pytest.raises(type(failure)):
        side_by_side(work, range(100_000), workers=4)
    assert len(begun) < 1_000


def test_results_come_in_the_order_of_the_items() -> None:
    double: Callable[[int], int] = lambda number: number * 2  # noqa: E731
    assert side_by_side(double, range(1000)) == [number * 2 for number in range(1000)]
