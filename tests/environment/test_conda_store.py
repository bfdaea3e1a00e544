"""Conda prefixes on disk: built once without conda, whole or not used, whatever is killed, flipped or missing."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_azure_backend.environment import installing
from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.environment.store import Prefix, ensure_prefix, find_prefix
from mlflow_azure_backend.errors import EnvironmentUnavailable
from tests.conda_channel import PYTHON, Channel, CondaServer
from tests.environment.conftest import flip

if TYPE_CHECKING:
    from mlflow_azure_backend.environment.lock import EnvironmentLock
    from tests.environment.conftest import MakeWheel, ReadProject

MINOR = ".".join(PYTHON.split(".")[:2])
LAB = "channels: [lab]"

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
spec = read_environment("conda_env", folder / "conda.yaml", folder=folder, env_manager=None, current=False)
lock = resolve(spec, cache=cache)
prefix = ensure_prefix(lock, cache=cache, on_progress=on_progress)
print(prefix.hit, [name for name in ("rattler", "conda_lock", "uv") if name in sys.modules])
"""


def start_build(folder: Path, cache: Path, *, fatal: str = "never") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(folder), str(cache), fatal], stdout=subprocess.PIPE, text=True
    )


def left_in(cache: Path) -> list[str]:
    """What the cache holds besides lock files, which stay."""
    return [path.name for path in (cache / "environments").iterdir() if path.suffix != ".lock"]


def run(prefix: Prefix, command: str) -> str:
    environ = prefix.variables({"PATH": "/usr/bin:/bin"})
    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def small(lab: Channel, cache: Path, read_conda: ReadProject) -> EnvironmentLock:
    """alpha and beta, without Python."""
    return resolve(read_conda("alpha", head=LAB), cache=cache)


def test_an_environment_of_conda_packages_and_wheels_runs_and_is_a_hit_at_once(
    folder: Path, cache: Path, make_wheel: MakeWheel, read_conda: ReadProject
) -> None:
    make_wheel("gamma", "1.0", requires=("delta", "numpy"))
    make_wheel("delta", "2.0")
    head = "channels: [conda-forge]\nvariables: {GREETING: \"it's\", OTHER: '2'}"
    lock = resolve(read_conda(f"python={MINOR}", "numpy", pip=("gamma",), head=head), cache=cache)
    stages = list[str]()
    prefix = ensure_prefix(lock, cache=cache, on_progress=stages.append)
    assert stages == ["installing 3 conda packages", "installing 2 wheels", "finishing"]
    assert (prefix.hit, prefix.notes) == (False, ())
    code = "import gamma, numpy, sys; print(gamma.VERSION, sys.prefix); numpy.ones(3)"
    assert run(prefix, f'python -c "{code}"; gamma-say; echo $GREETING $OTHER') == (
        f"1.0 {prefix.path}\ngamma 1.0\nit's 2\n"
    )
    assert str(prefix.path) in run(prefix, "pip --version")
    installed = json.loads(run(prefix, "python -m pip list --format=json 2>/dev/null"))
    assert {"gamma", "delta", "numpy"} <= {one["name"] for one in installed}
    assert ensure_prefix(lock, cache=cache, on_progress=stages.append).hit
    assert len(stages) == 3
    done = start_build(folder, cache).communicate(timeout=100)[0]
    assert done == "True []\n"

    # The same lock and the same installer, elsewhere and by hand, as in an image.
    file = cache / "conda-lock.yml"
    file.write_text(lock.text)
    where = cache / "by hand"
    options = "".join(f"{line}\n" for line in lock.sources.lines)
    command = [sys.executable, str(installing.__file__), str(file), str(where)]
    by_hand = subprocess.run(command, input=options, capture_output=True, text=True)
    assert (by_hand.returncode, by_hand.stderr) == (0, "")
    said = subprocess.run([where / "bin/python", "-c", "import gamma, sys; print(sys.prefix)"], capture_output=True)
    assert said.stdout.decode() == f"{where}\n"


def test_the_wheel_that_was_locked_is_the_one_that_is_installed(
    folder: Path, cache: Path, make_wheel: MakeWheel, read_conda: ReadProject
) -> None:
    """Although this machine, which is newer than what is declared, could use another that uv prefers."""
    plain = make_wheel("gamma", "1.0")
    newer = plain.with_name(plain.name.replace("py3-none-any", "py3-none-manylinux_2_31_x86_64"))
    newer.write_bytes(plain.read_bytes() + b"\0")
    lock = resolve(read_conda(f"python={MINOR}", pip=("gamma",)), cache=cache)
    assert f"file:wheels/{plain.name}" in lock.text
    assert "1.0" in run(ensure_prefix(lock, cache=cache), "gamma-say")


