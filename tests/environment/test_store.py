"""Prefixes on disk: built once, whole or not used, whatever is killed, flipped, full or in the way."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_azure_backend.environment.python_lock import current_lock
from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.environment.store import Prefix, ensure_prefix
from mlflow_azure_backend.errors import EnvironmentUnavailable
from tests.environment.conftest import flip

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_azure_backend.environment.lock import EnvironmentLock
    from tests.environment.conftest import Index, MakeWheel, ReadProject

STAGES = ("creating", "installing", "finishing")

BUILD = """
import os, signal, sys
from pathlib import Path
from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.environment.spec import read_environment
from mlflow_azure_backend.environment.store import ensure_prefix
folder, cache, fatal = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def on_progress(stage):
    print(stage, flush=True)
    if stage.startswith(fatal):
        os.kill(os.getpid(), signal.SIGKILL)
spec = read_environment("python_env", folder / "python_env.yaml", folder=folder, env_manager="uv", current=False)
lock = resolve(spec, cache=cache)
prefix = ensure_prefix(lock, cache=cache, on_progress=on_progress)
print(prefix.hit, *({"uv", "rattler", "conda_lock", "docker", "azure", "mlflow"} & set(sys.modules)) or ["and nothing else"])
"""


@pytest.fixture
def lock(cache: Path, make_wheel: MakeWheel, read: ReadProject) -> EnvironmentLock:
    """Two small packages, one that needs the other."""
    make_wheel("alpha", "1.0", requires=("beta",))
    make_wheel("beta", "2.0")
    return resolve(read("alpha"), cache=cache)


def start_build(folder: Path, cache: Path, *, fatal: str = "never") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(folder), str(cache), fatal], stdout=subprocess.PIPE, text=True
    )


def versions(prefix: Prefix) -> str:
    code = "import alpha, beta; print(alpha.VERSION, beta.VERSION)"
    return subprocess.run([prefix.python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def left_in(cache: Path) -> list[str]:
    """What the cache holds besides lock files, which stay."""
    return [path.name for path in (cache / "environments").iterdir() if path.suffix != ".lock"]


def test_an_environment_is_built_once_and_runs(cache: Path, lock: EnvironmentLock) -> None:
    stages = list[str]()
    first = ensure_prefix(lock, cache=cache, on_progress=stages.append)
    assert [stage.split()[0] for stage in stages] == list(STAGES)
    assert (first.hit, versions(first)) == (False, "1.0 2.0")
    second = ensure_prefix(lock, cache=cache, on_progress=stages.append)
    assert (second.hit, second.path, len(stages)) == (True, first.path, len(STAGES))


def test_a_warm_environment_loads_nothing_that_builds(folder: Path, cache: Path, lock: EnvironmentLock) -> None:
    ensure_prefix(lock, cache=cache)
    assert start_build(folder, cache).communicate(timeout=60)[0] == "True and nothing else\n"


def test_commands_run_in_it_and_under_any_path(
    tmp_path: Path, lock: EnvironmentLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere/else")
    monkeypatch.setenv("PYTHONHOME", "/somewhere/else")
    monkeypatch.setenv("CONDA_PREFIX", "/opt/conda")
    prefix = ensure_prefix(lock, cache=tmp_path / "a 'cache' \"é\"\n$HOME;#")
    environ = prefix.variables(os.environ)
    done = subprocess.run(["bash", "-c", "alpha-say; which python"], env=environ, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"alpha 1.0\n{prefix.python}\n", "")
    assert environ["PATH"] == f"{prefix.path}/bin:{os.environ['PATH']}"
    assert (environ["VIRTUAL_ENV"], environ["CONDA_PREFIX"]) == (str(prefix.path), "/opt/conda")
    assert "PYTHONHOME" not in environ


def test_the_current_interpreter_is_used_as_it_is(cache: Path) -> None:
    prefix = ensure_prefix(current_lock(), cache=cache)
    assert (prefix.path, prefix.python, prefix.hit) == (Path(sys.prefix), Path(sys.executable), True)
    assert not cache.exists()
    environ = prefix.variables({"PATH": "/usr/bin:/bin", "PYTHONHOME": "/kept"})
    assert (environ["PATH"], environ["PYTHONHOME"]) == (f"{Path(sys.executable).parent}:/usr/bin:/bin", "/kept")
    assert prefix.variables({"PATH": environ["PATH"]})["PATH"] == environ["PATH"]


def test_an_environment_without_packages(cache: Path, read: ReadProject) -> None:
    prefix = ensure_prefix(resolve(read(), cache=cache), cache=cache)
    done = subprocess.run([prefix.python, "-m", "alpha"], capture_output=True, text=True)
    assert "No module named alpha" in done.stderr


def test_the_same_packages_share_a_prefix(cache: Path, lock: EnvironmentLock, read: ReadProject) -> None:
    ensure_prefix(lock, cache=cache)
    assert ensure_prefix(resolve(read("beta", "alpha==1.0"), cache=cache), cache=cache).hit


@pytest.mark.parametrize("fatal", STAGES)
def test_a_builder_killed_anywhere_leaves_nothing_that_is_used(
    folder: Path, cache: Path, lock: EnvironmentLock, fatal: str
) -> None:
    killed = start_build(folder, cache, fatal=fatal)
    assert killed.wait(timeout=60) == -signal.SIGKILL
    prefix = ensure_prefix(lock, cache=cache)
    assert (prefix.hit, versions(prefix)) == (False, "1.0 2.0")
    assert left_in(cache) == [prefix.path.name]
    assert killed.stdout is not None
    killed.stdout.close()


def test_an_installer_that_outlives_its_killed_parent_keeps_the_lock(
    folder: Path,
    cache: Path,
    make_wheel: MakeWheel,
    read: ReadProject,
    index: Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index.add(make_wheel("gamma", "1.0"))
    monkeypatch.setenv("PIP_INDEX_URL", index.private_url)
    lock = resolve(read("gamma", offline=False), cache=cache)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cold-uv-cache"))
    index.asked.clear()
    index.answer.clear()
    killed = start_build(folder, cache)
    assert index.asked.wait(60)
    killed.kill()
    killed.communicate()
    second = start_build(folder, cache)
    assert second.stdout is not None
    assert second.stdout.readline() == f"waiting for process {killed.pid}, which is making the same\n"
    index.answer.set()
    output = second.communicate(timeout=60)[0]
    assert [line.split()[0] for line in output.splitlines()] == [*STAGES, "False"]
    assert ensure_prefix(lock, cache=cache).hit


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("raised", [KeyboardInterrupt, RuntimeError])
def test_an_exception_anywhere_leaves_nothing(
    cache: Path, lock: EnvironmentLock, stage: str, raised: type[BaseException]
) -> None:
    def on_progress(begun: str) -> None:
        if begun.startswith(stage):
            raise raised

    with pytest.raises(raised):
        ensure_prefix(lock, cache=cache, on_progress=on_progress)
    assert left_in(cache) == []
    assert versions(ensure_prefix(lock, cache=cache)) == "1.0 2.0"


def test_processes_that_want_the_same_build_it_once(folder: Path, cache: Path, lock: EnvironmentLock) -> None:
    started = [start_build(folder, cache) for _ in range(8)]
    outputs = [process.communicate(timeout=250)[0].splitlines() for process in started]
    assert [process.returncode for process in started] == [0] * 8
    assert sorted(lines[-1].split()[0] for lines in outputs) == ["False", *["True"] * 7]
    assert sum(line.startswith("creating") for lines in outputs for line in lines) == 1


def flip_marker(prefix: Prefix) -> None:
    (marker,) = prefix.path.glob(".mlflow-azure*")
    content = bytearray(marker.read_bytes())
    content[-5] ^= 1
    marker.write_bytes(content)


def remove_marker(prefix: Prefix) -> None:
    next(prefix.path.glob(".mlflow-azure*")).unlink()


def remove_python(prefix: Prefix) -> None:
    prefix.python.unlink()


def other_python(prefix: Prefix) -> None:
    prefix.python.unlink()
    prefix.python.write_text("#!/bin/sh\n")


def move_away(prefix: Prefix) -> None:
    """The same prefix, but behind a link: its scripts would lead elsewhere."""
    prefix.path.rename(prefix.path.with_name("moved"))
    prefix.path.symlink_to("moved")


def become_file(prefix: Prefix) -> None:
    shutil.rmtree(prefix.path)
    prefix.path.write_text("")


@pytest.mark.parametrize("damage", [flip_marker, remove_marker, remove_python, other_python, move_away, become_file])
def test_a_damaged_prefix_is_built_again(cache: Path, lock: EnvironmentLock, damage: Callable[[Prefix], None]) -> None:
    damage(ensure_prefix(lock, cache=cache))
    again = ensure_prefix(lock, cache=cache)
    assert (again.hit, versions(again)) == (False, "1.0 2.0")
    assert not again.path.is_symlink()
    assert ensure_prefix(lock, cache=cache).hit


def test_a_copied_cache_is_not_used_at_its_new_place(tmp_path: Path, cache: Path, lock: EnvironmentLock) -> None:
    ensure_prefix(lock, cache=cache)
    shutil.copytree(cache, tmp_path / "copy", symlinks=True)
    (tmp_path / "copy/environments").chmod(0o700)
    assert not ensure_prefix(lock, cache=tmp_path / "copy").hit


def test_another_user_s_cache_is_refused(cache: Path, lock: EnvironmentLock) -> None:
    ensure_prefix(lock, cache=cache)
    os.chown(cache / "environments", 12345, -1)
    with pytest.raises(EnvironmentUnavailable, match=r"environments: belongs to another user \(uid 12345\)"):
        ensure_prefix(lock, cache=cache)


def test_a_link_in_the_cache_s_place_is_refused(tmp_path: Path, cache: Path, lock: EnvironmentLock) -> None:
    (tmp_path / "elsewhere").mkdir()
    (cache / "environments").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EnvironmentUnavailable, match="environments: is not a folder and is not used as one"):
        ensure_prefix(lock, cache=cache)


def test_a_cache_that_others_could_enter_is_closed(cache: Path, lock: EnvironmentLock) -> None:
    (cache / "environments").mkdir(mode=0o777)
    ensure_prefix(lock, cache=cache)
    assert (cache / "environments").stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_cache_s_place(tmp_path: Path, lock: EnvironmentLock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentUnavailable, match=r"the environment cache cannot be used \(") as caught:
        ensure_prefix(lock, cache=tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value)


def test_a_package_that_is_not_the_locked_one(
    folder: Path, cache: Path, lock: EnvironmentLock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cold-uv-cache"))
    wheel = folder / "wheels/beta-2.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(EnvironmentUnavailable, match=r"beta==2\.0 is not the file that was locked") as caught:
        ensure_prefix(lock, cache=cache)
    assert caught.value.next_step == "resolve again with `mlflow-azure lock --upgrade`"
    assert left_in(cache) == []


def test_a_flipped_byte_in_uv_s_cache_is_noticed_and_mended(
    own_caches: Path, cache: Path, lock: EnvironmentLock
) -> None:
    first = ensure_prefix(lock, cache=cache)
    (cached,) = own_caches.glob("uv/archive-v*/*/beta.py")
    before = flip(cached)
    shutil.rmtree(first.path)
    second = ensure_prefix(lock, cache=cache)
    (installed,) = second.path.glob("lib/python*/site-packages/beta.py")
    assert (installed.read_bytes(), versions(second)) == (before, "1.0 2.0")
    assert second.notes == ("the files of beta in uv's cache were damaged, and are fetched anew",)
    shutil.rmtree(first.path)
    assert ensure_prefix(lock, cache=cache).notes == ()


def test_a_damaged_cache_is_passed_over_while_another_uv_is_at_work(
    own_caches: Path, cache: Path, lock: EnvironmentLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ensure_prefix(lock, cache=cache)
    (cached,) = own_caches.glob("uv/archive-v*/*/beta.py")
    before = flip(cached)
    shutil.rmtree(first.path)
    monkeypatch.setenv("UV_LOCK_TIMEOUT", "0")
    with (own_caches / "uv/.lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        second = ensure_prefix(lock, cache=cache)
    (installed,) = second.path.glob("lib/python*/site-packages/beta.py")
    assert (installed.read_bytes(), cached.exists()) == (before, True)
    assert second.notes == ("the files of beta in uv's cache were damaged, and are fetched anew",)


def test_a_wheel_that_is_not_what_it_says_itself_is_used_and_said(
    cache: Path, make_wheel: MakeWheel, read: ReadProject
) -> None:
    """pip installs it, too; its archive is the one that was locked."""
    wheel = make_wheel("alpha", "1.0")
    with zipfile.ZipFile(wheel) as whole:
        files = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content + b"#" * (name == "alpha.py"))
    lock = resolve(read("alpha"), cache=cache)
    prefix = ensure_prefix(lock, cache=cache)
    assert prefix.notes == ("alpha: the wheel has other files than it lists; it is the one that was locked",)
    assert subprocess.run([prefix.python, "-c", "import alpha"]).returncode == 0


def test_a_full_disk_is_named_with_its_bytes(small_disk: Path, lock: EnvironmentLock) -> None:
    with pytest.raises(EnvironmentUnavailable, match=r"no space left on the disk \([\d,]+ bytes free\)") as caught:
        ensure_prefix(lock, cache=small_disk)
    assert str(small_disk) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left_in(small_disk) == []


def test_a_read_only_disk(small_disk: Path, lock: EnvironmentLock) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(EnvironmentUnavailable, match=r"cannot be used \(Read-only file system\)") as caught:
        ensure_prefix(lock, cache=small_disk)
    assert "set MLFLOW_AZURE_CACHE to a folder" in str(caught.value)


@pytest.mark.package_index
def test_real_packages_from_this_machine_s_index(
    folder: Path, cache: Path, read: ReadProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read("six", "pip", offline=False)
    prefix = ensure_prefix(resolve(spec, cache=cache), cache=cache)
    done = subprocess.run([prefix.python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True)
    assert {package["name"] for package in json.loads(done.stdout)} == {"six", "pip"}
    shutil.rmtree(prefix.path)
    monkeypatch.setenv("UV_OFFLINE", "1")
    assert not ensure_prefix(resolve(spec, cache=cache), cache=cache).hit
