"""What is on disk, said truly, and removed without pulling the ground from under a job."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest

from mlflow_azure_backend.environment.inventory import CachedEnvironment, count_whole, list_environments, prune
from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.environment.store import Prefix, ensure_prefix, hold
from mlflow_azure_backend.journal import cache_home

if TYPE_CHECKING:
    from mlflow_azure_backend.environment.lock import EnvironmentLock
    from tests.environment.conftest import MakeWheel, ReadProject

OURS = str(Path(sys.executable).parent / "mlflow-azure")
DAY = 86_400.0


@pytest.fixture
def locks(cache: Path, make_wheel: MakeWheel, read: ReadProject) -> list[EnvironmentLock]:
    """Two environments, built, the second one not used for ten days."""
    make_wheel("alpha", "1.0")
    make_wheel("beta", "1.0")
    made = [resolve(read(name), cache=cache) for name in ("alpha", "beta")]
    for lock in made:
        ensure_prefix(lock, cache=cache)
        with hold(lock, cache=cache):
            pass
    age(cache, made[1], 10 * DAY)
    return made


def age(cache: Path, lock: EnvironmentLock, seconds: float) -> None:
    file = cache / "environments" / f"{lock.key[:32]}.use"
    moment = file.stat().st_mtime - seconds
    os.utime(file, (moment, moment))


def names(found: list[CachedEnvironment]) -> list[str]:
    return [one.key for one in found]


def keys(*locks: EnvironmentLock) -> list[str]:
    return [lock.key[:32] for lock in locks]


def ask(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "MLFLOW_AZURE_CACHE": str(cache)}
    return subprocess.run([OURS, *arguments], capture_output=True, text=True, env=environ, timeout=120)


def test_what_is_built_is_listed_the_last_used_first(cache: Path, locks: list[EnvironmentLock]) -> None:
    assert list_environments(cache.parent / "nowhere") == []
    assert (count_whole(cache.parent / "nowhere"), count_whole(cache)) == (0, len(locks))
    found = list_environments(cache)
    assert names(found) == keys(*locks)
    assert [(one.state, one.python, one.packages) for one in found] == [("ready", locks[0].python_version, 1)] * 2
    assert all(one.size >= one.own_size > 0 for one in found)
    assert found[0].last_used - found[1].last_used >= 9 * DAY


def test_the_longest_unused_go_first(cache: Path, locks: list[EnvironmentLock]) -> None:
    both = keys(locks[1], locks[0])
    assert names(list(prune(cache, dry_run=True))) == both
    assert names(list(prune(cache, dry_run=True, older_than=DAY))) == both[:1]
    assert names(list(prune(cache, dry_run=True, older_than=30 * DAY))) == []
    assert names(list(prune(cache, dry_run=True, max_size=10**12))) == []
    assert len(list_environments(cache)) == len(locks)
    assert names(list(prune(cache, max_size=1))) == both
    assert list_environments(cache) == []


def test_one_goes_when_the_other_then_fits(cache: Path, locks: list[EnvironmentLock]) -> None:
    newest = list_environments(cache)[0]
    assert names(list(prune(cache, max_size=newest.size))) == keys(locks[1])


def test_what_is_in_use_stays_and_using_it_is_remembered(cache: Path, locks: list[EnvironmentLock]) -> None:
    with hold(locks[1], cache=cache) as held:
        assert len(held) == 1
        assert [one.state for one in list_environments(cache)] == ["in use", "ready"]
        assert names(list(prune(cache))) == keys(locks[0])
    assert names(list(prune(cache, older_than=DAY))) == []
    assert names(list(prune(cache))) == keys(locks[1])
    assert not ensure_prefix(locks[1], cache=cache).hit


def no_marker(prefix: Prefix) -> None:
    next(prefix.path.glob(".mlflow-azure*")).unlink()


def broken_marker(prefix: Prefix) -> None:
    next(prefix.path.glob(".mlflow-azure*")).write_text("half")


def no_python(prefix: Prefix) -> None:
    prefix.python.unlink()


def a_file(prefix: Prefix) -> None:
    shutil.rmtree(prefix.path)
    prefix.path.write_text("")


def a_link(prefix: Prefix) -> None:
    prefix.path.rename(prefix.path.parent.parent / "elsewhere")
    prefix.path.symlink_to(prefix.path.parent.parent / "elsewhere")


@pytest.mark.parametrize("damage", [no_marker, broken_marker, no_python, a_file, a_link])
def test_what_is_broken_is_said_and_goes(
    cache: Path, locks: list[EnvironmentLock], damage: Callable[[Prefix], None]
) -> None:
    damage(ensure_prefix(locks[0], cache=cache))
    assert {one.key: one.state for one in list_environments(cache)}[locks[0].key[:32]] == "broken"
    assert count_whole(cache) == 1
    assert names(list(prune(cache, older_than=365 * DAY))) == keys(locks[0])
    elsewhere = cache / "elsewhere"
    assert not elsewhere.exists() or (elsewhere / "bin/python").exists()  # what a link leads to is not ours


def test_the_current_interpreter_and_a_cache_that_cannot_be_written_hold_nothing(
    tmp_path: Path, locks: list[EnvironmentLock]
) -> None:
    from mlflow_azure_backend.environment.python_lock import current_lock

    for lock, cache in ((current_lock(), tmp_path / "cache"), (locks[0], Path("/proc/nowhere"))):
        with hold(lock, cache=cache) as held:
            assert held == ()


def test_the_command_line_says_the_same(cache: Path, locks: list[EnvironmentLock]) -> None:
    listed = ask(cache, "env", "list")
    assert [line.split()[1:4] for line in listed.stdout.splitlines()[1:]] == [
        ["ready", locks[0].python_version, "1"]
    ] * 2
    pruned = ask(cache, "prune", "--older-than", "1d")
    assert (pruned.returncode, "1 environment removed, " in pruned.stderr) == (0, True)
    assert json.loads(ask(cache, "prune", "--json", "--dry-run").stdout)[0]["key"] == locks[0].key[:32]
    wrong = ask(cache, "prune", "--max-size", "huge")
    assert wrong.returncode == 2
    assert "'huge': expected a size" in wrong.stderr


def test_a_cache_that_can_only_be_read(cache: Path, locks: list[EnvironmentLock]) -> None:
    subprocess.run(["mount", "--bind", str(cache), str(cache)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(cache)], check=True)
        listed, would, pruned = (
            ask(cache, "env", "list", "--json"),
            ask(cache, "prune", "--dry-run"),
            ask(cache, "prune"),
        )
        with hold(locks[0], cache=cache) as held:
            assert (held, ensure_prefix(locks[0], cache=cache).hit) == ((), True)
    finally:
        subprocess.run(["umount", "--lazy", str(cache)], check=True)
    assert (listed.returncode, [one["state"] for one in json.loads(listed.stdout)]) == (0, ["ready", "ready"])
    assert (would.returncode, "2 environments would be removed" in would.stderr) == (0, True)
    assert_refused(pruned, "Read-only file system", "MLFLOW_AZURE_CACHE to folders that you can write to")
    assert names(list_environments(cache)) == keys(*locks)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("command", [("env", "list"), ("prune",)])
def test_without_a_home_the_temporary_folder_serves_unless_others_could_have_made_it(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    left_out = ("HOME", "MLFLOW_AZURE_CACHE", "MLFLOW_AZURE_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")
    environ = {name: value for name, value in os.environ.items() if name not in left_out}
    environ["TMPDIR"] = str(tmp_path)

    def called(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([OURS, *command], capture_output=True, text=True, env={**environ, **more}, timeout=120)

    said = {"env": f"no environment is built yet in {tmp_path}/mlflow-azure-", "prune": "0 environments removed"}
    for done in (called(), called(HOME=str(tmp_path / "nowhere"))):
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (0, "", 1), done.stderr
        assert said[command[0]] in done.stderr
    folder = next(tmp_path.glob("mlflow-azure-*"))
    os.chown(folder, 65534, 65534)
    assert_refused(called(), str(folder), "another user")


def test_a_running_job_s_environment_stays_until_the_job_has_ended(
    store: str, write_project: Callable[[Mapping[str, str]], Path], tmp_path: Path
) -> None:
    started, go_on = tmp_path / "started", tmp_path / "go on"
    os.mkfifo(started)
    os.mkfifo(go_on)
    folder = write_project(
        {
            "MLproject": "python_env: python_env.yaml\nentry_points:\n  main:\n    parameters: {started: string, go: string}\n"
            '    command: "echo > {started}; read -r _ < {go}; python -c pass"\n',
            "python_env.yaml": "dependencies: [--no-index]\n",
        }
    )
    job = mlflow.projects.run(
        str(folder),
        backend="azureml",
        experiment_name="contract",
        parameters={"started": str(started), "go": str(go_on)},
        synchronous=False,
    )
    started.read_text()
    cache = cache_home(os.environ)
    assert [one.state for one in list_environments(cache)] == ["in use"]
    assert list(prune(cache)) == []
    go_on.write_text("\n")
    assert job.wait()
    with next((cache / "environments").glob("*.use")).open("rb") as use:
        fcntl.flock(use, fcntl.LOCK_EX)  # the supervisor leaves a moment after the end is recorded
    subprocess.run([OURS, "env", "list"], check=True, capture_output=True)
    assert [one.packages for one in prune(cache)] == [0]