def test_a_wheel_in_a_folder_of_this_machine_is_locked_by_its_name(
    cache: Path, make_wheel: MakeWheel, read_conda: ReadProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheelhouse"))
    gamma = make_wheel("gamma", "1.0", into=tmp_path / "wheelhouse")
    lock = resolve(read_conda(f"python={MINOR}", pip=("gamma",)), cache=cache)
    assert f"url: file:{gamma.name}\n" in lock.text
    assert str(tmp_path) not in lock.text
    assert "1.0" in run(ensure_prefix(lock, cache=cache), "gamma-say")


def test_activation_does_what_conda_s_does(cache: Path, lab: Channel, read_conda: ReadProject) -> None:
    prefix = ensure_prefix(resolve(read_conda("alpha", "scripted", head=LAB), cache=cache), cache=cache)
    assert prefix.notes == ("the post-link scripts of scripted are not run: they are arbitrary code of the packages",)
    assert not (prefix.path / "was-run").exists()
    before = {
        "PATH": f"/other/bin:{prefix.path}/bin:/usr/bin:/bin",
        "CONDA_PREFIX": "/other",
        "CONDA_PREFIX_1": "/base",
        "CONDA_SHLVL": "2",
        "VIRTUAL_ENV": "/venv",
        "PYTHONHOME": "/home",
        "SHLVL": "7",
        "KEPT": "a\nb",
    }
    after = prefix.variables(before)
    assert after == {
        "PATH": f"/scripted:{prefix.path}/bin:/other/bin:/usr/bin:/bin",
        "CONDA_PREFIX": str(prefix.path),
        "CONDA_DEFAULT_ENV": str(prefix.path),
        "CONDA_SHLVL": "1",
        "SHLVL": "7",
        "KEPT": "a\nb",
        "SCRIPTED": f"it's {prefix.path}",
    }
    assert run(prefix, "beta-say") == f"beta 1.0 in {prefix.path}\n"


def test_processes_that_want_the_same_build_it_once(folder: Path, cache: Path, small: EnvironmentLock) -> None:
    started = [start_build(folder, cache) for _ in range(8)]
    outputs = [process.communicate(timeout=250)[0].splitlines() for process in started]
    assert [process.returncode for process in started] == [0] * 8
    assert sorted(lines[-1].split()[0] for lines in outputs) == ["False", *["True"] * 7]
    assert sum(line.startswith("installing") for lines in outputs for line in lines) == 1


@pytest.mark.parametrize(
    ("point", "action"),
    [
        ("environment.resolving", "kill"),
        ("environment.before_install", "kill"),
        ("environment.before_marker", "kill"),
        ("environment.before_install", "sigint"),
        ("environment.before_marker", "raise"),
    ],
)
def test_a_fault_at_each_point_leaves_nothing_that_is_used(
    folder: Path,
    cache: Path,
    lab: Channel,
    read_conda: ReadProject,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    action: str,
) -> None:
    spec = read_conda("alpha", head=LAB)
    monkeypatch.setenv("MLFLOW_AZURE_FAULT", f"{point}:{action}")
    broken = start_build(folder, cache)
    broken.communicate(timeout=100)
    assert broken.returncode != 0
    monkeypatch.delenv("MLFLOW_AZURE_FAULT")
    lock = resolve(spec, cache=cache)
    if action != "kill" and point != "environment.resolving":
        assert left_in(cache) == []
    assert find_prefix(lock, cache=cache) is None
    assert not ensure_prefix(lock, cache=cache).hit
    assert left_in(cache) == [find_prefix(lock, cache=cache).name]  # type: ignore[union-attr]


@pytest.mark.parametrize("fatal", ["installing", "finishing"])
def test_a_builder_killed_between_stages_leaves_nothing_that_is_used(
    folder: Path, cache: Path, small: EnvironmentLock, fatal: str
) -> None:
    killed = start_build(folder, cache, fatal=fatal)
    killed.communicate(timeout=100)
    assert killed.returncode == -signal.SIGKILL
    assert find_prefix(small, cache=cache) is None
    assert not ensure_prefix(small, cache=cache).hit
    assert ensure_prefix(small, cache=cache).hit


def test_a_warm_cache_needs_no_channel(
    conda_server: CondaServer,
    conda_forge: CondaServer,
    cache: Path,
    small: EnvironmentLock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = ensure_prefix(small, cache=cache)
    shutil.rmtree(first.path)
    conda_server.asked.clear()
    monkeypatch.setenv("RATTLER_HOME", "/nowhere")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert not ensure_prefix(small, cache=cache).hit
    assert conda_server.asked == []


def test_a_flipped_byte_in_rattler_s_cache_is_noticed_and_mended(
    conda_forge: CondaServer, own_caches: Path, cache: Path, small: EnvironmentLock
) -> None:
    first = ensure_prefix(small, cache=cache)
    (cached,) = own_caches.glob("rattler/pkgs/beta-1.0-0/share/beta")
    before = flip(cached)
    shutil.rmtree(first.path)
    second = ensure_prefix(small, cache=cache)
    assert not second.hit
    assert (second.path / "share/beta").read_bytes() == before == b"b" * 1000


def test_a_flipped_byte_in_uv_s_cache_is_noticed_and_mended(
    conda_forge: CondaServer, own_caches: Path, cache: Path, make_wheel: MakeWheel, read_conda: ReadProject
) -> None:
    make_wheel("gamma", "1.0")
    lock = resolve(read_conda(f"python={MINOR}", pip=("gamma",)), cache=cache)
    first = ensure_prefix(lock, cache=cache)
    before = {flip(cached) for cached in own_caches.glob("uv/archive-v*/*/gamma.py")}
    shutil.rmtree(first.path)
    second = ensure_prefix(lock, cache=cache)
    (installed,) = second.path.glob("lib/python*/site-packages/gamma.py")
    assert {installed.read_bytes()} == before
    assert second.notes == ("the files of gamma in uv's cache were damaged, and are fetched anew",)


def test_a_package_that_is_not_the_locked_one(
    conda_server: CondaServer, conda_forge: CondaServer, own_caches: Path, cache: Path, read_conda: ReadProject
) -> None:
    channel = conda_server.channel("changing")
    package = channel.add("changing", "1.0", {"share/changing": "before"})
    channel.index()
    lock = resolve(read_conda("changing", head="channels: [changing]"), cache=cache)
    package.unlink()
    channel.add("changing", "1.0", {"share/changing": "after"})
    with pytest.raises(EnvironmentUnavailable) as caught:
        ensure_prefix(lock, cache=cache)
    assert "a package is not the one that was locked: " in str(caught.value)
    assert caught.value.next_step == "resolve again with `mlflow-azure lock --upgrade`"
    assert left_in(cache) == []


def test_a_lock_with_md5_only_leaves_the_shared_cache_alone(
    folder: Path, cache: Path, own_caches: Path, small: EnvironmentLock
) -> None:
    text = "\n".join(line for line in small.text.split("\n") if "sha256: " not in line)
    file = folder / "conda-lock.yml"
    file.write_text(text)
    command = [sys.executable, "-m", "mlflow_azure_backend.environment.installing", str(file), str(folder / "prefix")]
    done = subprocess.run(command, input="", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "prefix/share/beta").read_bytes() == b"b" * 1000
    assert not list(own_caches.glob("rattler/pkgs/beta*"))


def test_a_private_channel_s_password_is_not_in_the_prefix(
    conda_server: CondaServer, conda_forge: CondaServer, own_caches: Path, cache: Path, read_conda: ReadProject
) -> None:
    channel = conda_server.channel("guarded")
    channel.add("guarded", "1.0", {"share/guarded": "x"})
    channel.index()
    conda_server.private.add("guarded")
    address = conda_server.url.replace("://", f"://{conda_server.user}:{conda_server.password}@") + "/guarded"
    lock = resolve(read_conda("guarded", head=f"channels: ['{address}']"), cache=cache)
    prefix = ensure_prefix(lock, cache=cache)
    assert (prefix.path / "share/guarded").read_text() == "x"
    for place in (cache, own_caches / "rattler"):
        for path in place.rglob("*"):
            assert not path.is_file() or b"canary" not in path.read_bytes(), path


def test_what_cannot_be_installed_is_one_line_and_leaves_nothing(
    cache: Path, small: EnvironmentLock, own_caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATTLER_HOME", "/nowhere")  # no mirror: conda.anaconda.org itself, through a proxy that is dead
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(EnvironmentUnavailable) as caught:
        ensure_prefix(small, cache=cache)
    assert "error sending request" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.next_step == "check the network, and the settings of rattler, pip or uv"
    assert left_in(cache) == []
    far = tmp_path / ("x" * 200) / ("y" * 200)
    with pytest.raises(
        EnvironmentUnavailable, match="conda packages cannot be installed below a path of more than 250 bytes"
    ):
        ensure_prefix(small, cache=far)
