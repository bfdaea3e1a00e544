"""What must hold after every case, whatever was broken: I1 to I6 of the reliability goals.

========  ==============================================================================================================
I1        no run is left active in the tracking store
I2        exactly as many runs and started commands as there are jobs
I3        the log artifact, and our copy, are what the child wrote, byte for byte
I4        one clear line that names the cause and the next step; never a traceback of ours
I5        nothing left behind: process, lock, temporary file, marker, checkout, half an environment
I6        no canary in anything that we write (the child's own output apart); files 0600, folders 0700
========  ==============================================================================================================
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.faults.world import World

LARGEST_WRITE: Final = 64
"""Bytes that a child which was killed may have logged without the side file."""
_STALE: Final = re.compile(r"^\..*|.*\.reserve$|^checkout$|^work$|^inputs$")
_KINDS_OF_LOCK: Final = ("*.lock", "lease")


def check(
    world: World,
    *,
    runs: int = 1,
    starts: int | None = None,
    status: str | None = None,
    killed: bool = False,
    cut: bool = False,
    says: tuple[str, ...] | None = None,
    recorded: bool = True,
    logs_apart: bool = False,
    half_built: bool = False,
) -> None:
    """Assert I1 to I6.

    Args:
        world: The case's world; its last ``run`` client has ended.
        runs: How many runs the store must have.
        starts: How often the child must have begun; None: as often as there are runs.
        status: What every run's status must be; None: any that is final.
        killed: The child was killed, so its last write may be missing from the side file.
        cut: The supervisor was killed, so what it had not read yet is missing from the log.
        says: Words of the one line; None: the case is about a client that was killed and could say nothing.
        recorded: The runs had jobs, so their logs are artifacts; False: they came to nothing.
        logs_apart: The case looks at the logs itself: there are several, or a full disk kept them from the store.
        half_built: The builder of an environment was killed: what it left is not used, and goes when the next one builds.
    """
    world.await_quiet()
    check_nothing_active(world, runs, status)
    assert world.starts() == (runs if starts is None else starts)
    if recorded and runs and not logs_apart:
        check_logs(world, killed=killed, cut=cut)
    check_lines(world, says)
    check_nothing_left(world)
    if not half_built:
        check_environments(world)
    check_private(world)


def check_nothing_active(world: World, runs: int, status: str | None) -> None:
    """I1 and the half of I2 that the store knows."""
    found = world.runs()
    assert len(found) == runs, found
    for run_id, word in found:
        assert word in ({status} if status else {"FINISHED", "FAILED", "KILLED"}), (run_id, word)


def check_logs(world: World, *, killed: bool, cut: bool) -> None:
    """I3. Only for worlds of one job, whose child wrote the side file."""
    expected = world.side.read_bytes() if world.side.exists() else b""
    logs = [path.read_bytes() for path in log_artifacts(world)]
    logs += [path.read_bytes() for folder in world.run_folders() for path in folder.glob("std_log.txt")]
    assert logs, "no log"
    for log in logs:
        if cut and expected.startswith(log):
            continue
        if killed:
            assert log.startswith(expected), (log[-200:], expected[-200:])
            assert len(log) - len(expected) <= LARGEST_WRITE
        else:
            assert log == expected, (log[-200:], expected[-200:])


def check_lines(world: World, says: tuple[str, ...] | None) -> None:
    """I4."""
    for text in _what_we_said(world):
        assert "Traceback" not in text, text
    if says is None:
        return
    text = next(client.err for client in reversed(world.clients) if "run" in client.argv)
    marked = [line for line in text.splitlines() if line.startswith(("✗", "✓ finished", "Usage", "Error"))]
    assert len(marked) == 1, text
    for word in says:
        assert word in text, f"{word!r} is not in:\n{text}"
    assert marked[0].startswith("✓") or "; " in marked[0] or "  fix " in text or "  logs " in text, text


def check_nothing_left(world: World) -> None:
    """I5."""
    for path in locks(world):
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: somebody holds it
    assert sorted(path.name for path in world.temporary.iterdir()) == []
    active = world.home / "active"
    assert not active.is_dir() or sorted(active.iterdir()) == []
    stale = [path for folder in world.run_folders() for path in folder.iterdir() if _STALE.match(path.name)]
    stale += [path for folder in ("ids", "archives") for path in (world.home / folder).glob(".*")]
    assert stale == []


def check_environments(world: World) -> None:
    """I5 for the environment cache: every one is whole."""
    folders = [path for path in (world.cache / "environments").glob("*") if path.is_dir()]
    assert [path for path in folders if not (path / ".mlflow-azure-environment").exists()] == []


def check_private(world: World) -> None:
    """I6."""
    for path in _what_we_wrote(world):
        found = path.lstat()
        if path.is_relative_to(world.home) or path.is_relative_to(world.cache):
            allowed = 0o700 if stat.S_ISDIR(found.st_mode) else 0o600
            assert stat.S_IMODE(found.st_mode) == allowed, (oct(found.st_mode), path)
        if stat.S_ISREG(found.st_mode) and path.name != "std_log.txt":
            content = path.read_bytes()
            assert [canary for canary in world.canaries if canary.encode() in content] == [], path
    for text in _what_we_said(world):
        assert [canary for canary in world.canaries if canary in text] == []


def log_artifacts(world: World) -> list[Path]:
    """The logs in the artifact store."""
    return sorted(world.store.rglob("std_log.txt"))


def locks(world: World) -> list[Path]:
    """Every lock file of ours."""
    return [path for root in (world.home, world.cache) for kind in _KINDS_OF_LOCK for path in root.rglob(kind)]


def _what_we_said(world: World) -> Iterator[str]:
    for client in world.clients:
        yield client.err
    for folder in world.run_folders():
        for name in ("supervisor.log", "recorder.log"):
            path = folder / name
            if path.exists():
                yield path.read_text(encoding="utf-8", errors="replace")


def _what_we_wrote(world: World) -> Iterator[Path]:
    """Our files and folders; not what is in a built environment, which uv wrote, nor the links in it."""
    for root in (world.home, world.cache, world.store):
        for folder, folders, files in os.walk(root):
            if Path(folder).name == "environments":
                folders.clear()
            yield from (Path(folder, name) for name in (*folders, *files))
