"""Rows 17 and 18: disks that are full at every step, that cannot be written to, and homes that are not there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.checker import check
from tests.faults.world import QUICK, World, small_disk

NOISY = "for n in range(4000): say(b'%06d 0123456789abcdef0123456789abcdef\\n' % n)"
NewWorld = Callable[[], World]


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """Make a folder read-only, for root too."""
    mounted: list[Path] = []

    def mount(folder: Path) -> None:
        subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
        mounted.append(folder)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("what", ["home", "cache"])
@pytest.mark.parametrize("limit", [f"size=1m,nr_inodes={n}" for n in (1, 2, 4, 7, 9, 11, 13, 16, 19, 22)])
def test_no_more_files(world: World, what: str, limit: str) -> None:
    world.write_project(QUICK)
    run_on_small_disk(world, getattr(world, what), limit)


@pytest.mark.parametrize("pages", [1, 2, 3, 5, 7, 9, 11, 14, 18, 24])
def test_no_more_bytes_at_home(world: World, pages: int) -> None:
    world.write_project(QUICK)
    run_on_small_disk(world, world.home, f"size={pages * 4096}")


def run_on_small_disk(world: World, folder: Path, limit: str) -> None:
    """Whatever the step at which the disk is full: it works, or one line names the file; then nothing is lost."""
    with small_disk(folder, limit):
        client = world.run()
        code = client.wait()
        assert code in (0, 1), client.err
        assert "Traceback" not in client.err
        world.await_quiet()
        assert world.starts() <= 1
        if world.starts():
            assert client.out == world.side.read_bytes(), "the console has the log whatever the disk does"
        subprocess.run(["mount", "-o", "remount,size=10m,nr_inodes=10k", str(folder)], check=True)
        world.next_command()
        assert world.start("mlflow-azure", "sync").wait() == 0
        runs = world.runs()
        assert len(runs) <= 1
        said = ("finished",) if code == 0 else ("o space left on", str(folder))
        check(
            world,
            runs=len(runs),
            starts=world.starts(),
            status="FINISHED" if code == 0 else None,
            says=said,
            logs_apart=True,
        )


def test_a_disk_that_fills_up_with_the_log(world: World) -> None:
    world.write_project(NOISY)
    with small_disk(world.home, "size=96k"):
        client = world.run()
        code = client.wait()
        assert code == 0, client.err
        assert client.out == world.side.read_bytes()
        subprocess.run(["mount", "-o", "remount,size=10m", str(world.home)], check=True)
        assert world.start("mlflow-azure", "sync").wait() == 0
        check(world, status="FINISHED", says=("finished",), logs_apart=True)


@pytest.mark.parametrize("kilobytes", [1100, 1300, 1500])
def test_a_store_that_is_full(world: World, kilobytes: int) -> None:
    world.write_project(NOISY)
    database = world.database.read_bytes()
    with small_disk(world.store, f"size={kilobytes}k"):
        world.database.write_bytes(database[: kilobytes * 1024])
        whole = len(database) <= kilobytes * 1024
        client = world.run()
        code = client.wait()
        world.await_quiet()
        assert "Traceback" not in client.err
        subprocess.run(["mount", "-o", "remount,size=20m", str(world.store)], check=True)
        if whole:
            assert world.start("mlflow-azure", "sync").wait() == 0
            runs = world.runs()
            check(world, runs=len(runs), starts=world.starts(), status="FINISHED" if code == 0 else None)
        else:
            assert code == 1


def test_a_project_that_cannot_be_written_to(world: World, read_only: Callable[[Path], None]) -> None:
    world.write_project(QUICK)
    read_only(world.project)
    assert world.run().wait() == 0
    check(world, status="FINISHED", says=("finished",))


def test_we_write_nothing_into_the_project(world: World) -> None:
    world.write_project(QUICK)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (world.project, *world.project.rglob("*")))
    assert world.run().wait() == 0
    after = sorted((path.name, path.stat().st_mtime_ns) for path in (world.project, *world.project.rglob("*")))
    assert after == before


@pytest.mark.parametrize("home", ["missing", "unset", "read-only"])
def test_without_a_home(world: World, read_only: Callable[[Path], None], home: str) -> None:
    world.write_project(QUICK)
    for name in ("MLFLOW_AZURE_HOME", "MLFLOW_AZURE_CACHE"):
        del world.environment[name]
    if home == "missing":
        world.environment["HOME"] = str(world.folder / "nowhere")
    elif home == "unset":
        del world.environment["HOME"]
    else:
        read_only(Path(world.environment["HOME"]))
    client = world.run()
    assert client.wait() == 0, client.err
    (ours,) = world.temporary.iterdir()
    assert ours.stat().st_mode & 0o777 == 0o700
    assert str(ours) in client.err, "where the state is must be said"
    assert [status for _, status in world.runs()] == ["FINISHED"]


@pytest.mark.parametrize("what", ["home", "cache"])
def test_a_read_only_state(world: World, read_only: Callable[[Path], None], what: str) -> None:
    world.write_project(QUICK)
    folder: Path = getattr(world, what)
    folder.mkdir(mode=0o700)
    read_only(folder)
    client = world.run()
    code = client.wait()
    if what == "home":
        assert code == 1
        check(world, runs=0, says=(str(folder), "MLFLOW_AZURE_HOME"))
    else:  # the cache only saves time
        assert code == 0
        check(world, status="FINISHED", says=("finished",))
